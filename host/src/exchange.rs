//! One request on one process: the only place where guests and processes meet.
//!
//! ```text
//! process ──lines──► guest ──effects──► writes, checked by the guard ──► process
//!                                  └──► deltas, and one end ──► the caller
//! ```
//!
//! Whoever holds an [`Exchange`] holds everything that the request owns; dropping it ends the
//! process and frees the place.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::admission::Permit;
use crate::backends::{Backend, profile};
use crate::blocking;
use crate::failure::{Failure, Kind, unix_now};
use crate::guests::contract::adapter::Effect;
use crate::guests::exchange::{GuestExchange, NotOpened};
use crate::guests::{GuestError, types};
use crate::processes::{Output, Process, Processes, Reading};

/// What an adapter may write beside four times the request's size, in bytes: the frame of its
/// messages. Four times, because it may escape each character that the client did not.
const WRITE_ALLOWANCE: usize = 256 << 10;

/// A request being answered.
pub(crate) struct Exchange {
    backend: Arc<Backend>,
    guest: GuestExchange,
    process: Process,
    events: VecDeque<Event>,
    /// Bytes of the request: what the adapter may still have to write is related to it.
    request_size: usize,
    write_budget: usize,
    launched: Instant,
    last_output: Option<Instant>,
    answering: bool,
    /// Function calls that have begun.
    calls: u32,
    over: bool,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Event {
    /// The next piece of the answer.
    Delta(types::Delta),
    /// The answer is complete; nothing comes after this.
    Finish(types::Outcome),
    /// It failed; nothing comes after this.
    Fail(Failure),
}

impl Exchange {
    /// Launches a process for an exchange that the adapter opened, and says the first words.
    pub(crate) fn launch(
        backend: Arc<Backend>,
        mut guest: GuestExchange,
        request_size: usize,
        model: &str,
        processes: &Processes,
        permit: Permit,
    ) -> Result<Self, Failure> {
        let broken = |guest: &GuestExchange, error| guest_failure(&guest.guest().name, &error);
        let placeholders = guest
            .placeholders()
            .map_err(|error| broken(&guest, error))?;
        let placeholders: Vec<_> = placeholders
            .into_iter()
            .map(|p| (p.name, p.value))
            .collect();
        let line = profile::exchange(&backend.config, model, &placeholders)
            .map_err(|error| broken(&guest, GuestError::Contract(error.to_string())))?;
        let reading = Reading {
            framing: backend.config.framing,
            max_line: backend.config.max_line,
        };
        let process = processes.spawn(&line, reading, permit).map_err(|error| {
            backend.status.not_started(&error);
            let health = backend.status.health();
            let way_out = match health.remedy() {
                [] => String::new(),
                commands => format!("; to mend it: `{}`", commands.join("`, then `")),
            };
            Failure::new(Kind::Backend, health.message() + &way_out).logged()
        })?;
        tracing::debug!(backend = %backend.config.name, pid = process.id(), "a process was launched");
        let mut exchange = Exchange {
            backend,
            guest,
            process,
            events: VecDeque::new(),
            request_size,
            write_budget: request_size
                .saturating_mul(4)
                .saturating_add(WRITE_ALLOWANCE),
            launched: Instant::now(),
            last_output: None,
            answering: false,
            calls: 0,
            over: false,
        };
        let effects = exchange.guest.start(request_size);
        exchange.apply(effects);
        Ok(exchange)
    }

    /// What comes next. After an end there is nothing more to ask for.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.over {
                return Event::Fail(Failure::new(Kind::Internal, "the exchange is over"));
            }
            // A backend that never pauses must starve neither its timeouts nor the other tasks.
            tokio::task::consume_budget().await;
            let (deadline, what, limit) = self.deadline();
            if Instant::now() >= deadline {
                self.time_out(what, limit);
                continue;
            }
            tokio::select! {
                biased;
                output = self.process.next() => self.handle(&output),
                () = tokio::time::sleep_until(deadline) => self.time_out(what, limit),
            }
        }
    }

    fn handle(&mut self, output: &Output) {
        let effects = match output {
            Output::Piece(piece) => {
                self.last_output = Some(Instant::now());
                // Once it answers, nothing of the conversation is left to be written.
                let to_write = if self.answering { 0 } else { self.request_size };
                self.guest.output(piece, to_write)
            }
            Output::TooLong => {
                let limit = self.backend.config.max_line;
                return self.fail(
                    Failure::new(
                        Kind::Backend,
                        format!(
                            "the backend printed a line of more than {limit} bytes (`max_line`)"
                        ),
                    )
                    .logged(),
                );
            }
            Output::Exited(status) => {
                let stderr = self.process.stderr_tail();
                let effects = self.guest.exit(*status, &stderr);
                self.apply(effects);
                if !self.over {
                    let error =
                        GuestError::Contract("it gave no end though the backend had ended".into());
                    self.fail_guest(&error);
                }
                return;
            }
        };
        self.apply(effects);
    }

    /// Carries out what the guest wants, in its order, or fails the request.
    fn apply(&mut self, effects: Result<Vec<Effect>, GuestError>) {
        let carried_out = effects.and_then(|effects| {
            effects
                .into_iter()
                .try_for_each(|effect| self.carry_out(effect))
        });
        if let Err(error) = carried_out {
            self.fail_guest(&error);
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), GuestError> {
        if self.over {
            return Err(GuestError::Contract("an effect came after the end".into()));
        }
        match effect {
            Effect::Write(bytes) => {
                let left = self.write_budget.checked_sub(bytes.len());
                self.write_budget = left.ok_or_else(|| {
                    GuestError::Write("more than four times the request, and 256 KiB".into())
                })?;
                let line = blocking::run_on(bytes.len(), || self.backend.seal(&bytes))
                    .map_err(|refusal| GuestError::Write(refusal.to_string()))?;
                self.process.write(line);
            }
            Effect::CloseInput => self.process.close_input(),
            Effect::Emit(delta) => {
                self.check_delta(&delta)?;
                self.answering = true;
                self.events.push_back(Event::Delta(delta));
            }
            Effect::Report(report) => self.backend.status.observe(&report),
            Effect::Finish(outcome) => {
                self.over = true;
                use types::FinishReason::{ContentFilter, Length};
                if matches!(outcome.finish_reason, Length | ContentFilter) {
                    self.process.end_at_once();
                }
                self.backend.status.answered();
                self.events.push_back(Event::Finish(outcome));
            }
            Effect::Fail(error) => {
                let mut failure = api_failure(error);
                if failure.kind == Kind::Backend {
                    failure.detail =
                        Some(self.process.stderr_tail()).filter(|tail| !tail.is_empty());
                }
                self.fail(failure);
            }
        }
        Ok(())
    }

    /// What the wire's own types take for granted.
    fn check_delta(&mut self, delta: &types::Delta) -> Result<(), GuestError> {
        let wrong = match delta {
            types::Delta::Extra(json)
                if serde_json::from_str::<Map<String, Value>>(json).is_err() =>
            {
                "an extra delta is no JSON object".into()
            }
            types::Delta::ToolCall(call) if call.index > self.calls => {
                format!("call {} came before call {}", call.index, self.calls)
            }
            types::Delta::ToolCall(call) if call.index == self.calls => {
                self.calls += 1;
                if call.id.is_some() && call.name.is_some() {
                    return Ok(());
                }
                format!("call {} began without an id or a name", call.index)
            }
            _ => return Ok(()),
        };
        Err(GuestError::Contract(wrong))
    }

    /// When to give up, the setting that says so, and its value.
    fn deadline(&self) -> (Instant, &'static str, Duration) {
        let config = &self.backend.config;
        let whole = (
            self.launched + config.request_timeout,
            "request_timeout",
            config.request_timeout,
        );
        let next = match self.last_output {
            None => (
                self.launched + config.first_output_timeout,
                "first_output_timeout",
                config.first_output_timeout,
            ),
            Some(last) => (
                last + config.silence_timeout,
                "silence_timeout",
                config.silence_timeout,
            ),
        };
        if next.0 < whole.0 { next } else { whole }
    }

    fn time_out(&mut self, setting: &str, limit: Duration) {
        let message = format!("the backend took too long: `{setting}` is {limit:?}");
        let detail = self.process.stderr_tail();
        self.fail(
            Failure::new(Kind::Timeout, message)
                .with_detail(detail)
                .logged(),
        );
    }

    fn fail_guest(&mut self, error: &GuestError) {
        let failure = guest_failure(&self.guest.guest().name, error);
        self.fail(failure);
    }

    /// Ends the exchange. What was not yet asked for is still given before.
    fn fail(&mut self, failure: Failure) {
        self.over = true;
        self.backend.status.failed(failure.kind);
        self.events.retain(|event| matches!(event, Event::Delta(_)));
        self.events.push_back(Event::Fail(failure));
    }
}

/// An adapter that did not open an exchange, as the request's failure.
pub(crate) fn not_opened(guest: &str, reason: NotOpened) -> Failure {
    match reason {
        NotOpened::Refused(error) => api_failure(error),
        NotOpened::Broken(error) => guest_failure(guest, &error),
    }
}

fn guest_failure(guest: &str, error: &GuestError) -> Failure {
    let kind = if matches!(error, GuestError::Saturated) {
        Kind::Overloaded
    } else {
        Kind::Guest
    };
    Failure::new(kind, format!("the guest `{guest}` failed: {error}")).logged()
}

fn api_failure(error: types::ApiError) -> Failure {
    let kind = match error.kind {
        types::ErrorKind::InvalidRequest => Kind::InvalidRequest,
        types::ErrorKind::Authentication => Kind::Authentication,
        types::ErrorKind::Permission => Kind::Permission,
        types::ErrorKind::NotFound => Kind::UnknownModel,
        types::ErrorKind::RateLimit => Kind::RateLimit,
        types::ErrorKind::ContextLength => Kind::ContextLength,
        types::ErrorKind::Overloaded => Kind::Overloaded,
        types::ErrorKind::Timeout => Kind::Timeout,
        types::ErrorKind::Backend => Kind::Backend,
    };
    let wait = error
        .retry_at
        .map(|at| Duration::from_secs(at.saturating_sub(unix_now()).max(1)));
    Failure {
        kind,
        message: error.message,
        param: error.param,
        code: error.code,
        retry_after: wait,
        detail: None,
    }
}
