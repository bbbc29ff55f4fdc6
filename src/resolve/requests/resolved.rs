//! What a resolver returned, and the memory for it.

#![allow(clippy::arithmetic_side_effects, reason = "bytes that are in memory, and what was added before is taken off")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::Value;

use super::{board::RequestStatus, query::ResolverQuery};
use crate::{resolve::api, source::SourceError};

/// How much of a resolver's own message is passed on, in characters.
const MAX_SHOWN: usize = 600;

/// Bytes of answers that are held at a time.
const MAX_HELD: usize = 16 << 20;

/// What a resolver returned.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The text of the object.
    pub data: Bytes,
    /// Its `refSource`: uri, digest, entryPoint.
    pub source: Option<Value>,
}

/// An answer, or why there is none.
pub type ResolutionResult = Result<Resolved, SourceError>;

/// Room for answers: counts the bytes of those that are still referred to.
#[derive(Clone, Default)]
pub struct AnswerRoom(Arc<AtomicUsize>);

/// The bytes of an answer, counted until they are dropped.
struct Held {
    data: Vec<u8>,
    all: AnswerRoom,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.data.len(), Relaxed);
    }
}

impl AnswerRoom {
    /// What `status` says, if there is room for it; none if there is no answer yet.
    pub fn answer(&self, query: &ResolverQuery, status: &RequestStatus) -> Option<ResolutionResult> {
        // Base64 has four characters for three bytes.
        let size = status.data.len() / 4 * 3;
        if self.0.fetch_add(size, Relaxed) + size > MAX_HELD {
            self.0.fetch_sub(size, Relaxed);
            let message = format!(
                "{query} can't be read: its resolver's answer has {size} bytes, and too many others are being worked on; create the PipelineRun again"
            );
            return Some(Err(SourceError { reason: SourceError::UNAVAILABLE, message }));
        }
        let outcome = read(query, status);
        let kept = match &outcome {
            Some(Ok(answer)) => answer.data.len().min(size),
            _ => 0,
        };
        self.0.fetch_sub(size - kept, Relaxed);
        let counted = |answer: Resolved| {
            let data = Bytes::from_owner(Held { data: answer.data.into(), all: self.clone() });
            Resolved { data, ..answer }
        };
        Some(outcome?.map(counted))
    }
}

/// What `status` says; none if there is no answer yet. Data counts before the condition says so
/// (Tekton: resolution_request_lifecycle.go).
fn read(query: &ResolverQuery, status: &RequestStatus) -> Option<ResolutionResult> {
    if !status.data.is_empty() {
        let answer = STANDARD
            .decode(&status.data)
            .map_err(|e| query.failed(&format!("its resolver's answer is not base64: {e}")));
        return Some(answer.map(|data| Resolved { data: data.into(), source: status.source().cloned() }));
    }
    let condition = status.conditions.iter().find(|condition| condition.kind == "Succeeded")?;
    match condition.status.as_str() {
        "False" => {
            let said = api::one_line(&condition.message);
            let mut shown: String = said.chars().take(MAX_SHOWN).collect();
            if shown.len() < said.len() {
                shown.push('…');
            }
            Some(Err(query.failed(&format!("its resolver says {}: {shown}", condition.reason))))
        }
        "True" => Some(Err(query.failed("its resolver's answer is empty"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::source::Kind;

    #[test]
    fn statuses() {
        let query = ResolverQuery {
            kind: Kind::Pipeline,
            namespace: "team".to_owned(),
            resolver: "git".to_owned(),
            params: vec![json!({"name": "url", "value": "u"})],
        };
        let status = |value: Value| read(&query, &serde_json::from_value(value).unwrap());
        let condition = |status: &str, reason: &str, message: &str| json!({"conditions": [{"type": "Succeeded", "status": status, "reason": reason, "message": message}]});
        for waiting in [json!({}), condition("Unknown", "", "waiting"), json!({"conditions": []})] {
            assert_eq!(status(waiting.clone()).map(|_| ()), None, "{waiting}");
        }
        let answer = status(json!({"data": "aGk=", "refSource": {"uri": "u"}})).unwrap().unwrap();
        assert_eq!(answer, Resolved { data: Bytes::from("hi"), source: Some(json!({"uri": "u"})) });
        // Resolvers of before refSource.
        let answer = status(json!({"data": "aGk=", "source": {"uri": "u"}})).unwrap().unwrap();
        assert_eq!(answer.source, Some(json!({"uri": "u"})));
        for (value, why) in [
            (json!({"data": "?"}), "its resolver's answer is not base64: Invalid symbol 63, offset 0."),
            (
                condition("False", "ResolutionFailed", "no\nsuch  file"),
                "its resolver says ResolutionFailed: no such file",
            ),
            (condition("True", "", ""), "its resolver's answer is empty"),
        ] {
            let error = status(value).unwrap().unwrap_err().to_string();
            assert_eq!(
                error,
                format!(r#"the pipeline through resolver "git" (url=u) in namespace "team" can't be read: {why}"#)
            );
        }
        let long = status(condition("False", "R", &"x".repeat(5000))).unwrap().unwrap_err().to_string();
        assert!(long.ends_with("xx…") && long.len() < 800, "{long}");
    }

    #[test]
    fn answers_are_counted_for_as_long_as_someone_has_them() {
        let query = ResolverQuery {
            kind: Kind::Task,
            namespace: "team".to_owned(),
            resolver: "git".to_owned(),
            params: Vec::new(),
        };
        let status: RequestStatus = serde_json::from_value(json!({"data": STANDARD.encode(vec![0; 1 << 20])})).unwrap();
        let room = AnswerRoom::default();
        let answers: Vec<Resolved> = (0..15).map(|_| room.answer(&query, &status).unwrap().unwrap()).collect();
        let error = room.answer(&query, &status).unwrap().unwrap_err();
        assert_eq!(error.reason, SourceError::UNAVAILABLE);
        drop(answers);
        assert!(room.answer(&query, &status).unwrap().is_ok());
        assert_eq!(room.0.load(Relaxed), 0);
    }
}
