//! Numbers as people read them.

/// `1 file`, `2 files`.
pub fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A number of bytes: `512 B`, `1.3 MB`.
pub fn size(bytes: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    while value >= 999.95 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", units[unit])
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
}
