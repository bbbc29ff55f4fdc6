//! Spans of `tracing` as they begin and end. One that is not traced leaves nothing, nor do those within it.

use std::{
    fmt,
    time::{Instant, SystemTime},
};

use tracing::{
    Span, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::{FilterFn, LevelFilter, filter_fn},
    layer::Context,
    registry::LookupSpan,
};

use super::{
    context::{Sampler, SpanPlace},
    export::Queue,
};
use crate::log::{SPANS, SpanLayer};

/// The longest value that is kept, in characters: others chose them, and thousands of spans may wait to be sent.
const MAX_VALUE: usize = 300;

/// The field that begins a trace.
const TRACEPARENT: &str = "traceparent";

/// A span that is over.
#[derive(Clone, Debug)]
pub struct EndedSpan {
    /// What was done.
    pub name: &'static str,
    /// Where it is.
    pub place: SpanPlace,
    /// The span that it is in.
    pub parent: Option<u64>,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What is known about it.
    pub fields: SpanFields,
}

/// What is known about a span.
#[derive(Clone, Debug, Default)]
pub struct SpanFields {
    /// `server`, `client` or `internal`.
    pub kind: String,
    /// Why it failed, if it did.
    pub error: Option<String>,
    /// The header of the request that it is about.
    traceparent: Option<String>,
    /// All others.
    pub others: Vec<(&'static str, String)>,
}

struct OpenSpan {
    span: EndedSpan,
    start: Instant,
}

/// Gives spans numbers, and to the exporter when they end.
pub struct OtlpLayer {
    sampler: Sampler,
    queue: Queue,
}

impl OtlpLayer {
    /// For `queue`.
    pub fn new(sampler: Sampler, queue: Queue) -> Self {
        Self { sampler, queue }
    }

    /// It, as far as it concerns these spans.
    pub fn boxed(self) -> SpanLayer {
        let ours: FilterFn = filter_fn(|metadata| metadata.is_span() && metadata.target() == SPANS);
        Box::new(self.with_filter(ours.with_max_level_hint(LevelFilter::INFO)))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for OtlpLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields::default();
        attributes.record(&mut fields);
        let above = span.parent().and_then(|parent| Some(parent.extensions().get::<OpenSpan>()?.span.place));
        let entered = match &fields.traceparent {
            Some(header) => self.sampler.enter(header),
            None => above.map(|above| (above.child(), Some(above.span))),
        };
        let Some((place, parent)) = entered else { return };
        let (name, now) = (span.name(), SystemTime::now());
        let open = EndedSpan { name, place, parent, began: now, ended: now, fields };
        span.extensions_mut().insert(OpenSpan { span: open, start: Instant::now() });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<OpenSpan>() {
            values.record(&mut open.span.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let open = span.extensions_mut().remove::<OpenSpan>();
        if let Some(OpenSpan { mut span, start }) = open {
            // A clock that is set meanwhile does not change how long it took.
            span.ended = span.began.checked_add(start.elapsed()).unwrap_or(span.began);
            self.queue.push(span);
        }
    }
}

impl Visit for SpanFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        let value = value.chars().take(MAX_VALUE).collect();
        match field.name() {
            "otel.kind" => self.kind = value,
            "error" => self.error = Some(value),
            TRACEPARENT => self.traceparent = Some(value),
            name => self.others.push((name, value)),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// Where `span` is, if it is traced.
pub fn place_of(span: &Span) -> Option<SpanPlace> {
    let place = span.with_subscriber(|(id, dispatch)| {
        let span = dispatch.downcast_ref::<Registry>()?.span(id)?;
        span.extensions().get::<OpenSpan>().map(|open| open.span.place)
    });
    place.flatten()
}
