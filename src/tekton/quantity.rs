//! Amounts of resources as Kubernetes writes them, to be compared (apimachinery: pkg/api/resource/quantity.go).

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a place among nine letters; a number that is too large becomes the largest"
)]

use serde_json::Value;

/// An amount in billionths; what can't be parsed counts as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

impl Quantity {
    /// Parses a string such as `100m`, `1.5Gi` or `2e3`, or a number.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::String(text) => Self::parse(text).unwrap_or_default(),
            Value::Number(number) => Self::parse(&number.to_string()).unwrap_or_default(),
            _ => Self::default(),
        }
    }

    /// Whole bytes, rounded up.
    pub fn bytes(self) -> u64 {
        const BILLION: i128 = 1_000_000_000;
        u64::try_from(self.0.saturating_add(BILLION - 1).max(0) / BILLION).unwrap_or(u64::MAX)
    }

    fn parse(text: &str) -> Option<Self> {
        let end = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let factor = match suffix.as_bytes() {
            [b'e' | b'E', exponent @ ..] if !exponent.is_empty() => {
                10_f64.powi(str::from_utf8(exponent).ok()?.parse().ok()?)
            }
            [] => 1.0,
            [prefix, b'i'] => 1024_f64.powi(i32::try_from(b"KMGTPE".iter().position(|p| p == prefix)?).ok()? + 1),
            [prefix] => 1000_f64.powi(i32::try_from(b"num kMGTPE".iter().position(|p| p == prefix)?).ok()? - 3),
            _ => return None,
        };
        Some(Self((number.parse::<f64>().ok()? * factor * 1e9) as i128))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts() {
        for (smaller, larger) in [
            (json!("100m"), json!("0.2")),
            (json!("999m"), json!(1)),
            (json!("1n"), json!("1u")),
            (json!("1u"), json!("1m")),
            (json!("1M"), json!("1Mi")),
            (json!("1023Mi"), json!("1Gi")),
            (json!("1k"), json!("1Ki")),
            (json!("1e3"), json!("1001")),
            (json!("1E3"), json!("1E")),
            (json!("9P"), json!("9Pi")),
            (json!("nonsense"), json!("1n")),
            // Kubernetes takes no spaces.
            (json!("5 "), json!("1n")),
            (json!(" 5Gi"), json!("1n")),
            (json!("5 Gi"), json!("1n")),
        ] {
            assert!(Quantity::of(&smaller) < Quantity::of(&larger), "{smaller} {larger}");
        }
        assert_eq!(Quantity::of(&json!("1024Mi")), Quantity::of(&json!("1Gi")));
        assert_eq!(Quantity::of(&json!("1e3")), Quantity::of(&json!("1k")));
        assert_eq!(Quantity::of(&json!("0.5")), Quantity::of(&json!("500m")));
    }

    #[test]
    fn whole_bytes() {
        for (amount, bytes) in
            [("0", 0), ("1m", 1), ("1", 1), ("1500m", 2), ("2Ki", 2048), ("3k", 3000), ("-1", 0), ("99999E", u64::MAX)]
        {
            assert_eq!(Quantity::of(&json!(amount)).bytes(), bytes, "{amount}");
        }
    }
}
