//! The log, the metrics, the trace and the ledger of a request: one line when it ends.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use basics::plain;
use guests::completion::Usage;
use ledger::{Entry, Tokens};
use opentelemetry::KeyValue;

use super::Request;
use crate::bodies::Share;
use crate::books::Books;
use crate::cache::Charge;
use crate::chain::estimate;
use crate::failure::Failure;
use crate::models::Route;
use crate::quotas::Ticket;
use crate::telemetry::names;
use crate::traces::{Ended, Trace};

/// How much of the end of a backend's standard error is logged, in characters.
const STDERR_MAX: usize = 4000;

/// The status of an answer.
const OK: u16 = 200;

/// What OpenTelemetry's conventions for generative AI call such an operation.
const CHAT: &str = "chat";

/// The status in the log for a client that left before it was answered. nginx uses the same number.
const CLIENT_LEFT: u16 = 499;

/// Collects what is known of a request. When this is dropped, it is logged, counted and noted in the ledger.
pub(crate) struct RequestLog {
    books: Arc<Books>,
    id: Arc<str>,
    trace: Trace,
    /// When it came, by the clock on the wall, in milliseconds since the Unix epoch.
    at: u64,
    started: Instant,
    /// When its body was there.
    read: Instant,
    first_token: Option<Duration>,
    key: Option<Arc<str>>,
    /// The dialect that speaks the API, or `chat`.
    api: String,
    model: String,
    generation: u64,
    completion: String,
    backend: String,
    origin: &'static str,
    /// Bytes of the request, and of the answer so far.
    asked: usize,
    written: usize,
    /// Who pays for the answer, if others may get it, too.
    charge: Option<Charge>,
    ignored: usize,
    stream: bool,
    status: u16,
    error: Option<Failure>,
    usage: Option<Usage>,
    /// What its body takes of the memory for bodies.
    share: Share,
    /// Its place among the requests of its key, if that has a name.
    ticket: Option<Ticket>,
}

impl RequestLog {
    /// For a request with these headers. `key` is the name of the caller's key.
    pub(crate) fn new(
        books: Arc<Books>,
        id: Arc<str>,
        key: Option<Arc<str>>,
        headers: &HeaderMap,
    ) -> Self {
        metrics::gauge!(names::IN_FLIGHT).increment(1);
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        RequestLog {
            trace: books.trace(headers),
            books,
            id,
            at: millis(at.unwrap_or_default()),
            started: Instant::now(),
            read: Instant::now(),
            first_token: None,
            key,
            api: "chat".into(),
            model: String::new(),
            generation: 0,
            completion: String::new(),
            backend: String::new(),
            origin: "",
            asked: 0,
            written: 0,
            charge: None,
            ignored: 0,
            stream: false,
            status: CLIENT_LEFT,
            error: None,
            usage: None,
            share: Share::default(),
            ticket: None,
        }
    }

    /// Where its steps are noted.
    pub(crate) fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Notes that another API than chat completions was called.
    pub(crate) fn through(&mut self, dialect: &str) {
        dialect.clone_into(&mut self.api);
    }

    /// Its body is there. Keeps the body's share of the memory for bodies until the request ends.
    pub(crate) fn hold(&mut self, share: Share) {
        self.share = share;
        self.read = Instant::now();
    }

    /// Counts the request among those of its key, until it ends.
    pub(crate) fn charges(&mut self, ticket: Ticket) {
        self.ticket = Some(ticket);
    }

    /// Notes the model of a request that was refused.
    pub(crate) fn named(&mut self, model: String) {
        self.model = model;
    }

    /// Notes where the process that answers it came from.
    pub(crate) fn started(&mut self, origin: &'static str) {
        self.origin = origin;
    }

    /// Its process has the request now, for which it waited so long. All else was the service's own doing.
    pub(crate) fn waited(&self, waited: Duration) {
        let added = self.read.elapsed().saturating_sub(waited);
        metrics::histogram!(names::ADDED).record(added);
    }

    /// Notes that others may get the same answer, and that one of them pays for it.
    pub(crate) fn shares(&mut self, charge: Charge) {
        self.charge = Some(charge);
    }

    /// Notes the model and the backend that serve it.
    pub(crate) fn routed(&mut self, route: &Route, request: &Request) {
        self.model.clone_from(&route.label);
        self.backend.clone_from(&route.backend.config.name);
        self.stream = request.body.stream;
        self.asked = request.size;
        self.ignored = request.ignored.len();
    }

    /// Notes the generation of the guests that serve it, and the id of its answer.
    pub(crate) fn pinned(&mut self, generation: u64, completion: &str) {
        self.generation = generation;
        completion.clone_into(&mut self.completion);
    }

    /// A piece of the answer is there, of `size` bytes.
    pub(crate) fn delta(&mut self, size: usize) {
        self.written += size;
        if self.first_token.is_none() {
            let elapsed = self.started.elapsed();
            self.first_token = Some(elapsed);
            let model = self.model.clone();
            metrics::histogram!(names::FIRST_TOKEN, "gen_ai_operation_name" => CHAT, "gen_ai_request_model" => model)
                .record(elapsed);
        }
    }

    /// The answer is complete.
    pub(crate) fn finished(&mut self, usage: Option<Usage>) {
        self.status = OK;
        self.usage = usage.filter(|_| self.charge.as_ref().is_none_or(Charge::take));
    }

    /// It was answered with this status without a model.
    pub(crate) fn replied(&mut self, status: u16) {
        self.status = status;
    }

    /// The request failed, and was answered with this status.
    pub(crate) fn failed(&mut self, failure: &Failure, status: u16) {
        self.status = status;
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
        if self.status != OK || self.error.is_some() {
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
            for (kind, tokens) in [
                ("input", usage.prompt_tokens),
                ("output", usage.completion_tokens),
            ] {
                metrics::histogram!(names::TOKEN_USAGE, "gen_ai_operation_name" => CHAT, "gen_ai_request_model" => model(), "gen_ai_token_type" => kind)
                    .record(tokens as f64);
            }
        }
        let elapsed = self.started.elapsed();
        metrics::histogram!(names::DURATION, "gen_ai_operation_name" => CHAT, "gen_ai_request_model" => model(), "outcome" => self.outcome())
            .record(elapsed);
        let tokens = self.usage.map_or(0, |usage| usage.completion_tokens);
        if let Some(first) = self.first_token
            && tokens > 1
        {
            let each = elapsed.saturating_sub(first).as_secs_f64() / (tokens - 1) as f64;
            metrics::histogram!(names::PER_TOKEN, "gen_ai_operation_name" => CHAT, "gen_ai_request_model" => model())
                .record(each);
        }
    }

    /// Estimates the tokens of an answer that broke off or that the client did not wait for: they were spent. If others
    /// get the same answer, who gets all of it pays, or else the last one who leaves.
    fn estimate(&mut self) {
        let is_cut = self.error.is_some() || self.status == CLIENT_LEFT;
        let is_last = self.charge.as_ref().is_none_or(Charge::leave);
        let pays = || self.charge.as_ref().is_none_or(Charge::take);
        if is_cut && self.written > 0 && is_last && pays() {
            self.usage = Some(estimate::of_uncounted(self.asked, self.written));
        }
    }

    fn entry(&self, code: &str) -> Entry {
        let is_routed = !self.backend.is_empty();
        Entry {
            at: self.at,
            request: self.id.clone(),
            api: self.api.clone(),
            key: self.key.clone(),
            // A name that a client has made up is not kept.
            model: match is_routed {
                true => self.model.clone(),
                false => String::new(),
            },
            backend: self.backend.clone(),
            origin: self.origin,
            generation: self.generation,
            stream: self.stream,
            status: self.status,
            code: code.to_owned(),
            tokens: self.usage.map(|usage| Tokens {
                prompt: usage.prompt_tokens,
                completion: usage.completion_tokens,
                cached: usage.cached_tokens,
                reasoning: usage.reasoning_tokens,
            }),
            cost_micro_usd: self.usage.and_then(|usage| usage.cost_micro_usd),
            first_token_ms: self.first_token.map(millis),
            total_ms: millis(self.started.elapsed()),
        }
    }

    /// Ends the trace, if there is one.
    fn end_trace(&self, code: &str) {
        let Some(traces) = self.books.traces() else {
            return;
        };
        if let Some(first) = self.first_token {
            self.trace.took("stream", self.started + first);
        }
        let is_routed = !self.backend.is_empty();
        let text =
            |name, text: &str| (!text.is_empty()).then(|| KeyValue::new(name, text.to_owned()));
        let number =
            |name, number: u64| KeyValue::new(name, i64::try_from(number).unwrap_or(i64::MAX));
        let texts = [
            text("gen_ai.operation.name", if is_routed { CHAT } else { "" }),
            text("gen_ai.provider.name", &self.backend),
            text(
                "gen_ai.request.model",
                if is_routed { &self.model } else { "" },
            ),
            text("gen_ai.response.id", &self.completion),
            text("claude_harness.request_id", &self.id),
            text("claude_harness.api", &self.api),
            text(
                "claude_harness.key",
                self.key.as_deref().unwrap_or_default(),
            ),
            text("claude_harness.origin", self.origin),
        ];
        let mut attributes: Vec<KeyValue> = texts.into_iter().flatten().collect();
        attributes.push(number("claude_harness.generation", self.generation));
        attributes.push(KeyValue::new("claude_harness.stream", self.stream));
        if let Some(usage) = &self.usage {
            attributes.push(number("gen_ai.usage.input_tokens", usage.prompt_tokens));
            attributes.push(number(
                "gen_ai.usage.output_tokens",
                usage.completion_tokens,
            ));
        }
        let name = match is_routed {
            true => format!("{CHAT} {}", self.model),
            false => self.api.clone(),
        };
        let ended = Ended {
            name,
            status: self.status,
            code,
            attributes,
        };
        traces.send(&self.trace, ended);
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

impl Drop for RequestLog {
    fn drop(&mut self) {
        metrics::gauge!(names::IN_FLIGHT).decrement(1);
        self.estimate();
        let code = match &self.error {
            Some(failure) => failure.log_code(),
            None if self.status == CLIENT_LEFT => "client_left",
            None => "",
        };
        self.count(code);
        if let (Some(ticket), Some(usage)) = (&self.ticket, &self.usage) {
            ticket.spend(usage);
        }
        self.end_trace(code);
        self.books.record(self.entry(code));
        let usage = self.usage.as_ref();
        tracing::info!(
            target: "request",
            id = %self.id,
            api = %self.api,
            key = self.key.as_deref(),
            model = %self.model,
            backend = %self.backend,
            origin = self.origin,
            generation = self.generation,
            completion = %self.completion,
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
            log_failure(&self.id, failure);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Logs what is known of a failure beyond its code, which is in the request's line: the end of standard error,
/// and the detail for the operator.
fn log_failure(id: &str, failure: &Failure) {
    tracing::trace!(target: "request", id = id, message = ?failure.message, "told to the client");
    if let Some(stderr) = &failure.stderr {
        let stderr = plain::line(stderr, STDERR_MAX);
        tracing::debug!(target: "request", id = id, stderr, "the backend's last words");
    }
    if let Some(detail) = &failure.detail {
        tracing::warn!(target: "request", id = id, kind = ?failure.kind, detail = ?detail);
    }
}
