use std::fs;

use super::{super::tls::Tls, support::*};

const RELOADED: &str = r#"tekton_wrap_tls_reload_total{result="success"}"#;
const FAILED: &str = r#"tekton_wrap_tls_reload_total{result="error"}"#;

#[tokio::test]
async fn rotations() {
    let server = Running::start(Stage::Found).await;
    assert_eq!(server.client().await.serial(), 1);

    server.mount.swap(&server.authority.leaf(2));
    until_served(&server, 1, 2).await;

    // A certificate with another one's key.
    let mismatched = Pair { key: server.authority.leaf(9).key, ..server.authority.leaf(3) };
    server.mount.swap(&mismatched);
    until(&server, FAILED, "1").await;
    assert_eq!(server.client().await.serial(), 2);
    // Looking again changes nothing: it is still the same pair.
    assert_eq!(server.metric(FAILED).await.as_deref(), Some("1"));

    server.mount.swap(&server.authority.leaf(4));
    until_served(&server, 2, 4).await;

    server.mount.swap(&server.authority.leaf(5));
    until_served(&server, 4, 5).await;

    fs::remove_file(server.mount.dir.path().join("..data")).unwrap();
    until(&server, FAILED, "2").await;
    assert_eq!(server.client().await.serial(), 5);
    assert_eq!(server.metric(RELOADED).await.as_deref(), Some("3"));
}

#[tokio::test]
async fn an_open_connection_outlives_a_rotation() {
    let server = Running::start(Stage::Found).await;
    let mut client = server.client().await;
    server.mount.swap(&server.authority.leaf(2));
    until_served(&server, 1, 2).await;
    assert_eq!(client.review(&creation(&run("chain")).to_string()).await.unwrap().status, 200);
}

#[test]
fn unusable_files_are_named() {
    let authority = Authority::new();
    let (good, other) = (authority.leaf(1), authority.leaf(2));
    let text = |text: &str| text.to_owned();
    for (certificate, key, why) in [
        (good.certificate.clone(), good.key.clone(), None),
        (good.certificate.clone() + &other.certificate, good.key.clone(), None),
        (text(""), good.key.clone(), Some("tls.crt holds no usable PEM certificate")),
        (good.key.clone(), good.key.clone(), Some("tls.crt holds no usable PEM certificate")),
        (good.certificate.clone(), text(""), Some("tls.key holds no usable PEM private key")),
        (good.certificate.clone(), good.certificate.clone(), Some("tls.key holds no usable PEM private key")),
        (good.certificate.clone(), other.key.clone(), Some("can't be used together")),
    ] {
        let mount = Mount::new(&Pair { certificate, key });
        let error = Tls::load(settings(mount.dir.path())).err().map(|e| e.to_string());
        assert_eq!(error.is_some(), why.is_some(), "{error:?}");
        assert!(error.unwrap_or_default().contains(why.unwrap_or_default()));
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(Tls::load(settings(empty.path())).unwrap_err().to_string().contains("tls.crt can't be read"));
}

/// Connects again and again until the certificate is `new`; until then it must be `old`, and no handshake may fail.
async fn until_served(server: &Running, old: u8, new: u8) {
    let served = async {
        loop {
            let serial = server.client().await.serial();
            if serial == new {
                return;
            }
            assert_eq!(serial, old);
        }
    };
    tokio::time::timeout(FOREVER, served).await.expect("the certificate stays the same");
}

async fn until(server: &Running, metric: &str, value: &str) {
    let shown = async {
        while server.metric(metric).await.as_deref() != Some(value) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(FOREVER, shown).await.expect(metric);
}
