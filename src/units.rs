//! Numbers as people read them.

/// `1 file`, `2 files`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A number of bytes: `512 B`, `1.3 MB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    for unit in ["kB", "MB", "GB"] {
        if value < 999.95 {
            return format!("{value:.1} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// A length of time: `350 ms`, `4.2 s`, `15 min`, `2 min 30 s`.
pub fn duration(length: std::time::Duration) -> String {
    let (millis, seconds) = (length.as_millis(), length.as_secs());
    match (seconds / 60, seconds % 60) {
        _ if seconds == 0 && millis > 0 => format!("{millis} ms"),
        (0, _) if millis % 1000 == 0 || seconds >= 10 => format!("{seconds} s"),
        (0, _) => format!("{:.1} s", length.as_secs_f64()),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, rest) => format!("{minutes} min {rest} s"),
    }
}

/// Not a duration.
#[derive(Debug, thiserror::Error)]
#[error("it has to be a number with s, m, h, d or w behind it, for example 90s, 5m or 7d")]
pub struct InvalidDuration;

/// `90s`, `5m`, `1h`, `7d`, `2w`
pub fn parse_duration(text: &str) -> Result<std::time::Duration, InvalidDuration> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(number.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 24 * 3600,
        Some("w") => 7 * 24 * 3600,
        _ => return Err(InvalidDuration),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.map(std::time::Duration::from_secs).ok_or(InvalidDuration)
}

/// The time now in RFC 3339, to the second.
pub fn now() -> String {
    let now = jiff::Timestamp::now().as_second();
    jiff::Timestamp::from_second(now).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (millis, text) in [
            (0, "0 s"),
            (350, "350 ms"),
            (4200, "4.2 s"),
            (7000, "7 s"),
            (59_900, "59 s"),
            (60_000, "1 min"),
            (150_000, "2 min 30 s"),
            (3_600_000, "60 min"),
        ] {
            assert_eq!(duration(std::time::Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn sizes() {
        for (bytes, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(u64::MAX), "18446744.1 TB");
    }

    #[test]
    fn durations_that_users_write() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("5m", Some(300)),
            ("2h", Some(7200)),
            ("7d", Some(604_800)),
            ("2w", Some(1_209_600)),
            ("0s", Some(0)),
            ("5", None),
            ("m", None),
            ("-1s", None),
            ("99999999999999999999s", None),
            ("9999999999999999999h", None),
            ("5 m", None),
        ] {
            assert_eq!(parse_duration(text).ok(), seconds.map(std::time::Duration::from_secs), "{text}");
        }
    }
}
