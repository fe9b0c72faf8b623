//! What is told of a request: one line in the log, and the metrics.

use std::time::{Duration, Instant};

use axum::http::StatusCode;

use super::RequestId;
use super::body::Share;
use super::error;
use crate::failure::Failure;
use crate::guests::types;
use crate::plain;
use crate::telemetry::names;

/// How much of a backend's last words is logged, in characters.
const STDERR_MAX: usize = 4000;

/// The status for a client that left before it was answered, as nginx has it.
const CLIENT_LEFT: u16 = 499;

/// A request as it is told of when this is dropped.
pub(super) struct Record {
    id: RequestId,
    started: Instant,
    first_token: Option<Duration>,
    model: String,
    generation: u64,
    backend: String,
    origin: &'static str,
    ignored: usize,
    stream: bool,
    status: u16,
    error: Option<Failure>,
    usage: Option<types::Usage>,
    /// What its body takes of the memory for bodies.
    share: Share,
}

impl Record {
    pub(super) fn new(id: RequestId) -> Self {
        metrics::gauge!(names::IN_FLIGHT).increment(1);
        Record {
            id,
            started: Instant::now(),
            first_token: None,
            model: String::new(),
            generation: 0,
            backend: String::new(),
            origin: "",
            ignored: 0,
            stream: false,
            status: CLIENT_LEFT,
            error: None,
            usage: None,
            share: Share::default(),
        }
    }

    /// Its body takes this of the memory for bodies, to its end.
    pub(super) fn hold(&mut self, share: Share) {
        self.share = share;
    }

    /// The request was refused, but its model is known.
    pub(super) fn named(&mut self, model: String) {
        self.model = model;
    }

    /// Which backend serves it, and what was ignored of it.
    pub(super) fn served(&mut self, backend: &str, ignored: &[String]) {
        self.backend = backend.to_owned();
        self.ignored = ignored.len();
    }

    /// Where the process that answers it came from.
    pub(super) fn origin(&mut self, origin: &'static str) {
        self.origin = origin;
    }

    /// The request is understood: `model` is what the metrics call the one that serves it.
    pub(super) fn routed(&mut self, model: String, stream: bool) {
        self.model = model;
        self.stream = stream;
    }

    /// Which guest set serves it.
    pub(super) fn pinned(&mut self, generation: u64) {
        self.generation = generation;
    }

    /// A piece of the answer is there.
    pub(super) fn delta(&mut self) {
        if self.first_token.is_none() {
            let elapsed = self.started.elapsed();
            self.first_token = Some(elapsed);
            metrics::histogram!(names::FIRST_TOKEN, "model" => self.model.clone()).record(elapsed);
        }
    }

    /// The answer is complete.
    pub(super) fn finished(&mut self, usage: Option<types::Usage>) {
        self.status = StatusCode::OK.as_u16();
        self.usage = usage;
    }

    /// The request failed, and the client was told with this status.
    pub(super) fn failed(&mut self, failure: &Failure, status: StatusCode) {
        self.status = status.as_u16();
        self.error = Some(failure.clone());
    }

    fn count(&self, code: &str) {
        let model = match &*self.model {
            "" => "unknown",
            model => model,
        };
        let model = || model.to_owned();
        let status = self.status.to_string();
        metrics::counter!(names::REQUESTS, "model" => model(), "status" => status).increment(1);
        if self.status != StatusCode::OK.as_u16() || self.error.is_some() {
            metrics::counter!(names::ERRORS, "model" => model(), "code" => code.to_owned())
                .increment(1);
        }
        if let Some(usage) = &self.usage {
            for (name, tokens) in [
                (names::INPUT, usage.prompt_tokens),
                (names::OUTPUT, usage.completion_tokens),
                (names::CACHE_READ, usage.cached_tokens),
                (names::CACHE_WRITE, usage.cache_write_tokens),
                (names::REASONING, usage.reasoning_tokens),
            ] {
                metrics::counter!(name, "model" => model()).increment(tokens);
            }
        }
        let elapsed = self.started.elapsed();
        metrics::histogram!(names::DURATION, "model" => model(), "outcome" => self.outcome())
            .record(elapsed);
        let tokens = self.usage.map_or(0, |usage| usage.completion_tokens);
        if let Some(first) = self.first_token
            && tokens > 1
        {
            let each = elapsed.saturating_sub(first).as_secs_f64() / (tokens - 1) as f64;
            metrics::histogram!(names::PER_TOKEN, "model" => model()).record(each);
        }
    }

    /// What became of the request, in one of four words.
    fn outcome(&self) -> &'static str {
        match self.status {
            CLIENT_LEFT => "left",
            400..=499 => "refused",
            200 if self.error.is_none() => "answered",
            _ => "failed",
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        metrics::gauge!(names::IN_FLIGHT).decrement(1);
        let code = match &self.error {
            Some(failure) => error::code(failure),
            None if self.status == CLIENT_LEFT => "client_left",
            None => "",
        };
        self.count(code);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let usage = self.usage.as_ref();
        tracing::info!(
            target: "request",
            id = %self.id.0,
            model = %self.model,
            backend = %self.backend,
            origin = self.origin,
            generation = self.generation,
            stream = self.stream,
            status = self.status,
            code = %code,
            first_token_ms = self.first_token.map(millis),
            total_ms = millis(self.started.elapsed()),
            prompt_tokens = usage.map(|u| u.prompt_tokens),
            completion_tokens = usage.map(|u| u.completion_tokens),
            cached_tokens = usage.map(|u| u.cached_tokens),
            ignored = self.ignored,
        );
        if let Some(failure) = &self.error {
            tell(&self.id, failure);
        }
    }
}

/// Failures of the client are in the line above; those of this side want more words.
fn tell(id: &RequestId, failure: &Failure) {
    tracing::trace!(target: "request", id = %id.0, message = ?failure.message, "told to the client");
    if let Some(stderr) = &failure.stderr {
        let stderr = plain::line(stderr, STDERR_MAX);
        tracing::debug!(target: "request", id = %id.0, stderr, "the backend's last words");
    }
    if let Some(detail) = &failure.detail {
        tracing::warn!(target: "request", id = %id.0, kind = ?failure.kind, detail = ?detail);
    }
}
