//! What is particular to buckets of S3, on each server that there is: large objects, faults on the way, what becomes of old blobs,
//! rights, and the sentences for what goes wrong.

use std::{
    collections::HashMap,
    time::{Instant, SystemTime},
};

use support::{
    faults::{Chaos, Fault, Faults, Patch},
    moto,
};
use tekton_wrap::digest::Digest;

use super::*;

const LARGE: usize = 20_000_000;

/// Something that makes things go wrong, and a store behind it.
struct Behind {
    server: &'static S3,
    faults: Faults,
    target: Target,
    store: Box<dyn Store>,
}

/// With each server.
fn every_server(options: &StoreOptions, test: impl Fn(&Behind)) {
    for server in s3() {
        println!("{}", server.name);
        test(&Behind::start(server, options));
    }
}

impl Behind {
    fn start(server: &'static S3, options: &StoreOptions) -> Self {
        let faults = Faults::start(&server.address);
        let target = bucket("s3");
        let cloud = Environment::new(server.variables(&faults.address), None);
        let store = store::open_with(&target, &StoreOptions { cloud, ..options.clone() }).unwrap();
        Self { server, faults, target, store }
    }

    /// The objects of the store right below this folder.
    fn objects(&self, folder: &str) -> Vec<String> {
        self.server.names(BUCKET, &self.key(folder))
    }

    fn key(&self, key: &str) -> String {
        let Target::S3(bucket) = &self.target else { panic!() };
        bucket.key(key)
    }

    fn age(&self, blob: &Digest, days: u64) {
        let time = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        self.server.set_modified(BUCKET, &self.key(&format!("blobs/sha256/{}", blob.hex())), time);
    }
}

fn xml(status: &'static str, code: &str) -> Fault {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>A message.</Message></Error>");
    Fault::Answer(status, vec![("Content-Type", "application/xml".to_owned())], body.into_bytes())
}

#[test]
fn busy_servers_are_asked_again() {
    every_server(&options(), |behind| {
        for (turn, (method, part)) in [
            ("HEAD", "/blobs/"),
            ("PUT", "/blobs/"),
            ("PUT", "/manifests/"),
            ("GET", "/manifests/"),
            ("GET", "/blobs/"),
            ("POST", "uploads="),
            ("PUT", "partNumber="),
            ("POST", "uploadId="),
        ]
        .into_iter()
        .enumerate()
        {
            for (status, code) in [
                ("503 Slow Down", "SlowDown"),
                ("500 Internal Server Error", "InternalError"),
                ("503 Service Unavailable", ""),
            ] {
                behind.faults.on(method, part, 1, xml(status, code));
            }
            let before = behind.faults.seen(method, part).len();
            let content = content(turn as u64, LARGE);
            let layer = put(&*behind.store, &content).unwrap();
            let config = behind.store.put_bytes(format!("{{\"turn\":{turn}}}").as_bytes()).unwrap();
            behind.store.put_manifest("v1", MANIFEST, &manifest(&config, &layer)).unwrap();
            assert!(behind.store.manifest("v1").unwrap().is_some());
            assert!(get(&*behind.store, &layer).unwrap() == content);
            assert!(behind.faults.seen(method, part).len() >= before + 4, "{method} {part}");
        }
        assert!(behind.objects("tmp").is_empty());
    });
}

#[test]
fn a_broken_upload_goes_on_and_leaves_nothing() {
    every_server(&options(), |behind| {
        behind.faults.on("PUT", "partNumber=2", 1, Fault::CutRequest(1_000_000)).on(
            "PUT",
            "partNumber=3",
            1,
            Fault::LoseAnswer,
        );
        behind.faults.on("POST", "uploadId=", 1, Fault::LoseAnswer);
        let content = content(2, LARGE);
        let mut calls = 0;
        let blob = behind
            .store
            .put_blob(&mut |to| {
                calls += 1;
                to.write_all(&content)
            })
            .unwrap();
        assert_eq!((calls, blob.digest), (1, Digest::of(&content)), "parts are sent again, not the whole");
        assert!(get(&*behind.store, &blob).unwrap() == content);
        assert!(behind.objects("tmp").is_empty());
    });
}

#[test]
fn an_upload_that_fails_is_cancelled() {
    every_server(&impatient(), |behind| {
        let source = behind.store.put_blob(&mut |to| {
            to.write_all(&content(3, LARGE))?;
            Err(std::io::Error::other("the file sources/a vanished"))
        });
        assert!(source.unwrap_err().to_string().contains("the file sources/a vanished"));
        behind.faults.on("PUT", "partNumber=2", usize::MAX, xml("403 Forbidden", "AccessDenied"));
        let error = put(&*behind.store, &content(4, LARGE)).unwrap_err().to_string();
        assert!(error.contains("denied storing an object (403 AccessDenied: A message)"), "{error}");
        let (begun, cancelled) =
            (behind.faults.seen("POST", "uploads=").len(), behind.faults.seen("DELETE", "uploadId=").len());
        assert_eq!((begun, cancelled), (2, 2));
        assert!(behind.objects("tmp").is_empty() && behind.objects("blobs/sha256").is_empty());
    });
}

#[test]
fn an_upload_that_was_forgotten_begins_again() {
    every_server(&options(), |behind| {
        behind.faults.on("PUT", "partNumber=2", 1, xml("404 Not Found", "NoSuchUpload"));
        let blob = put(&*behind.store, &content(5, LARGE)).unwrap();
        assert!(behind.store.has_blob(&blob.digest).unwrap());
        assert_eq!(behind.faults.seen("POST", "uploads=").len(), 2);
    });
}

#[test]
fn an_error_in_a_good_answer_is_one() {
    every_server(&options(), |behind| {
        behind.faults.on("POST", "uploadId=", 1, xml("200 OK", "InternalError"));
        // The copy to the name that it keeps.
        behind.faults.on("PUT", "/blobs/", 1, xml("200 OK", "InternalError"));
        let content = content(6, LARGE);
        let blob = put(&*behind.store, &content).unwrap();
        assert!(get(&*behind.store, &blob).unwrap() == content);
        assert_eq!(behind.faults.seen("PUT", "/blobs/").len(), 2);
    });
}

#[test]
fn a_broken_download_goes_on_from_where_it_broke() {
    every_server(&options(), |behind| {
        let content = content(7, 3_000_000);
        let blob = put(&*behind.store, &content).unwrap();
        for cut in [1_000_000, 0, 500_000] {
            behind.faults.on("GET", "/blobs/", 1, Fault::CutAnswer(cut));
        }
        assert!(get(&*behind.store, &blob).unwrap() == content);
        let ranges: Vec<_> =
            behind.faults.seen("GET", "/blobs/").iter().map(|h| h.header("range").map(str::to_owned)).collect();
        let from = |offset: usize| Some(format!("bytes={offset}-"));
        assert_eq!(ranges, [None, from(1_000_000), from(1_000_000), from(1_500_000)]);
        behind.faults.on("GET", "/blobs/", 1, Fault::CutAnswer(10));
        assert!(behind.store.blob_range(&blob, 7, 100).unwrap() == content[7..107], "asked again");
        behind.faults.on("GET", "/blobs/", 1, Fault::FlipAnswer(1_500_000));
        let error = get(&*behind.store, &blob).unwrap_err();
        assert!(error.contains("the blob is damaged") && error.contains(&blob.digest.hex()), "{error}");
    });
}

#[test]
fn a_damaged_tag_is_found() {
    every_server(&options(), |behind| {
        let config = behind.store.put_bytes(b"{}").unwrap();
        behind.store.put_manifest("v1", MANIFEST, &manifest(&config, &config)).unwrap();
        let (server, key) = (behind.server, behind.key("manifests/v1"));
        let text = server.object(BUCKET, &key);
        server.set_object(BUCKET, &key, &text.replace("\"data\":\"e", "\"data\":\"f"));
        let error = behind.store.manifest("v1").unwrap_err().to_string();
        let place = format!(
            "s3://{BUCKET}/{}: the image layout is damaged: its content has the digest ",
            behind.key("manifests/v1")
        );
        assert!(error.starts_with(&place) && error.ends_with("; delete it and run the pipeline again"), "{error}");
    });
}

#[test]
fn old_blobs_without_an_image_go_and_no_others() {
    // moto lets nobody set the time of an object.
    let Some(server) = s3().iter().find(|server| server.folder().is_some()) else { return };
    let behind = Behind::start(server, &options());
    let store = &*behind.store;
    let [config, kept, found, orphan, young] =
        ["{}", "kept", "found", "orphan", "young"].map(|text| store.put_bytes(text.as_bytes()).unwrap());
    let kept_image = store.put_manifest("kept", MANIFEST, &manifest(&config, &kept)).unwrap();
    let gone = store.put_manifest("gone", MANIFEST, &manifest(&config, &orphan)).unwrap();
    for blob in [config.digest, kept.digest, found.digest, orphan.digest, kept_image] {
        behind.age(&blob, 2);
    }
    store.collect().unwrap();
    assert!(!behind.objects("blobs/sha256").contains(&found.digest.hex()), "no image needs it");
    assert!(store.delete_image("gone", &gone).unwrap());
    store.put_bytes(b"found").unwrap();
    behind.age(&found.digest, 2);
    assert!(store.has_blob(&found.digest).unwrap(), "somebody is about to name it");
    store.collect().unwrap();
    let mut left = [config.digest, kept.digest, found.digest, young.digest, kept_image].map(|digest| digest.hex());
    left.sort();
    assert_eq!(behind.objects("blobs/sha256"), left);
    assert_eq!(store.tags().unwrap(), ["kept"]);
}

#[test]
fn a_tag_that_moved_meanwhile_stays() {
    every_server(&options(), |behind| {
        let store = &*behind.store;
        let config = store.put_bytes(b"{}").unwrap();
        let old = store.put_manifest("v1", MANIFEST, &manifest(&config, &config)).unwrap();
        // What it was when it was read is not what it is.
        let version = format!("\"{}\"", "0".repeat(32));
        behind.faults.on("GET", "/manifests/v1", 1, Fault::SetHeader("ETag", version.clone()));
        store.delete_image("v1", &old).unwrap();
        assert!(store.manifest("v1").unwrap().is_some(), "it was another one by then");
        let seen = behind.faults.seen("DELETE", "/manifests/v1");
        assert_eq!(seen[0].header("if-match"), Some(&*version));
        assert!(store.delete_image("v1", &old).unwrap());
        assert!(store.manifest("v1").unwrap().is_none());
    });
}

#[test]
fn what_goes_wrong_is_said() {
    s3().iter().for_each(what_goes_wrong_is_said_with);
}

fn what_goes_wrong_is_said_with(server: &S3) {
    let variables = server.variables(&server.address);
    let with = |changes: &[(&str, &str)]| -> HashMap<String, String> {
        let changes = changes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        variables.clone().into_iter().chain(changes).collect()
    };
    let address = &server.address;
    let refused = "127.0.0.1:1";
    // versitygw gives no tokens, and looks at none.
    let token = server.moto().map(|_| (
        "s3://test-bucket/a:v1",
        with(&[("AWS_SESSION_TOKEN", "wrong")]),
        format!("s3://test-bucket/a/manifests/v1: {address} denied reading an object (400 InvalidToken: The provided token is malformed or otherwise invalid); the session token is not one of the access key: check the credentials of AWS_ACCESS_KEY_ID"),
    ));
    let cases = [
        (
            "s3://absent-bucket/a:v1",
            with(&[]),
            format!("s3://absent-bucket/a/manifests/v1: {address} refused reading an object (404 NoSuchBucket: The specified bucket does not exist); there is no bucket \"absent-bucket\": create it, or name another one"),
        ),
        (
            "s3://test-bucket/a:v1",
            with(&[("AWS_SECRET_ACCESS_KEY", "wrong")]),
            format!("s3://test-bucket/a/manifests/v1: {address} denied reading an object (403 SignatureDoesNotMatch: The request signature we calculated does not match the signature you provided. Check your key and signing method); the secret access key is not that of the access key: check the credentials of AWS_ACCESS_KEY_ID"),
        ),
        (
            "s3://test-bucket/a:v1",
            with(&[("AWS_ENDPOINT_URL_S3", &format!("http://{refused}"))]),
            format!("s3://test-bucket/a/manifests/v1: {refused} can't be reached: nothing listens there (connection refused) (tried "),
        ),
        (
            "s3://test-bucket/a:v1",
            with(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "/absent/token"), ("AWS_ROLE_ARN", "arn:x"), ("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")]),
            "s3://test-bucket/a/manifests/v1: the credentials for S3 can't be had: /absent/token, named by AWS_WEB_IDENTITY_TOKEN_FILE, can't be read: No such file or directory (os error 2)".to_owned(),
        ),
    ];
    for (target, variables, expected) in cases.into_iter().chain(token) {
        let options = StoreOptions { cloud: Environment::new(variables, None), ..impatient() };
        let target: Target = target.parse().unwrap();
        let error = store::open_with(&target, &options).unwrap().manifest("v1").unwrap_err().to_string();
        assert!(
            error == expected || (expected.ends_with("(tried ") && error.starts_with(&expected)),
            "{error}\n{expected}"
        );
        assert!(!error.contains(&server.key.secret), "{error}");
    }
}

#[test]
fn what_a_server_says_of_credentials_and_load_is_said() {
    every_server(&impatient(), |behind| {
        let front = &behind.faults.address;
        for (status, code, expected) in [
            (
                "400 Bad Request",
                "ExpiredToken",
                format!(
                    "{front} denied reading an object (400 ExpiredToken: A message); the credentials have expired: renew them; "
                ),
            ),
            (
                "403 Forbidden",
                "AccessDenied",
                format!("{front} denied reading an object (403 AccessDenied: A message); "),
            ),
            (
                "503 Slow Down",
                "SlowDown",
                format!(
                    "{front} rate limited reading an object (503 SlowDown: A message); it asks for fewer requests: try again later, or spread runs over more prefixes (tried "
                ),
            ),
        ] {
            behind.faults.on("GET", "/manifests/", usize::MAX, xml(status, code));
            let error = behind.store.manifest("v1").unwrap_err().to_string();
            assert!(error.contains(&expected) && error.starts_with("s3://test-bucket/"), "{error}");
            behind.faults.forget_rules();
        }
    });
}

/// What no server but one that knows users and their rights can show.
#[test]
fn the_rights_that_are_documented_are_enough_and_needed() {
    for (server, moto) in s3().iter().filter_map(|server| Some((server, server.moto()?))) {
        for (number, (without, doing, needed)) in [
            ("", "", ""),
            ("s3:GetObject", "looking for an object", "s3:GetObject and s3:ListBucket"),
            ("s3:PutObject", "storing an object", "s3:PutObject and s3:AbortMultipartUpload"),
            ("s3:DeleteObject", "deleting an object", "s3:DeleteObject"),
            ("s3:ListBucket", "listing objects", "s3:ListBucket"),
        ]
        .into_iter()
        .enumerate()
        {
            let prefix = repository();
            let (objects, bucket) = moto::RIGHTS;
            let rights = objects.iter().map(|right| (*right, format!("/{prefix}/*"))).chain([(bucket, String::new())]);
            let policy: Vec<_> = rights
                .filter(|(right, _)| *right != without)
                .map(|(right, of)| json!({"Effect": "Allow", "Action": right, "Resource": format!("arn:aws:s3:::{BUCKET}{of}")}))
                .collect();
            let key = moto.user(&format!("user-{number}"), &json!(policy));
            let mut variables = server.variables(&server.address);
            variables.insert("AWS_ACCESS_KEY_ID".to_owned(), key.id);
            variables.insert("AWS_SECRET_ACCESS_KEY".to_owned(), key.secret);
            let options = StoreOptions { cloud: Environment::new(variables, None), ..impatient() };
            let done = |prefix: &str| {
                let target: Target = format!("s3://{BUCKET}/{prefix}:v1").parse().unwrap();
                everything_with(&*store::open_with(&target, &options).unwrap()).map_err(|error| error.to_string())
            };
            let denied = |prefix: &str, doing: &str, needed: &str| {
                let error = done(prefix).unwrap_err();
                assert!(error.contains(&format!("{} denied {doing}", server.address)), "{without}: {error}");
                let advice = format!(
                    "; check the credentials of AWS_ACCESS_KEY_ID: a policy has to allow {needed} for s3://{BUCKET}/{prefix}/*"
                );
                assert!(error.ends_with(&advice), "{without}: {error}");
            };
            match without {
                "" => {
                    done(&prefix).unwrap();
                    denied("another", "storing an object", "s3:PutObject and s3:AbortMultipartUpload");
                }
                _ => denied(&prefix, doing, needed),
            }
        }
    }
}

/// All that there is to do with a store.
fn everything_with(store: &dyn Store) -> Result<(), StoreError> {
    let large = put(store, &content(9, LARGE))?;
    let config = store.put_bytes(b"{}")?;
    let digest = store.put_manifest("v1", MANIFEST, &manifest(&config, &large))?;
    store.manifest("v1")?;
    store.blob_range(&large, 7, 100)?;
    store.tags()?;
    store.delete_image("v1", &digest)?;
    store.collect()
}

#[test]
fn the_region_is_learned() {
    s3().iter().for_each(the_region_is_learned_from);
}

/// moto takes any.
fn the_region_is_learned_from(server: &S3) {
    let mut variables = server.variables(&server.address);
    variables.insert("AWS_REGION".to_owned(), "eu-west-9".to_owned());
    let options = StoreOptions { cloud: Environment::new(variables, None), ..impatient() };
    let store = store::open_with(&bucket("s3"), &options).unwrap();
    let blob = store.put_bytes(b"content").unwrap();
    assert_eq!(get(&*store, &blob).unwrap(), b"content");
}

/// 500 of them with `TEKTON_WRAP_SOAK=500`.
#[test]
fn saves_and_restores_through_faults() {
    let rounds: u64 = std::env::var("TEKTON_WRAP_SOAK").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let patient = RetryPolicy { deadline: Duration::from_secs(90), ..options().retry };
    every_server(&StoreOptions { retry: patient, ..options() }, |behind| through_faults(behind, rounds));
}

fn through_faults(behind: &Behind, rounds: u64) {
    behind.faults.chaos(Chaos { seed: 11, percent: 5, patch: Patch::Any });
    let (start, store) = (Instant::now(), &*behind.store);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            scope.spawn(move || {
                for round in (0..rounds).filter(|round| round % 3 == worker) {
                    let large = content(
                        round,
                        if round % 6 == 0 { 17_000_000 } else { 50_000 + (round as usize * 37_123) % 900_000 },
                    );
                    let layer = put(store, &large).unwrap();
                    let config = store.put_bytes(format!("{{\"round\":{round}}}").as_bytes()).unwrap();
                    let bytes = manifest(&config, &layer);
                    store.put_manifest(&format!("t{round}"), MANIFEST, &bytes).unwrap();
                    // Damage on the way is found, and is for the caller to begin again.
                    let again = |mut read: Box<dyn FnMut() -> Result<Vec<u8>, String>>| {
                        (0..10).find_map(|_| read().ok()).unwrap()
                    };
                    let tag = again(Box::new(move || {
                        let found = store.manifest(&format!("t{round}")).map_err(|error| error.to_string())?;
                        Ok(found.ok_or("absent")?.bytes)
                    }));
                    assert!(tag == bytes, "round {round}");
                    assert!(again(Box::new(move || get(store, &layer))) == large, "round {round}");
                }
            });
        }
    });
    println!(
        "{rounds} saves and restores, {} requests, {:.0} s",
        behind.faults.all().len(),
        start.elapsed().as_secs_f64()
    );
    assert!(behind.objects("tmp").is_empty());
}
