//! The log: lines on stderr, as text or as JSON.

use std::{
    fmt,
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use tracing::{
    Dispatch, Event, Level, Subscriber,
    dispatcher::set_global_default,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::MakeExt,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{self, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
};

use crate::quote::Line;

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which kind of program writes the log: it decides how a line of text looks. JSON is the same for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A long-running one: each line has a time and fields.
    Service,
    /// A command that does one thing: each line is a complete sentence.
    Tool,
}

/// The target of spans that are for a collector of traces, and not for the log.
pub const SPANS: &str = "otlp";

/// Who listens to them.
pub type SpanLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The field of a line that the next one takes the place of, which is for terminals.
const IN_PLACE: &str = "in_place";

/// The environment variable with the filter of the log.
const FILTER: &str = "RUST_LOG";

/// What is logged if [`FILTER`] is not set.
const DEFAULT_FILTER: &str = "info";

/// `RUST_LOG` has a value that is no filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "the environment variable {FILTER}={value:?} is not a filter of the log ({problem}): write for example info, warn or tekton_wrap=debug"
)]
pub struct FilterError {
    value: String,
    problem: String,
}

/// Starts the log, and gives [`SPANS`] to `spans`, if to anybody; `RUST_LOG` sets its level, `info` if it is not set or, as the error says, invalid. Panics are logged too.
///
/// A log that can't be written, since stderr is closed or full, never ends the program.
///
/// # Errors
/// If `RUST_LOG` is invalid.
pub fn start(format: Format, program: Program, spans: Option<SpanLayer>) -> Result<(), FilterError> {
    let (filter, invalid) = match filter(&std::env::var(FILTER).unwrap_or_default()) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
    };
    // If this is not the first server of the process, there is a log already: that one stays.
    let _ = set_global_default(subscriber(format, program, filter, spans));
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or_default();
        match place {
            Some(place) => tracing::error!(event = "panic", place, "panic at {place}: {message}"),
            None => tracing::error!(event = "panic", "panic: {message}"),
        }
    }));
    invalid.map_or(Ok(()), Err)
}

/// Without `spans` the filter is all that anything is looked at by: what it does not let pass costs a comparison.
fn subscriber(format: Format, program: Program, filter: EnvFilter, spans: Option<SpanLayer>) -> Dispatch {
    match spans {
        None => tracing_subscriber::registry().with(filter).with(lines(format, program)).into(),
        Some(spans) => {
            tracing_subscriber::registry().with(spans).with(lines(format, program).with_filter(filter)).into()
        }
    }
}

/// What writes.
fn lines<S>(format: Format, program: Program) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        // Users know `target` as a param, not as the name of a module.
        .with_target(false);
    match (format, program) {
        (Format::Json, _) => lines.json().flatten_event(true).boxed(),
        (Format::Text, Program::Service) => lines.with_ansi(false).fmt_fields(quoting_fields()).boxed(),
        (Format::Text, Program::Tool) => lines.event_format(SentenceFormat).boxed(),
    }
}

/// The filter that `value` describes. What goes wrong in the Kubernetes client is logged by whoever uses it, in terms of what was
/// asked for; its own lines would say the same twice.
fn filter(value: &str) -> Result<EnvFilter, FilterError> {
    let value = if value.trim().is_empty() { DEFAULT_FILTER } else { value };
    let kube = if value.contains("kube") { "" } else { ",kube_client=off" };
    EnvFilter::try_new(format!("{value}{kube},{SPANS}=off"))
        .map_err(|error| FilterError { value: value.to_owned(), problem: error.to_string() })
}

/// Fields of a line of text, of which none can begin another line or move the cursor of a terminal, whatever it holds.
fn quoting_fields() -> impl for<'a> FormatFields<'a> + 'static {
    format::debug_fn(|to, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(to, "{}", Line(&value)),
            name => write!(to, "{name}={}", Line(&value)),
        }
    })
    .delimited(" ")
}

/// The last line of a program that failed; as text it is written whatever `RUST_LOG` is.
pub fn failed(format: Format, error: &dyn std::error::Error) {
    match format {
        // If stderr is closed or full, the exit code has to say it.
        Format::Text => {
            let clear = if STANDS.swap(false, Relaxed) { CLEAR_LINE } else { "" };
            drop(writeln!(std::io::stderr(), "{clear}tekton-wrap: {}", Line(&error.to_string())));
        }
        Format::Json => tracing::error!(event = "failed", "{error}"),
    }
}

/// `tekton-wrap: <message>`, without fields: the message is complete. A line with the field [`IN_PLACE`] stands until the next one takes
/// its place.
struct SentenceFormat;

/// Whether such a line stands there.
static STANDS: AtomicBool = AtomicBool::new(false);

/// Back to the beginning of the line, of which nothing stays (ECMA-48: CR, EL).
const CLEAR_LINE: &str = "\r\u{1b}[K";

impl<S, N> FormatEvent<S, N> for SentenceFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        if STANDS.swap(message.in_place, Relaxed) {
            to.write_str(CLEAR_LINE)?;
        }
        let warning = if *event.metadata().level() == Level::WARN { "warning: " } else { "" };
        let line = format!("tekton-wrap: {warning}{}", Line(&message.text));
        if message.in_place {
            // What is wider goes on in the next line, from where it could not be cleared.
            let width = rustix::termios::tcgetwinsize(std::io::stderr()).map_or(0, |size| size.ws_col);
            let width = if width == 0 { 80 } else { usize::from(width) };
            return write!(to, "{}", line.chars().take(width.saturating_sub(1)).collect::<String>());
        }
        writeln!(to, "{line}")
    }
}

#[derive(Default)]
struct Message {
    text: String,
    in_place: bool,
}

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.in_place |= field.name() == IN_PLACE && value;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn no_field_begins_another_line() {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone()).without_time().with_target(false);
        let subscriber = lines.with_ansi(false).fmt_fields(quoting_fields()).finish();
        let foreign = "x\n2026 ERROR forged \u{1b}[2J";
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(plain = foreign, shown = %foreign, debugged = ?foreign, number = 7, "refused: {foreign}");
        });
        let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let once = r"x\n2026 ERROR forged \033[2J";
        let (debugged, rest) = (format!("{foreign:?}"), " number=7\n");
        assert_eq!(log, format!(" WARN refused: {once} plain={debugged} shown={once} debugged={debugged}{rest}"));
    }

    #[test]
    fn a_line_that_stands_in_place_is_cleared_by_the_next() {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let subscriber = lines.event_format(SentenceFormat).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("begun");
            tracing::info!(in_place = true, "1 of 2");
            tracing::info!(in_place = true, "{}", "2 of 2 ".repeat(100));
            tracing::warn!("something");
            tracing::info!(in_place = false, "done");
        });
        let log = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let parts: Vec<&str> = log.split(CLEAR_LINE).collect();
        assert_eq!(parts[0], "tekton-wrap: begun\ntekton-wrap: 1 of 2");
        assert!(parts[1].starts_with("tekton-wrap: 2 of 2 2 of 2") && parts[1].len() < 700, "{log:?}");
        assert_eq!(parts[2], "tekton-wrap: warning: something\ntekton-wrap: done\n");
    }

    /// Whoever asks for all of the log gets no spans, which cost nothing without a collector.
    #[test]
    fn spans_are_only_for_collectors() {
        let dispatch = subscriber(Format::Text, Program::Service, filter("trace").unwrap(), None);
        tracing::dispatcher::with_default(&dispatch, || {
            assert!(tracing::info_span!(target: SPANS, "review").is_disabled());
            assert!(!tracing::trace_span!("other").is_disabled());
        });
    }

    #[test]
    fn filters() {
        for value in ["", "warn", "tekton_wrap=debug,hyper=off", "off", "kube_client=debug"] {
            assert!(filter(value).is_ok(), "{value}");
        }
        let error = filter("tekton_wrap=loud").unwrap_err().to_string();
        assert!(error.starts_with("the environment variable RUST_LOG=\"tekton_wrap=loud\" is not a filter"), "{error}");
    }
}
