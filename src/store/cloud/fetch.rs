//! Short requests to the servers that hand out credentials.

use std::time::Duration;

use http::{Request, Response};
use ureq::Body;

use crate::{
    redact::redact,
    store::{
        StoreError,
        net::{
            fault::Fault,
            http::{HttpClient, HttpOptions},
            read_up_to,
        },
    },
};

/// How long a server in the cloud may take to answer.
const LIMIT: Duration = Duration::from_secs(20);

/// The same for one on this machine or beside it, which may not be there at all (as clouds' tools have it).
const NEAR_LIMIT: Duration = Duration::from_secs(1);

/// An answer is not longer.
const ANSWER_SIZE: u64 = 1 << 20;

/// See the module.
#[derive(Clone, Debug)]
pub struct Fetch {
    client: HttpClient,
}

/// Why credentials can't be had: a clause that names the place and what is wrong with it, and no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// See above.
    pub clause: String,
    /// Whether another attempt may go better.
    pub transient: bool,
}

/// A good answer.
pub struct Fetched {
    /// Its text.
    pub text: String,
}

impl Fetch {
    /// With the connections that stores have.
    pub fn new(options: &HttpOptions) -> Result<Self, StoreError> {
        Ok(Self { client: HttpClient::new(options)? })
    }

    /// From a server of the cloud; `what` names it.
    pub fn far(&self, what: &str, request: Request<String>) -> Result<Fetched, Problem> {
        read(what, self.client.run_within(request, LIMIT))
    }

    /// From a server beside this machine, without a proxy; none if nothing answers there.
    pub fn near(&self, what: &str, request: Request<String>) -> Result<Option<Fetched>, Problem> {
        match self.client.run_near(request, NEAR_LIMIT) {
            Err(_) => Ok(None),
            answer => read(what, answer).map(Some),
        }
    }
}

impl Problem {
    /// One that stays.
    pub fn lasting(clause: String) -> Self {
        Self { clause, transient: false }
    }
}

fn read(what: &str, answer: Result<Response<Body>, Fault>) -> Result<Fetched, Problem> {
    let problem = |clause: String, transient| Problem { clause: format!("{what} {clause}"), transient };
    let answer = answer.map_err(|fault| problem(fault.clause, fault.transient))?;
    let status = answer.status();
    let bytes = read_up_to(answer.into_body(), ANSWER_SIZE);
    let bytes = bytes.map_err(|error| problem(Fault::of(&ureq::Error::from(error)).clause, true))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if status.is_success() {
        return Ok(Fetched { text });
    }
    let number = status.as_u16();
    let said = match said(&text) {
        said if said.is_empty() => format!("{number} {}", status.canonical_reason().unwrap_or("unknown status")),
        said => format!("{number}: {said}"),
    };
    Err(problem(format!("refuses ({said})"), number == 429 || status.is_server_error()))
}

/// What an error says: in XML as AWS has it, in JSON as Google has it, or as a text.
fn said(text: &str) -> String {
    let xml = |name| super::super::xml::text(text, name);
    let json = serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let json = |name: &str| json.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let message =
        xml("Message").or_else(|| json("error_description")).or_else(|| json("message")).or_else(|| json("error"));
    let code = xml("Code").filter(|_| xml("Message").is_some());
    let plain = || (!text.trim_start().starts_with(['<', '{', '['])).then(|| text.to_owned());
    let message = message.or_else(plain).unwrap_or_default();
    let said = code.map_or_else(|| message.clone(), |code| format!("{code}: {message}"));
    redact(&said, &[], 200).trim_end_matches('.').to_owned()
}
