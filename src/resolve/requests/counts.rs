//! What is counted of resolutions. No label holds anything that a user can choose, so not the resolver's name either.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{Outcome, UNANSWERED};

/// Seconds. Resolvers have a minute (Tekton: pkg/apis/config/default.go); what takes longer than 24 s is too
/// late for a creation.
const DURATIONS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0, 24.0, 60.0, 120.0];

/// How resolutions ended.
#[derive(Debug)]
pub struct Counts {
    resolutions: Family<Ended, Counter>,
    duration: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

impl Default for Counts {
    fn default() -> Self {
        Self { resolutions: Family::default(), duration: Histogram::new(DURATIONS) }
    }
}

impl Counts {
    /// Counts a resolution that took `duration`; it was `late` where someone had stopped waiting for it.
    pub fn ended(&self, outcome: &Outcome, late: bool, duration: Duration) {
        let outcome = match outcome {
            Ok(_) if late => "late",
            Ok(_) => "answered",
            Err(error) if error.reason == UNANSWERED => "unanswered",
            Err(_) => "failed",
        };
        self.resolutions.get_or_create(&Ended { outcome }).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Shows them in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "resolutions",
            "Resolutions by how they ended: answered, late, failed, unanswered",
            self.resolutions.clone(),
        );
        registry.register_with_unit(
            "resolution_duration",
            "Time from asking a resolver to its answer",
            Unit::Seconds,
            self.duration.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prometheus_client::encoding::text::encode;

    use super::{super::Answer, *};
    use crate::resolve::SourceError;

    #[test]
    fn names() {
        let (counts, mut registry) = (Counts::default(), Registry::with_prefix("tekton_wrap"));
        counts.register(&mut registry);
        let answer = || Ok(Answer { data: Bytes::new(), source: None });
        let failed = |reason| Err(SourceError { reason, message: String::new() });
        let short = Duration::from_millis(80);
        counts.ended(&answer(), false, short);
        counts.ended(&answer(), true, Duration::from_secs(30));
        counts.ended(&failed("NotResolved"), true, short);
        counts.ended(&failed(UNANSWERED), true, short);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"tekton_wrap_resolutions_total{outcome="answered"} 1"#,
            r#"tekton_wrap_resolutions_total{outcome="late"} 1"#,
            r#"tekton_wrap_resolutions_total{outcome="failed"} 1"#,
            r#"tekton_wrap_resolutions_total{outcome="unanswered"} 1"#,
            r#"tekton_wrap_resolution_duration_seconds_bucket{le="0.1"} 3"#,
            r#"tekton_wrap_resolution_duration_seconds_bucket{le="60.0"} 4"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
