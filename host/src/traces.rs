//! Traces by OpenTelemetry's protocol (OTLP over HTTP): a span for each request, with one for each of its steps.
//!
//! A request notes when its steps began and ended. The spans are made of that when it is over, so that nothing of
//! OpenTelemetry is on a request's way.

mod exporter;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use parking_lot::Mutex;

use crate::config::TracesConfig;
use exporter::Watched;

/// The name of the service in its traces, unless `OTEL_SERVICE_NAME` says otherwise.
const SERVICE: &str = "claude-harness";

/// How long the end of the service waits for the last spans to be sent.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Where traces go. Without settings there are none.
pub(crate) struct Traces {
    settings: TracesConfig,
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// What one request notes of its steps. Without anybody to send it to, it notes nothing.
#[derive(Clone, Default)]
pub(crate) struct Trace(Option<Arc<Notes>>);

struct Notes {
    /// The span of the client's that the request belongs to, if it sent `traceparent`.
    parent: Context,
    began_at: SystemTime,
    began: Instant,
    steps: Mutex<Vec<Noted>>,
}

struct Noted {
    name: &'static str,
    began: Instant,
    /// None while it is being taken.
    ended: Option<Instant>,
}

/// A step that is being taken. Dropping it ends the step.
pub(crate) struct Step {
    trace: Trace,
    /// Its place among the notes.
    index: usize,
}

/// What a request's span tells.
pub(crate) struct Ended<'a> {
    pub(crate) name: String,
    pub(crate) status: u16,
    /// The code of the error; empty if there was none.
    pub(crate) code: &'a str,
    pub(crate) attributes: Vec<KeyValue>,
}

impl Traces {
    /// Starts the thread that sends spans.
    ///
    /// # Errors
    ///
    /// Fails if there is no client of HTTP for it.
    pub(crate) fn start(settings: &TracesConfig) -> Result<Self> {
        let exporter = Watched::new(&settings.endpoint).context("cannot prepare for traces")?;
        let share = f64::from(settings.sample_percent) / 100.0;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)));
        let resource = Resource::builder()
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name(SERVICE),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource.build())
            .build();
        Ok(Traces {
            settings: settings.clone(),
            tracer: provider.tracer(SERVICE),
            provider,
        })
    }

    /// Whether these settings say the same.
    pub(crate) fn has(&self, settings: Option<&TracesConfig>) -> bool {
        settings == Some(&self.settings)
    }

    /// Sends what is left, for a while. Nothing is sent afterwards.
    pub(crate) fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(STOP_PATIENCE) {
            tracing::warn!(%error, "the last traces may be missing");
        }
    }

    /// Makes the spans of a request that is over.
    pub(crate) fn send(&self, trace: &Trace, ended: Ended<'_>) {
        let Some(notes) = &trace.0 else {
            return;
        };
        let (tracer, now) = (&self.tracer, Instant::now());
        let mut span = tracer
            .span_builder(ended.name)
            .with_kind(SpanKind::Server)
            .with_start_time(notes.began_at)
            .with_attributes(ended.attributes)
            .start_with_context(tracer, &notes.parent);
        let status = KeyValue::new("http.response.status_code", i64::from(ended.status));
        span.set_attribute(status);
        if !ended.code.is_empty() {
            span.set_attribute(KeyValue::new("error.type", ended.code.to_owned()));
        }
        // By the conventions, what the client did wrong is no error of the server. A stream that failed on its way has
        // the status 200.
        if !(ended.code.is_empty() || (400..500).contains(&ended.status)) {
            span.set_status(Status::error(ended.code.to_owned()));
        }
        let context = Context::new().with_remote_span_context(span.span_context().clone());
        for step in notes.steps.lock().drain(..) {
            let mut child = tracer
                .span_builder(step.name)
                .with_start_time(notes.time(step.began))
                .start_with_context(tracer, &context);
            child.end_with_timestamp(notes.time(step.ended.unwrap_or(now)));
        }
        span.end_with_timestamp(notes.time(now));
    }
}

impl Trace {
    /// Begins the trace of a request, or goes on with the one that its headers name.
    pub(crate) fn begin(headers: &HeaderMap) -> Self {
        let parent = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
        Trace(Some(Arc::new(Notes {
            parent,
            began_at: SystemTime::now(),
            began: Instant::now(),
            steps: Mutex::default(),
        })))
    }

    /// Begins a step.
    pub(crate) fn step(&self, name: &'static str) -> Step {
        Step {
            index: self.note(name, Instant::now(), None),
            trace: self.clone(),
        }
    }

    /// Notes a step that is over now.
    pub(crate) fn took(&self, name: &'static str, began: Instant) {
        self.note(name, began, Some(Instant::now()));
    }

    fn note(&self, name: &'static str, began: Instant, ended: Option<Instant>) -> usize {
        let Some(notes) = &self.0 else {
            return 0;
        };
        let mut steps = notes.steps.lock();
        steps.push(Noted { name, began, ended });
        steps.len() - 1
    }
}

impl Notes {
    /// When that was by the clock on the wall.
    fn time(&self, at: Instant) -> SystemTime {
        self.began_at + at.saturating_duration_since(self.began)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(notes) = &self.trace.0 {
            // If the request is over, its steps were taken away.
            if let Some(step) = notes.steps.lock().get_mut(self.index) {
                step.ended = Some(Instant::now());
            }
        }
    }
}
