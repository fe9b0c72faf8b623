//! One request on one process: the only place where guests and processes meet.
//!
//! ```text
//! process ──lines──► guest ──effects──► writes, checked by the guard ──► process
//!                                  └──► deltas, and one end ──► the caller
//! ```
//!
//! Whoever holds an [`Exchange`] holds everything that the request owns; dropping it ends the
//! process and frees the request's place at the backend (its permit).

mod afterlife;
mod failures;
mod lease;
mod opening;
pub(crate) mod question;
mod tenure;
mod text;
mod timeouts;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basics::{blocking, plain};
use bytes::Bytes;
use guests::adapter::AdapterSession;
use guests::completion::{Delta, Effect, FinishReason, Outcome, Usage};
use guests::{Effects, GuestError};
use processes::{Framing, Output};
use tokio::time::Instant;

use crate::admission::{Caller, Permit};
use crate::backends::Backend;
use crate::backends::status::{Health, Reporter};
use crate::failure::{Failure, Kind};
use crate::pool::Pool;
pub(crate) use failures::{api_failure, guest_failure, no_process, not_opened};
use lease::{Lease, Next};
pub(crate) use opening::{Opened, Opening};
use text::TextPieces;
use timeouts::Timeouts;

/// The bytes that an adapter may write in addition to four times the size of the request. They are for the
/// frame of its messages. The factor is four because the adapter may escape characters that the client did not
/// escape.
const WRITE_ALLOWANCE: usize = 256 << 10;

/// How much is handed to the adapter in one call: at most so many lines, and no further line once the call
/// has so many bytes. A call with many more bytes would get the longer time limit of a call that handles a
/// whole request.
const BATCH_LINES_MAX: usize = 256;
const BATCH_SIZE_MAX: usize = 32 << 10;

/// How long a process may take to take back turns. It takes 1 to 50 ms.
const REWIND_TIMEOUT: Duration = Duration::from_secs(5);

/// After a step that takes longer than this, the exchange lets the other tasks of its thread run.
const SLOW_STEP: Duration = Duration::from_millis(1);

/// What an exchange needs to know of its request, other than the text.
#[derive(Clone)]
pub(crate) struct ExchangeRequest {
    pub(crate) backend: Arc<Backend>,
    /// What the backend calls the model.
    pub(crate) model: String,
    /// Bytes of the request.
    pub(crate) size: usize,
    /// Who calls. Only the same caller may go on with the conversation.
    pub(crate) caller: Caller,
    /// When it stops waiting for a process.
    pub(crate) deadline: Instant,
    /// Names the guests and their configurations. Only the same chain may go on with the conversation.
    pub(crate) chain: Arc<str>,
}

/// A request being answered.
pub(crate) struct Exchange {
    request: ExchangeRequest,
    guest: AdapterSession,
    /// Opens another session, as long as the process may be replaced.
    opening: Option<Opening>,
    lease: Lease,
    /// What takes back the turns that are not kept, as the guest wrote it down itself.
    rewinds: Vec<String>,
    /// Whether turns are still to be taken back, and by when.
    rewinding: Rewinding,
    timeouts: Timeouts,
    pieces: TextPieces,
    events: VecDeque<Event>,
    write_budget: usize,
    /// Bytes of the answer so far.
    answered: usize,
    answering: bool,
    /// Function calls that have begun.
    calls: u32,
    over: bool,
    /// What of its process another request may use.
    afterlife: Afterlife,
    /// What the adapter says of the tokens so far.
    usage_so_far: Option<Usage>,
}

/// What becomes of the process after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Afterlife {
    /// It is of no use, or the answer has not ended.
    None,
    /// It is still at it, and is brought to rest.
    ToRest,
    /// It is at rest.
    AtRest,
}

/// Whether turns are to be taken back before the answer can begin.
#[derive(Clone, Copy)]
enum Rewinding {
    /// There is nothing to take back, or it is done.
    No,
    /// The guest has asked for it, and nothing was written yet.
    Asked,
    /// It must be done by then.
    Until(Instant),
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The next piece of the answer.
    Delta(Delta),
    /// The answer is complete; nothing comes after this.
    Finish(Outcome),
    /// It failed; nothing comes after this.
    Fail(Failure),
}

impl Event {
    /// How many bytes of text it has.
    pub(crate) fn size(&self) -> usize {
        match self {
            Event::Delta(delta) => delta.size(),
            Event::Finish(_) | Event::Fail(_) => 0,
        }
    }
}

impl Exchange {
    /// Gets a process for an exchange that the adapter opened, and writes the adapter's first lines to it.
    pub(crate) async fn begin(
        request: ExchangeRequest,
        opened: Opened,
        pool: &Arc<Pool>,
        permit: Permit,
    ) -> Result<Self, Failure> {
        let Opened {
            session: mut guest,
            opening,
        } = opened;
        let (lease, resumption) = Lease::take(&request, &mut guest, pool, permit).await?;
        let mut exchange = Exchange {
            timeouts: Timeouts::new(request.backend.config.timeouts),
            write_budget: write_budget(request.size),
            pieces: TextPieces::default(),
            request,
            guest,
            opening: (!lease.is_settled()).then_some(opening),
            lease,
            rewinds: Vec::new(),
            rewinding: Rewinding::No,
            events: VecDeque::new(),
            answered: 0,
            answering: false,
            calls: 0,
            over: false,
            afterlife: Afterlife::None,
            usage_so_far: None,
        };
        let size = exchange.request.size;
        let Some(resumption) = resumption else {
            let effects = exchange.guest.start(size);
            exchange.apply(effects);
            return Ok(exchange);
        };
        let effects = exchange.guest.resume(&resumption, size);
        exchange.rewinds = resumption.rewinds;
        exchange.apply(effects);
        if !exchange.rewinds.is_empty() {
            exchange.rewinding = Rewinding::Asked;
        }
        Ok(exchange)
    }

    /// What comes next, if it has come already.
    pub(crate) fn ready(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// All that has come already.
    pub(crate) fn take_ready(&mut self) -> VecDeque<Event> {
        std::mem::take(&mut self.events)
    }

    /// What the adapter says of the tokens so far.
    pub(crate) fn usage_so_far(&self) -> Option<Usage> {
        self.usage_so_far
    }

    /// Where its process came from.
    pub(crate) fn origin(&self) -> &'static str {
        self.lease.origin()
    }

    /// What comes next. After an end there is nothing more to ask for.
    pub(crate) async fn next(&mut self) -> Event {
        self.timeouts.run();
        if let Rewinding::Asked = self.rewinding {
            // What was written goes out only from here on.
            self.rewinding = Rewinding::Until(Instant::now() + REWIND_TIMEOUT);
        }
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.over {
                return Event::Fail(Failure::new(Kind::Internal, "the exchange is over"));
            }
            // A backend that never pauses must starve neither its timeouts nor the other tasks.
            tokio::task::consume_budget().await;
            let limit = self.timeouts.next(self.answering);
            if Instant::now() >= limit.at {
                let stderr = self.lease.stderr_tail();
                self.fail(limit.failure(stderr));
                continue;
            }
            let rewound_by = match self.rewinding {
                Rewinding::Until(at) => at,
                Rewinding::No | Rewinding::Asked => limit.at,
            };
            tokio::select! {
                biased;
                next = self.lease.next() => {
                    let begun = Instant::now();
                    match next {
                        Ok(Next::Output(output)) => {
                            self.handle(output);
                            if self.lease.is_settled() {
                                self.opening = None;
                            }
                        }
                        Ok(Next::Replaced) => self.start_again(),
                        Err(failure) => self.fail(failure),
                    }
                    if begun.elapsed() > SLOW_STEP {
                        // Others have waited for this thread.
                        tokio::task::yield_now().await;
                    }
                }
                () = tokio::time::sleep_until(limit.at.min(rewound_by)) => {
                    if rewound_by < limit.at {
                        self.rewinding = Rewinding::No;
                        tracing::debug!("a process did not take back what it was asked to in time");
                        self.lease.give_up();
                    }
                }
            }
        }
    }

    /// Another process took the place of one that was of no use.
    fn start_again(&mut self) {
        let Some(opening) = self.opening.take() else {
            let lost = Failure::new(Kind::Internal, "the request is not kept any more");
            return self.fail(lost.logged());
        };
        self.guest = match opening.open() {
            Ok(session) => session,
            Err(failure) => return self.fail(failure),
        };
        self.write_budget = write_budget(self.request.size);
        self.usage_so_far = None;
        self.pieces = TextPieces::default();
        self.timeouts.restart();
        let effects = match self.lease.fits(&mut self.guest) {
            Ok(true) => self.guest.start(self.request.size),
            Ok(false) => {
                let what = "it wants other launch options for the same request";
                Err(GuestError::Contract(what.into()))
            }
            Err(error) => Err(error),
        };
        self.apply(effects);
    }

    fn handle(&mut self, output: Output) {
        let effects = match output {
            Output::Piece(piece) => {
                self.timeouts.heard();
                let pieces = self.with_buffered(piece);
                let lines: Vec<_> = pieces
                    .iter()
                    .map(|piece| String::from_utf8_lossy(piece))
                    .collect();
                let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
                // Until the answer begins, a line may make the guest write the whole conversation, so the
                // limits of the call leave room for that. Afterwards nothing of the conversation is left to write.
                let to_write = if self.answering { 0 } else { self.request.size };
                self.guest.output(&lines, to_write)
            }
            Output::TooLong => {
                let limit = self.request.backend.config.launch.max_line;
                let message =
                    format!("the backend printed a line of more than {limit} bytes (`max_line`)");
                return self.fail(Failure::new(Kind::Backend, message).logged());
            }
            Output::Exited(status) => {
                let stderr = self.lease.stderr_tail();
                let effects = self.guest.exit(status, &stderr);
                self.apply(effects);
                if !self.over {
                    let what =
                        "it did not end the exchange although the backend's process had ended";
                    self.fail_guest(&GuestError::Contract(what.into()));
                }
                return;
            }
        };
        self.apply(effects);
    }

    /// A piece of output, and the pieces that came with it.
    fn with_buffered(&mut self, first: Bytes) -> Vec<Bytes> {
        if self.request.backend.config.launch.framing == Framing::Bytes {
            return vec![self.pieces.take(first)];
        }
        let mut size = first.len();
        let mut pieces = vec![first];
        while pieces.len() < BATCH_LINES_MAX
            && size < BATCH_SIZE_MAX
            && let Some(piece) = self.lease.buffered()
        {
            size += piece.len();
            pieces.push(piece);
        }
        pieces
    }

    /// Carries out what the guest wants, in its order, or fails the request.
    fn apply(&mut self, effects: Result<Effects, GuestError>) {
        let carried_out =
            effects.and_then(|mut effects| effects.try_for_each(|effect| self.carry_out(effect?)));
        if let Err(error) = carried_out {
            self.fail_guest(&error);
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), GuestError> {
        if self.over {
            return Err(GuestError::Contract("an effect came after the end".into()));
        }
        if self.lease.is_replaced() {
            let what = "an effect came after it had given up the process";
            return Err(GuestError::Contract(what.into()));
        }
        let backend = &self.request.backend;
        match effect {
            Effect::Write(text) => {
                let left = self.write_budget.checked_sub(text.len());
                self.write_budget = left.ok_or_else(|| {
                    GuestError::Write(
                        "more than four times the size of the request plus 256 KiB".into(),
                    )
                })?;
                let line = blocking::run_on(text.len(), || backend.seal(text, &self.rewinds))
                    .map_err(|refusal| GuestError::Write(refusal.to_string()))?;
                if let Rewinding::Until(_) = self.rewinding {
                    self.rewinding = Rewinding::No;
                }
                self.lease.write(line);
            }
            Effect::CloseInput => self.lease.close_input(),
            Effect::Emit(delta) => {
                self.check_delta(&delta)?;
                self.answering = true;
                self.answered += delta.size();
                self.lease.answers();
                self.events.push_back(Event::Delta(delta));
            }
            Effect::Counted(usage) => self.usage_so_far = Some(usage),
            Effect::Report(report) => {
                let model = &*self.request.model;
                backend.status.observe(report, Reporter::Request { model });
            }
            Effect::Finish(outcome) => self.finish(outcome),
            Effect::Unfit(why) => self.give_up(&why)?,
            Effect::Fail(error) => {
                let mut failure = api_failure(error);
                if failure.kind == Kind::Authentication
                    && backend.status.health() == Health::LoginUnused
                {
                    failure.message = backend.message_with_remedy(&Health::LoginUnused);
                } else if failure.kind == Kind::Authentication {
                    let login = backend.login_line();
                    failure.message = failure
                        .message
                        .replace("`claude auth login`", &format!("`{login}`"));
                }
                if failure.kind == Kind::Backend {
                    failure = failure.with_stderr(self.lease.stderr_tail());
                }
                self.fail(failure);
            }
        }
        Ok(())
    }

    /// The request goes on in a fresh process, as far as nothing of it was answered.
    fn give_up(&mut self, why: &str) -> Result<(), GuestError> {
        let given_up = match self.rewinding {
            Rewinding::No => self.lease.give_up(),
            Rewinding::Asked | Rewinding::Until(_) => self.lease.refuse(),
        };
        self.rewinding = Rewinding::No;
        if !given_up {
            let what = "it gave up a process that had begun to answer, or that was started for it";
            return Err(GuestError::Contract(what.into()));
        }
        let why = plain::line(why, 200);
        tracing::debug!(guest = %self.guest.guest().name, "an idle process was of no use: {why}");
        Ok(())
    }

    fn finish(&mut self, outcome: Outcome) {
        self.over = true;
        self.guest.guest().served();
        self.request.backend.status.answered();
        self.afterlife = match outcome.finish_reason {
            FinishReason::Length | FinishReason::ContentFilter => {
                // Told to end, it might ask its API again.
                self.lease.is_killed_at_end(true);
                Afterlife::ToRest
            }
            FinishReason::Stop | FinishReason::ToolCalls => Afterlife::AtRest,
        };
        self.events.push_back(Event::Finish(outcome));
    }

    /// Checks what clients rely on: calls are numbered in order, and each begins with an id and a name.
    fn check_delta(&mut self, delta: &Delta) -> Result<(), GuestError> {
        let wrong = match delta {
            Delta::ToolCall(call) if call.index > self.calls => {
                format!("call {} came before call {}", call.index, self.calls)
            }
            Delta::ToolCall(call) if call.index == self.calls => {
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

    fn fail_guest(&mut self, error: &GuestError) {
        let failure = guest_failure(self.guest.guest(), error);
        self.fail(failure);
    }

    /// Ends the exchange with this failure. Deltas that the caller has not taken yet are still delivered before
    /// it.
    fn fail(&mut self, failure: Failure) {
        self.over = true;
        self.lease.failed(failure.kind);
        self.request.backend.status.failed(failure.kind);
        self.events.retain(|event| matches!(event, Event::Delta(_)));
        self.events.push_back(Event::Fail(failure));
    }
}

fn write_budget(request_size: usize) -> usize {
    request_size
        .saturating_mul(4)
        .saturating_add(WRITE_ALLOWANCE)
}
