//! Metrics of resolutions. No label holds anything that a user can choose, so not the resolver's name either.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// Seconds. Resolvers have a minute (Tekton: pkg/apis/config/default.go); what takes longer than 24 s is too
/// late for a creation.
const DURATIONS: [f64; 10] = [0.02, 0.1, 0.5, 1.0, 3.5, 10.0, 24.0, 30.0, 60.0, 90.0];

/// Counters and durations of resolutions.
#[derive(Debug)]
pub struct Resolutions {
    resolutions: Family<ResolutionLabels, Counter>,
    duration: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResolutionLabels {
    outcome: &'static str,
}

/// How a ResolutionRequest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResolutionOutcome {
    /// In time for everybody who waited.
    Answered,
    /// Someone had stopped waiting for it.
    Late,
    /// With an error.
    Failed,
    /// It was given up.
    Unanswered,
}

impl ResolutionOutcome {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Late, Self::Failed, Self::Unanswered];

    fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Late => "late",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }
}

impl Default for Resolutions {
    fn default() -> Self {
        let resolutions: Family<ResolutionLabels, Counter> = Family::default();
        // A rate needs a series from before its first event.
        for outcome in ResolutionOutcome::ALL {
            drop(resolutions.get_or_create(&ResolutionLabels { outcome: outcome.label() }));
        }
        Self { resolutions, duration: Histogram::new(DURATIONS) }
    }
}

impl Resolutions {
    /// Counts a resolution that took `duration`.
    pub fn ended(&self, outcome: ResolutionOutcome, duration: Duration) {
        self.resolutions.get_or_create(&ResolutionLabels { outcome: outcome.label() }).inc();
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
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names() {
        let (metrics, mut registry) = (Resolutions::default(), Registry::with_prefix("tekton_wrap"));
        metrics.register(&mut registry);
        let short = Duration::from_millis(80);
        metrics.ended(ResolutionOutcome::Answered, short);
        metrics.ended(ResolutionOutcome::Late, Duration::from_secs(30));
        metrics.ended(ResolutionOutcome::Failed, short);
        metrics.ended(ResolutionOutcome::Unanswered, short);
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
