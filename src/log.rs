//! The log: lines on stderr, as text or as JSON.

use std::fmt;

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
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

/// Starts the log; `RUST_LOG` sets its level, `info` if it is not set. Panics are logged too.
pub fn start(format: Format, program: Program) {
    // What goes wrong with a cluster is in the sentence that a command ends with.
    let usual = if program == Program::Tool { "info,kube_client=off" } else { "info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // If this is not the first server of the process, there is a log already: that one stays.
    let _ = match (format, program) {
        (Format::Json, _) => lines.json().flatten_event(true).try_init(),
        (Format::Text, Program::Service) => lines.with_ansi(false).try_init(),
        (Format::Text, Program::Tool) => lines.event_format(Sentence).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or_default();
        match place {
            Some(place) => tracing::error!(event = "panic", place, "panic at {place}: {message}"),
            None => tracing::error!(event = "panic", "panic: {message}"),
        }
    }));
}

/// The last line of a program that failed; as text it is written whatever `RUST_LOG` is.
pub fn failed(format: Format, error: &dyn std::error::Error) {
    match format {
        Format::Text => eprintln!("tekton-wrap: {}", Line(&error.to_string())),
        Format::Json => tracing::error!(event = "failed", "{error}"),
    }
}

/// `tekton-wrap: <message>`, without fields: the message is complete.
struct Sentence;

impl<S, N> FormatEvent<S, N> for Sentence
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = Message(String::new());
        event.record(&mut message);
        let warning = if *event.metadata().level() == Level::WARN { "warning: " } else { "" };
        writeln!(to, "tekton-wrap: {warning}{}", Line(&message.0))
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
