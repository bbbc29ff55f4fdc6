//! The exact answers of registries that cause what a user has to be told, and what they are told.

use tekton_wrap::digest::Digest;

use super::*;
use support::faults::{Fault, Faults};

type Headers = &'static [(&'static str, &'static str)];

/// What is done when the answer comes.
type Action = fn(&dyn Store) -> Result<(), StoreError>;

const UPLOAD: Action = |store| store.put_bytes(b"x").map(drop);
const TAG: Action = |store| {
    let config = store.put_bytes(b"{}")?;
    store.put_manifest("v1", MANIFEST, &manifest(&config, &config)).map(drop)
};
const READ: Action = |store| store.manifest("v1").map(drop);
const DELETE: Action = |store| store.delete_image("v1", &Digest::of(b"v1")).map(drop);

/// Method and part of the address, what comes from there, what is done, and what is said.
struct Case {
    on: (&'static str, &'static str),
    status: &'static str,
    headers: Headers,
    body: &'static str,
    action: Action,
    says: &'static str,
}

#[test]
fn what_users_are_told() {
    let cases = [
        Case {
            on: ("POST", "/uploads/"),
            status: "401 Unauthorized",
            headers: &[("WWW-Authenticate", "Basic realm=x")],
            body: r#"{"errors":[{"code":"UNAUTHORIZED","message":"access to the requested resource is not authorized"}]}"#,
            action: UPLOAD,
            says: "denied uploading a blob (401 UNAUTHORIZED: access to the requested resource is not authorized); add credentials for HOST",
        },
        Case {
            on: ("POST", "/uploads/"),
            status: "403 Forbidden",
            headers: &[],
            body: r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#,
            action: UPLOAD,
            says: "the storage quota is used up: delete images (tekton-wrap prune does it for runs), or raise it",
        },
        Case {
            on: ("POST", "/uploads/"),
            status: "403 Forbidden",
            headers: &[],
            body: r#"{"errors":[{"code":"DENIED","message":"adding 12.3 MiB of storage resource, which when updated to current usage of 1.0 GiB will exceed the configured upper limit of 1.0 GiB."}]}"#,
            action: UPLOAD,
            says: "the storage quota is used up",
        },
        Case {
            on: ("POST", "/uploads/"),
            status: "405 Method Not Allowed",
            headers: &[],
            body: r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}"#,
            action: UPLOAD,
            says: "(405 UNSUPPORTED: The operation is unsupported); this registry takes no uploads: name another one",
        },
        Case {
            on: ("DELETE", "/manifests/"),
            status: "405 Method Not Allowed",
            headers: &[],
            body: r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}"#,
            action: DELETE,
            says: "it deletes no images; its operator can allow it, or the param expires can limit how long images are kept",
        },
        Case {
            on: ("DELETE", "/manifests/"),
            status: "403 Forbidden",
            headers: &[],
            body: r#"{"errors":[{"code":"DENIED","message":"permission_denied: delete_package"}]}"#,
            action: DELETE,
            says: "denied deleting the image (403 DENIED: permission_denied: delete_package); add credentials for HOST",
        },
        Case {
            on: ("GET", "/manifests/"),
            status: "400 Bad Request",
            headers: &[],
            body: r#"{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}"#,
            action: READ,
            says: "the token has expired, and a new one did not help; try again",
        },
        Case {
            on: ("GET", "/manifests/"),
            status: "403 Forbidden",
            headers: &[],
            body: r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}"#,
            action: READ,
            says: "it asks for fewer requests: try again later",
        },
        Case {
            on: ("GET", "/manifests/"),
            status: "429 Too Many Requests",
            headers: &[("Retry-After", "21600")],
            body: r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#,
            action: READ,
            says: "it asks to wait 360 min, until ",
        },
        Case {
            on: ("GET", "/manifests/"),
            status: "429 Too Many Requests",
            headers: &[("Retry-After", "Fri, 31 Dec 2999 23:59:59 GMT")],
            body: "HAP429",
            action: READ,
            says: "limits are higher for those who log in: add credentials for HOST",
        },
        Case {
            on: ("GET", "/manifests/"),
            status: "403 Forbidden",
            headers: &[("Retry-After", "3600")],
            body: r#"{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}"#,
            action: READ,
            says: "rate limited reading the manifest (403: You have exceeded a secondary rate limit",
        },
        Case {
            on: ("PUT", "/manifests/"),
            status: "400 Bad Request",
            headers: &[],
            body: r#"{"errors":[{"code":"TAG_INVALID","message":"The image tag 'v1' already exists in the 'me/a' repository and cannot be overwritten because the repository is immutable."}]}"#,
            action: TAG,
            says: "the tag exists and may not be changed there (immutable tags): let the target have another tag for each run",
        },
        Case {
            on: ("PUT", "/manifests/"),
            status: "412 Precondition Failed",
            headers: &[],
            body: r#"{"errors":[{"code":"PRECONDITION","message":"Failed to process request due to 'me/a:v1' configured as immutable."}]}"#,
            action: TAG,
            says: "the tag exists and may not be changed there (immutable tags)",
        },
        Case {
            on: ("PUT", "/manifests/"),
            status: "404 Not Found",
            headers: &[],
            body: r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}]}"#,
            action: TAG,
            says: "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a); a blob that it names is missing",
        },
        Case {
            on: ("POST", "/uploads/"),
            status: "404 Not Found",
            headers: &[],
            body: r#"{"errors":[{"code":"NAME_UNKNOWN","message":"The repository with name 'me/a' does not exist in the registry with id '1'"}]}"#,
            action: UPLOAD,
            says: "there is no such repository: create it, or name another one",
        },
        Case {
            on: ("POST", "/uploads/"),
            status: "503 Service Unavailable",
            headers: &[],
            body: "<html><body>upstream connect error</body></html>",
            action: UPLOAD,
            says: "failed uploading a blob (503 Service Unavailable); this is a fault of the registry: look at its log (tried ",
        },
        Case {
            on: ("GET", "/manifests/"),
            status: "200 OK",
            headers: &[("Content-Type", "text/html")],
            body: "<html>Welcome to nginx!",
            action: READ,
            says: "this is no image manifest but text/html; is HOST a registry?",
        },
    ];
    for case in cases {
        let faults = Faults::start(&REGISTRY.address);
        let headers = case.headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let answer = Fault::Answer(case.status, headers, case.body.as_bytes().to_vec());
        faults.on(case.on.0, case.on.1, usize::MAX, answer);
        let store = open(&faults.address, &repository(), &impatient());
        let error = (case.action)(&*store).unwrap_err().to_string();
        let says = case.says.replace("HOST", &faults.address);
        assert!(error.starts_with(&format!("{}/test/repo-", faults.address)), "{error}");
        assert!(error.contains(&says) && !error.contains('\n'), "{error}\nnot: {says}");
    }
}

/// Credentials that may read: what is lacking is named.
#[test]
fn rights_that_are_lacking() {
    let faults = Faults::start(&REGISTRY.address);
    let folder = tempfile::tempdir().unwrap();
    let file = config(folder.path(), &faults.address, json!({"registrytoken": "the-token"}));
    let repository = repository();
    let store = open(&faults.address, &repository, &options_with(&file));
    let config = store.put_bytes(b"{}").unwrap();
    let digest = store.put_manifest("v1", MANIFEST, &manifest(&config, &config)).unwrap();
    let body = br#"{"errors":[{"code":"DENIED","message":"insufficient scope"}]}"#;
    faults.on("POST", "", 1, Fault::Answer("403 Forbidden", Vec::new(), body.to_vec()));
    faults.on("DELETE", "", 1, Fault::Answer("403 Forbidden", Vec::new(), body.to_vec()));
    let upload = put(&*store, b"x").unwrap_err().to_string();
    let delete = store.delete_image("v1", &digest).unwrap_err().to_string();
    for (error, right) in [(upload, "push to"), (delete, "delete in")] {
        let says = format!(
            "check the credentials for {} in {}: they need the right to {right} {repository}",
            faults.address,
            file.display()
        );
        assert!(error.ends_with(&says), "{error}");
    }
}

/// A save whose registry goes away says which one, and why, and not that a pipe is broken.
#[test]
fn a_save_that_can_t_go_on() {
    let faults = Faults::start(&REGISTRY.address);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("large"), content(1, 8 << 20)).unwrap();
    let target = format!("{}/{}:v1", faults.address, repository());
    for (fault, says) in [
        (Fault::CutRequest(1_000_000), "broke the connection off"),
        (Fault::Answer("403 Forbidden", Vec::new(), Vec::new()), "denied uploading a blob (403 Forbidden)"),
        (Fault::Answer("507 Insufficient Storage", Vec::new(), b"disk full".to_vec()), "(507: disk full)"),
    ] {
        faults.on("PATCH", "", usize::MAX, fault);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tekton-wrap"))
            .args(["save", folder.path().to_str().unwrap(), &target, "--retry-for", "1s"])
            .env_remove("HOME")
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let last = error.lines().last().unwrap_or_default();
        assert!(!output.status.success() && last.contains(&faults.address) && last.contains(says), "{error}");
        faults.forget_rules();
    }
}
