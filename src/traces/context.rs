//! Where a span is: W3C Trace Context, and OpenTelemetry's sampling by the parent or else by the trace's number.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};

/// A span of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanPlace {
    /// The number of the trace, not 0.
    pub trace: u128,
    /// The number of the span, not 0.
    pub span: u64,
}

/// A caller's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Caller {
    place: SpanPlace,
    is_traced: bool,
}

/// Decides what is traced.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    /// Of the traces that begin here.
    pub fraction: f64,
}

impl SpanPlace {
    /// A new span of the same trace.
    pub fn child(self) -> Self {
        Self { span: random(), ..self }
    }
}

impl fmt::Display for SpanPlace {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "00-{:032x}-{:016x}-01", self.trace, self.span)
    }
}

impl Sampler {
    /// A new span, and the one above it, for a request with this header, if it is to be traced.
    pub fn enter(self, traceparent: &str) -> Option<(SpanPlace, Option<u64>)> {
        if let Some(Caller { place, is_traced }) = parse(traceparent) {
            return is_traced.then(|| (place.child(), Some(place.span)));
        }
        let trace = u128::from(random()) << 64 | u128::from(random());
        self.takes(trace).then(|| (SpanPlace { trace, span: random() }, None))
    }

    /// OpenTelemetry's TraceIdRatioBased: all that sample the same fraction choose the same traces.
    #[allow(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    fn takes(self, trace: u128) -> bool {
        let low = (trace & u128::from(u64::MAX)) as u64 >> 1;
        low as f64 <= self.fraction * (1_u64 << 63) as f64 && self.fraction > 0.0
    }
}

/// The header `traceparent`; a later version may have further fields.
fn parse(header: &str) -> Option<Caller> {
    let mut parts = header.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let version = hex(version, 2)?;
    if version == 0xff || version == 0 && parts.next().is_some() {
        return None;
    }
    let place = SpanPlace { trace: hex(trace, 32)?, span: hex(span, 16)?.try_into().ok()? };
    let is_traced = hex(flags, 2)? & 1 == 1;
    (place.trace != 0 && place.span != 0).then_some(Caller { place, is_traced })
}

/// A number of so many lower-case hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_hex = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_hex { u128::from_str_radix(text, 16).ok() } else { None }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Were there no randomness, TLS would have none either: what is left then is a number that is not unique.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_ne_bytes(bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn headers() {
        let caller = |is_traced| {
            let place = SpanPlace { trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, span: 0x00f0_67aa_0ba9_02b7 };
            Some(Caller { place, is_traced })
        };
        for (header, expected) in [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), caller(true)),
            (format!("00-{TRACE}-00f067aa0ba902b7-00"), caller(false)),
            (format!("00-{TRACE}-00f067aa0ba902b7-03"), caller(true)),
            (format!("cc-{TRACE}-00f067aa0ba902b7-01-what-the-future-brings"), caller(true)),
            (format!("00-{TRACE}-00f067aa0ba902b7-01-more"), None),
            (format!("ff-{TRACE}-00f067aa0ba902b7-01"), None),
            (format!("00-{TRACE}-0000000000000000-01"), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-00f067aa0ba902b7"), None),
            (format!("00-{TRACE}-+0f067aa0ba902b7-01"), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(&header), expected, "{header:?}");
        }
        let header = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(parse(&header).unwrap().place.to_string(), header);
    }

    #[test]
    fn what_is_traced() {
        let (all, half, none) = (Sampler { fraction: 1.0 }, Sampler { fraction: 0.5 }, Sampler { fraction: 0.0 });
        for trace in [1, u128::from(u64::MAX), u128::MAX] {
            assert!(all.takes(trace) && !none.takes(trace), "{trace:x}");
        }
        assert!(half.takes(u128::from(u64::MAX / 2 - 1)) && !half.takes(u128::from(u64::MAX)));
        // The caller decides, if there is one.
        let (place, above) = none.enter(&format!("00-{TRACE}-00f067aa0ba902b7-01")).unwrap();
        assert_eq!((format!("{:032x}", place.trace).as_str(), above), (TRACE, Some(0x00f0_67aa_0ba9_02b7)));
        assert!(all.enter(&format!("00-{TRACE}-00f067aa0ba902b7-00")).is_none());
        let (first, second) = (all.enter("").unwrap().0, all.enter("").unwrap().0);
        assert!(first.trace != second.trace && first.child().trace == first.trace && first.child() != first);
    }
}
