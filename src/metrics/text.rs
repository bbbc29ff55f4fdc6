//! The two text formats in which metrics are collected, and which of them an `Accept` header asks for.

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFormat {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

/// The media type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text";

impl TextFormat {
    /// The format that `accept`, the value of an `Accept` header, prefers; Prometheus' own if it does not say.
    pub fn negotiated(accept: &str) -> Self {
        let weight_of = |wanted: &[&str]| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let is_wanted = parts.next().is_some_and(|name| wanted.iter().any(|w| w.eq_ignore_ascii_case(name)));
                let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
                is_wanted.then(|| weight.unwrap_or(1.0))
            });
            ranges.fold(0.0, f32::max)
        };
        let open_metrics = weight_of(&[OPEN_METRICS]);
        if open_metrics > 0.0 && open_metrics >= weight_of(&["text/plain"]) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Its value of `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// `open_metrics`, a text in OpenMetrics, in this format.
    pub fn convert(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Prometheus => to_prometheus(&open_metrics),
        }
    }
}

/// In the Prometheus format a counter is described under the name that its samples have, there is no type `info`, and neither
/// units nor an end (Prometheus: "Exposition formats").
fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", _, sentence] => help = sentence,
            ["#", "TYPE", name, kind] => {
                let (suffix, kind) = match kind {
                    "counter" => ("_total", "counter"),
                    "info" => ("_info", "gauge"),
                    kind => ("", kind),
                };
                text += &format!("# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
            }
            ["#", "UNIT" | "EOF", ..] => {}
            _ => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_accept_header_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
        for (accept, format) in [
            ("", TextFormat::Prometheus),
            ("*/*", TextFormat::Prometheus),
            ("text/plain", TextFormat::Prometheus),
            ("application/openmetrics-text", TextFormat::OpenMetrics),
            ("text/plain;q=0.5, application/openmetrics-text; version=1.0.0; q=0.75", TextFormat::OpenMetrics),
            ("text/plain, application/openmetrics-text;q=0.5", TextFormat::Prometheus),
            ("application/openmetrics-text;q=0", TextFormat::Prometheus),
            (prometheus, TextFormat::OpenMetrics),
        ] {
            assert_eq!(TextFormat::negotiated(accept), format, "{accept}");
        }
    }

    #[test]
    fn counters_and_infos_get_the_names_of_their_samples() {
        let open_metrics = "# HELP a_b Bs.\n# TYPE a_b counter\n# UNIT a_b b\na_b_total{c=\"d e\"} 1\n# HELP v The version.\n# TYPE v info\nv_info{x=\"y\"} 1\n# EOF\n";
        assert_eq!(
            to_prometheus(open_metrics),
            "# HELP a_b_total Bs.\n# TYPE a_b_total counter\na_b_total{c=\"d e\"} 1\n# HELP v_info The version.\n# TYPE v_info gauge\nv_info{x=\"y\"} 1\n"
        );
    }
}
