//! What has to hold for the webhook to be ready, and what else its operator should know: `/readyz?verbose` shows both.
//!
//! A condition that begins to fail, or to hold again, is logged here, once, wherever it is found out.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// An API that has not answered for so long counts as gone.
const API_SILENCE: Duration = Duration::from_secs(30);

/// So many notes are kept.
const MAX_NOTES: usize = 100;

/// A condition of readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The serving certificate is valid now, for the name that the apiserver uses.
    Certificate,
    /// Connections are accepted.
    Listening,
    /// The Kubernetes API has answered within the last 30 s.
    KubernetesApi,
    /// ResolutionRequests are watched.
    ResolutionRequests,
    /// The process is not shutting down.
    Shutdown,
}

/// The state of all conditions.
#[derive(Debug)]
pub struct Health {
    state: Mutex<HealthState>,
}

#[derive(Debug)]
struct HealthState {
    conditions: BTreeMap<Condition, ConditionState>,
    api_answered: Option<Instant>,
    /// Sentences by what they are about.
    notes: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ConditionState {
    Unknown,
    Holds,
    /// And why.
    Fails(String),
}

impl ConditionState {
    /// Why it does not hold, if so.
    fn failure(&self) -> Option<&str> {
        match self {
            Self::Unknown => Some("not known yet"),
            Self::Holds => None,
            Self::Fails(why) => Some(why),
        }
    }
}

impl Condition {
    /// All of them, in the order of `/readyz?verbose`.
    pub const ALL: [Self; 5] =
        [Self::Certificate, Self::Listening, Self::KubernetesApi, Self::ResolutionRequests, Self::Shutdown];

    /// Its name in `/readyz?verbose`, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Listening => "listening",
            Self::KubernetesApi => "kubernetes-api",
            Self::ResolutionRequests => "resolution-requests",
            Self::Shutdown => "shutdown",
        }
    }

    /// When it holds: a clause.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Certificate => "the serving certificate is valid now, and for `--server-name` if that is given",
            Self::Listening => "connections are accepted",
            Self::KubernetesApi => "the Kubernetes API has answered within the last 30 s",
            Self::ResolutionRequests => "ResolutionRequests are watched",
            Self::Shutdown => "the process is not shutting down",
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        let unknown = |condition| match condition {
            Condition::Shutdown => (condition, ConditionState::Holds),
            _ => (condition, ConditionState::Unknown),
        };
        let conditions = Condition::ALL.into_iter().map(unknown).collect();
        Self { state: Mutex::new(HealthState { conditions, api_answered: None, notes: BTreeMap::new() }) }
    }
}

impl Health {
    /// Records that `condition` holds, or why it does not.
    pub fn set(&self, condition: Condition, result: Result<(), String>) {
        let name = condition.name();
        let status = result.map_or_else(ConditionState::Fails, |()| ConditionState::Holds);
        let before = self.state().conditions.insert(condition, status.clone());
        match (before, status) {
            (Some(ConditionState::Holds | ConditionState::Unknown), ConditionState::Fails(why)) => {
                log_failure(condition, &why)
            }
            (Some(ConditionState::Fails(_)), ConditionState::Holds) => {
                tracing::info!(condition = name, "{name} is well again")
            }
            _ => {}
        }
    }

    /// Records an answer of the Kubernetes API.
    pub fn api_answered(&self) {
        self.state().api_answered = Some(Instant::now());
        if self.failure(Condition::KubernetesApi).is_some() {
            self.set(Condition::KubernetesApi, Ok(()));
        }
    }

    /// Records that the Kubernetes API gave no answer, and why: that counts once it lasts.
    pub fn api_failed(&self, why: String) {
        let lately = self.state().api_answered.is_some_and(|answered| answered.elapsed() < API_SILENCE);
        if !lately {
            self.set(Condition::KubernetesApi, Err(why));
        }
    }

    /// Keeps `sentence` about `subject` for the operator, and logs it if it is new; none removes it.
    pub fn note(&self, subject: String, sentence: Option<String>) {
        let mut state = self.state();
        let Some(sentence) = sentence else {
            state.notes.remove(&subject);
            return;
        };
        if state.notes.get(&subject) == Some(&sentence) {
            return;
        }
        tracing::warn!("{subject}: {sentence}");
        if state.notes.len() < MAX_NOTES || state.notes.contains_key(&subject) {
            state.notes.insert(subject, sentence);
        }
    }

    /// Why `condition` fails, if it does.
    pub fn failure(&self, condition: Condition) -> Option<String> {
        self.state().conditions.get(&condition)?.failure().map(str::to_owned)
    }

    /// Whether all conditions hold.
    pub fn is_ready(&self) -> bool {
        self.state().is_ready()
    }

    /// A line for each condition and note, as kube-apiserver's own `/readyz?verbose` has them.
    pub fn report(&self) -> String {
        let state = self.state();
        let mut report = String::new();
        for (condition, status) in &state.conditions {
            let name = condition.name();
            // Writing to a string does not fail.
            let _ = match status.failure() {
                None => writeln!(report, "[+]{name} ok"),
                Some(why) => writeln!(report, "[-]{name} failed: {why}"),
            };
        }
        for (subject, sentence) in &state.notes {
            let _ = writeln!(report, "[!]{subject}: {sentence}");
        }
        report + if state.is_ready() { "readyz check passed\n" } else { "readyz check failed\n" }
    }

    fn state(&self) -> MutexGuard<'_, HealthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HealthState {
    fn is_ready(&self) -> bool {
        self.conditions.values().all(|status| status.failure().is_none())
    }
}

fn log_failure(condition: Condition, why: &str) {
    let name = condition.name();
    match condition {
        Condition::Certificate => tracing::error!(condition = name, "not ready: {why}"),
        Condition::Shutdown => {}
        _ => tracing::warn!(condition = name, "not ready: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Health {
        let health = Health::default();
        Condition::ALL.into_iter().for_each(|condition| health.set(condition, Ok(())));
        health
    }

    #[test]
    fn one_condition_that_fails_is_enough() {
        assert!(!Health::default().is_ready());
        for condition in Condition::ALL {
            let health = well();
            assert!(health.is_ready());
            health.set(condition, Err("it is down".to_owned()));
            assert!(!health.is_ready());
            let report = health.report();
            assert!(report.contains(&format!("[-]{} failed: it is down\n", condition.name())), "{report}");
            assert!(report.ends_with("readyz check failed\n"), "{report}");
        }
    }

    #[test]
    fn an_api_that_answered_lately_may_fail_once() {
        let health = well();
        health.api_answered();
        health.api_failed("connection refused".to_owned());
        assert!(health.is_ready());
        let silent = well();
        silent.api_failed("connection refused".to_owned());
        assert_eq!(silent.failure(Condition::KubernetesApi).as_deref(), Some("connection refused"));
        silent.api_answered();
        assert!(silent.is_ready());
    }

    #[test]
    fn notes_do_not_make_it_unready_and_are_bounded() {
        let health = well();
        health.note("ConfigMap \"a\"".to_owned(), Some("\"tagret\" is not a param".to_owned()));
        assert!(health.is_ready());
        assert!(health.report().contains("[!]ConfigMap \"a\": \"tagret\" is not a param\n"));
        health.note("ConfigMap \"a\"".to_owned(), None);
        assert!(!health.report().contains("[!]"));
        (0..2 * MAX_NOTES).for_each(|number| health.note(number.to_string(), Some("x".to_owned())));
        assert_eq!(health.report().matches("[!]").count(), MAX_NOTES);
    }
}
