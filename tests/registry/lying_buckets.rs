//! Servers of buckets that lie: lists and copies without an end, sizes that nothing has, other folders, secrets that come back. Each
//! has to end in one sentence.

use std::{
    collections::HashMap,
    io::BufReader,
    net::TcpStream,
    process::Command,
    sync::{Arc, Mutex},
};

use support::http::{self, Head};
use tekton_wrap::digest::Digest;

use super::*;

/// An access key and its secret.
const KEY: (&str, &str) = ("AKIATEST", "not-a-secret");

/// How many answers count as without an end.
const ENOUGH: usize = 400;

/// A server that answers as a test wants, and what it was asked.
pub struct Liar {
    pub address: String,
    asked: Arc<Mutex<Vec<Head>>>,
}

impl Liar {
    /// `answer` gets the request and the number of those before it: status, headers, body.
    pub fn start(
        answer: impl Fn(&Head, usize) -> (&'static str, Vec<(&'static str, String)>, String) + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let address = http::serve(move |head: Head, mut stream: BufReader<TcpStream>| {
            let count = {
                let mut seen = seen.lock().unwrap();
                seen.push(head.clone());
                seen.len() - 1
            };
            // So that whoever believes it ends too.
            let (status, headers, body) =
                if count < ENOUGH { answer(&head, count) } else { ("403 Forbidden", Vec::new(), String::new()) };
            let mut reply = Head { first: format!("HTTP/1.1 {status}"), headers: Vec::new() };
            reply.set("Content-Length", &body.len().to_string());
            headers.iter().for_each(|(name, value)| reply.set(name, value));
            reply.set("Connection", "close");
            reply.write(stream.get_mut())?;
            std::io::Write::write_all(stream.get_mut(), body.as_bytes())
        });
        Self { address, asked }
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    fn s3(&self) -> StoreOptions {
        let variables = [
            ("AWS_ACCESS_KEY_ID", KEY.0),
            ("AWS_SECRET_ACCESS_KEY", KEY.1),
            ("AWS_SESSION_TOKEN", "the-session-token"),
            ("AWS_ENDPOINT_URL_S3", &format!("http://{}", self.address)),
        ];
        let variables: HashMap<String, String> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        StoreOptions { cloud: Environment::new(variables, None), ..impatient() }
    }

    fn gcs(&self) -> StoreOptions {
        let variables = HashMap::from([("STORAGE_EMULATOR_HOST".to_owned(), self.address.clone())]);
        StoreOptions { cloud: Environment::new(variables, None), ..impatient() }
    }

    fn open(&self, scheme: &str) -> Box<dyn Store> {
        let target: Target = format!("{scheme}://{BUCKET}/team:v1").parse().unwrap();
        let options = if scheme == "s3" { self.s3() } else { self.gcs() };
        store::open_with(&target, &options).unwrap()
    }
}

/// A page of a list with these keys.
fn page(scheme: &str, keys: &[String], next: Option<&str>) -> (&'static str, Vec<(&'static str, String)>, String) {
    let time = "2020-01-01T00:00:00Z";
    let body = if scheme == "s3" {
        let entries: String = keys
            .iter()
            .map(|key| {
                format!("<Contents><Key>{key}</Key><LastModified>{time}</LastModified><ETag>e</ETag></Contents>")
            })
            .collect();
        let more =
            next.map(|next| format!("<NextContinuationToken>{next}</NextContinuationToken>")).unwrap_or_default();
        format!("<ListBucketResult><IsTruncated>{}</IsTruncated>{more}{entries}</ListBucketResult>", next.is_some())
    } else {
        let items: Vec<_> =
            keys.iter().map(|key| json!({"name": key, "generation": "1", "timeCreated": time})).collect();
        json!({"items": items, "nextPageToken": next}).to_string()
    };
    ("200 OK", Vec::new(), body)
}

#[test]
fn lists_without_an_end() {
    type Pages = fn(&str, usize) -> (&'static str, Vec<(&'static str, String)>, String);
    let key = || "team/manifests/v1".to_owned();
    let cases: [(&str, Pages); 3] = [
        ("the same page again", |scheme, _| page(scheme, &["team/manifests/v1".to_owned()], Some("same"))),
        ("the same keys under other names of pages", |scheme, i| {
            page(scheme, &["team/manifests/v1".to_owned()], Some(&i.to_string()))
        }),
        ("nothing, again and again", |scheme, i| page(scheme, &[], Some(&i.to_string()))),
    ];
    for scheme in ["s3", "gs"] {
        for (what, pages) in &cases {
            let (pages, kind) = (*pages, scheme);
            let liar = Liar::start(move |_, i| pages(kind, i));
            let error = liar.open(scheme).tags().unwrap_err().to_string();
            assert!(liar.count() < ENOUGH, "{scheme}: {what}: {error}");
            assert!(error.contains("unexpected response from 127.0.0.1") && error.contains("list"), "{error}");
        }
        // A few empty pages are none of that.
        let kind = scheme;
        let liar = Liar::start(move |_, i| match i {
            0..3 => page(kind, &[], Some(&i.to_string())),
            _ => page(kind, &[key()], None),
        });
        assert_eq!(liar.open(scheme).tags().unwrap(), ["v1"]);
    }
}

/// What it lists elsewhere is not read, and not deleted.
#[test]
fn lists_of_other_folders() {
    for scheme in ["s3", "gs"] {
        let kind = scheme;
        let hex = Digest::of(b"x").hex();
        let keys = [
            format!("team/manifests/../other/{hex}"),
            format!("team/other/{hex}"),
            format!("elsewhere/blobs/sha256/{hex}"),
            format!("team/blobs/sha256/../../../elsewhere/{hex}"),
        ];
        let liar = Liar::start(move |_, _| page(kind, &keys, None));
        let store = liar.open(scheme);
        store.collect().unwrap();
        assert_eq!(store.tags().unwrap(), [] as [&str; 0]);
        let methods: Vec<_> = liar.asked.lock().unwrap().iter().map(|head| head.method().to_owned()).collect();
        assert!(methods.iter().all(|method| method == "GET"), "{scheme}: {methods:?}");
    }
}

#[test]
fn sizes_that_nothing_has() {
    let liar = Liar::start(|head, _| match head.method() {
        "HEAD" => (
            "200 OK",
            vec![
                ("Content-Length", u64::MAX.to_string()),
                ("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT".to_owned()),
            ],
            String::new(),
        ),
        "POST" => ("200 OK", Vec::new(), "<R><UploadId>u</UploadId></R>".to_owned()),
        "DELETE" => ("204 No Content", Vec::new(), String::new()),
        _ => ("200 OK", Vec::new(), "<CopyPartResult><ETag>e</ETag></CopyPartResult>".to_owned()),
    });
    let error = liar.open("s3").has_blob(&Digest::of(b"x")).unwrap_err().to_string();
    assert!(error.contains("too large for S3") && liar.count() < 10, "{} requests: {error}", liar.count());
}

#[test]
fn a_copy_without_an_end() {
    let liar = Liar::start(|head, i| match head.method() {
        "GET" => (
            "200 OK",
            Vec::new(),
            r#"{"size": "5", "generation": "1", "timeCreated": "2020-01-01T00:00:00Z"}"#.to_owned(),
        ),
        _ => ("200 OK", Vec::new(), format!(r#"{{"done": false, "totalBytesRewritten": "0", "rewriteToken": "{i}"}}"#)),
    });
    let error = liar.open("gs").has_blob(&Digest::of(b"x")).unwrap_err().to_string();
    assert!(error.contains("unexpected response") && liar.count() < ENOUGH, "{} requests: {error}", liar.count());
}

/// Whatever a server calls the region is a part of the next request, and of the sentence.
#[test]
fn regions_that_are_none() {
    for region in ["a.evil.example/#", "x\r\nX-Evil: 1", "&#10;tekton-wrap: saved", "\u{1b}[2J", ""] {
        let region = region.to_owned();
        let liar = Liar::start(move |_, _| {
            let body = format!(
                "<Error><Code>AuthorizationHeaderMalformed</Code><Message>no</Message><Region>{region}</Region></Error>"
            );
            ("400 Bad Request", Vec::new(), body)
        });
        let error = liar.open("s3").tags().unwrap_err().to_string();
        assert!(!error.contains("evil") && !error.chars().any(char::is_control), "{error:?}");
        assert_eq!(liar.count(), 1, "there is nothing else to try: {error}");
        assert!(liar.asked.lock().unwrap().iter().all(|head| head.header("x-evil").is_none()));
    }
}

/// Nor does what a variable or a file calls so become a part of an address: tokens would go there.
#[test]
fn regions_of_variables_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let (token, config) = (folder.path().join("token"), folder.path().join("config"));
    fs::write(&token, "token-of-a-role").unwrap();
    fs::write(&config, "[default]\nregion = evil.example/\n").unwrap();
    let path = |path: &Path| path.display().to_string();
    for (name, value) in [("AWS_REGION", "evil.example/#".to_owned()), ("AWS_CONFIG_FILE", path(&config))] {
        for more in
            [("AWS_WEB_IDENTITY_TOKEN_FILE", path(&token)), ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1".to_owned())]
        {
            let variables = [(name, value.clone()), more, ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x".to_owned())];
            let variables = variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let options = StoreOptions { cloud: Environment::new(variables, None), ..impatient() };
            let opened = store::open_with(&bucket("s3"), &options).and_then(|store| store.tags());
            let error = opened.unwrap_err().to_string();
            assert!(error.ends_with("is not a region such as eu-west-1"), "{name}: {error}");
        }
    }
}

/// What was sent comes back in the message, as it is and as parts of an address.
#[test]
fn secrets_that_come_back_are_hidden() {
    let liar = Liar::start(|head, _| {
        let sent: Vec<_> = head.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let body = format!("<Error><Code>AccessDenied</Code><Message>{}</Message></Error>", sent.join(" "));
        ("403 Forbidden", Vec::new(), body)
    });
    let error = liar.open("s3").tags().unwrap_err().to_string();
    assert!(error.contains("AccessDenied") && !error.contains("the-session-token"), "{error}");
    assert!(!error.contains(KEY.1), "{error}");
    let signature =
        liar.asked.lock().unwrap()[0].header("authorization").unwrap().rsplit_once('=').unwrap().1.to_owned();
    assert!(!error.contains(&signature), "{error}");
}

/// Whoever answers in place of the service does not get the requests sent on.
#[test]
fn a_redirect_is_not_followed() {
    for scheme in ["s3", "gs"] {
        let other = Liar::start(|_, _| ("200 OK", Vec::new(), String::new()));
        let to = format!("http://{}/x", other.address);
        let liar = Liar::start(move |_, _| ("307 Temporary Redirect", vec![("Location", to.clone())], String::new()));
        let store = liar.open(scheme);
        assert!(store.tags().is_err() && store.put_bytes(b"x").is_err());
        assert_eq!(other.count(), 0, "{scheme}");
    }
}

/// The program ends, and says so in one line.
#[test]
fn prune_of_a_bucket_that_lies() {
    let liar = Liar::start(|_, i| page("s3", &["team/manifests/v1".to_owned()], Some(&i.to_string())));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    command.args(["prune", "--repository", &format!("s3://{BUCKET}/team"), "--expired", "--retry-for", "0s"]);
    command.env("AWS_ACCESS_KEY_ID", "a").env("AWS_SECRET_ACCESS_KEY", "b");
    let output = command.env("AWS_ENDPOINT_URL", format!("http://{}", liar.address)).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && liar.count() < ENOUGH, "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
