//! moto, which imitates Amazon: here it is told to check signatures, with Amazon's own botocore, and rights. What the tests do in it
//! for themselves they do as an administrator.

use std::path::Path;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::{digest, hmac};
use serde_json::{Value, json};

use super::{
    buckets::AccessKey,
    process::{self, Program},
};

/// The rights that docs/stores.md asks for: those for objects and that for the bucket.
pub const RIGHTS: (&[&str], &str) =
    (&["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload", "s3:DeleteObject"], "s3:ListBucket");

/// A running server, which keeps everything in memory. It takes any region and any time, and knows of policies no conditions.
pub struct Moto {
    /// Host and port.
    pub address: String,
    admin: AccessKey,
    program: Program,
}

impl Moto {
    /// Starts `program`, which is `moto-server` of `tests/assets/build`.
    pub async fn start(program: &Path) -> Self {
        let (dir, port) = (process::folder("moto"), process::free_port().to_string());
        let args = ["--host", "127.0.0.1", "--port", &port].map(str::to_owned);
        let program = Program::start(dir, program, &args, &[]);
        let address = format!("127.0.0.1:{port}");
        let url = format!("http://{address}/moto-api/reset-auth");
        // Until it is told to look, anybody may do anything; from then on it answers to signed requests only.
        program.wait_until("moto", async || ureq::get(&url).call().is_err_and(is_answer)).await;
        let anybody = AccessKey { id: "AKIATEST".to_owned(), secret: "any".to_owned() };
        let mut server = Self { address, admin: anybody, program };
        server.admin = server.user("admin", &json!([{"Effect": "Allow", "Action": "*", "Resource": "*"}]));
        ureq::post(&url).header("content-type", "text/plain").send("0").expect("it looks at signatures");
        server
    }

    /// A new user, who may do what the statements of a policy say.
    pub fn user(&self, name: &str, statements: &Value) -> AccessKey {
        let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
        self.iam(&[("Action", "CreateUser"), ("UserName", name)]);
        self.iam(&[("Action", "PutUserPolicy"), ("UserName", name), ("PolicyName", "p"), ("PolicyDocument", &policy)]);
        let answer = self.iam(&[("Action", "CreateAccessKey"), ("UserName", name)]);
        let found = |name| texts(&answer, name).next().expect("a key").to_owned();
        AccessKey { id: found("AccessKeyId"), secret: found("SecretAccessKey") }
    }

    /// Makes a bucket.
    pub fn make_bucket(&self, name: &str) {
        self.ask("PUT", &format!("/{name}"), &[], "s3", "");
    }

    /// The keys of objects that begin with `prefix`; the first 1,000.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Vec<String> {
        let listing = self.ask("GET", &format!("/{bucket}"), &[("list-type", "2"), ("prefix", prefix)], "s3", "");
        texts(&listing, "Key").map(str::to_owned).collect()
    }

    /// An object whose content is text.
    pub fn object(&self, bucket: &str, key: &str) -> String {
        self.ask("GET", &format!("/{bucket}/{key}"), &[], "s3", "")
    }

    /// Replaces an object.
    pub fn set_object(&self, bucket: &str, key: &str, text: &str) {
        self.ask("PUT", &format!("/{bucket}/{key}"), &[], "s3", text);
    }

    /// What the server printed so far.
    pub fn log(&self) -> String {
        self.program.log()
    }

    fn iam(&self, form: &[(&str, &str)]) -> String {
        let form = query(&[form, &[("Version", "2010-05-08")]].concat());
        self.ask("POST", "/", &[], "iam", &form)
    }

    /// A request as the administrator, and its answer.
    fn ask(&self, method: &str, path: &str, parameters: &[(&str, &str)], service: &str, body: &str) -> String {
        let (query, payload) = (query(parameters), hex(digest::digest(&digest::SHA256, body.as_bytes()).as_ref()));
        let headers = format!("host:{}\nx-amz-content-sha256:{payload}\nx-amz-date:{TIME}\n", self.address);
        let names = "host;x-amz-content-sha256;x-amz-date";
        let signature = self.signature(service, &format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{payload}"));
        let scope = format!("{}/{DAY}/us-east-1/{service}/aws4_request", self.admin.id);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}");
        let kind = if service == "iam" { "application/x-www-form-urlencoded" } else { "application/octet-stream" };
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}?{query}", self.address))
            .header("authorization", authorization)
            .header("content-type", kind)
            .header("x-amz-content-sha256", &payload)
            .header("x-amz-date", TIME)
            .body(body.to_owned())
            .expect("a request");
        let answer = ureq::run(request).and_then(|mut answer| answer.body_mut().read_to_string());
        answer.unwrap_or_else(|problem| panic!("moto: {method} {path}?{query}: {problem}\n{}", self.log()))
    }

    /// Signature version 4 of a request in its canonical form (AWS Identity and Access Management User Guide, "Create a signed
    /// AWS API request"). Not the product's: moto says whether both are right.
    fn signature(&self, service: &str, request: &str) -> String {
        let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        let digest = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
        let text = format!("AWS4-HMAC-SHA256\n{TIME}\n{DAY}/us-east-1/{service}/aws4_request\n{digest}");
        let first = mac(format!("AWS4{}", self.admin.secret).as_bytes(), DAY);
        let signed = ["us-east-1", service, "aws4_request", &text];
        hex(signed.into_iter().fold(first, |key, part| mac(key.as_ref(), part)).as_ref())
    }
}

/// When all requests of the administrator are made; moto has no objection.
const TIME: &str = "20250101T000000Z";
const DAY: &str = "20250101";

const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Parameters, sorted by name, as they are in an address, a form and a signature.
fn query(parameters: &[(&str, &str)]) -> String {
    let mut sorted = parameters.to_vec();
    sorted.sort_unstable();
    let encoded = sorted.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, PLAIN)));
    encoded.collect::<Vec<_>>().join("&")
}

/// The texts of the elements of this name.
fn texts<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!("<{name}>");
    let texts: Vec<&str> = xml.split(&*begin).skip(1).filter_map(|rest| rest.split('<').next()).collect();
    texts.into_iter()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_answer(error: ureq::Error) -> bool {
    matches!(error, ureq::Error::StatusCode(_))
}
