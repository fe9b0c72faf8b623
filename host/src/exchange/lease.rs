//! A request's hold on a process: taken from the pool, replaced once if an idle process turns out to be dead,
//! and parked if the conversation may go on.

use std::sync::Arc;
use std::time::Duration;

use basics::blocking;
use bytes::Bytes;
use guests::GuestError;
use guests::adapter::AdapterSession;
use guests::completion::{self, Resumption};
use processes::{Output, Process};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::ExchangeRequest;
use super::failures::{guest_failure, no_process};
use super::tenure::{Heard, Proof, Tenure};
use crate::admission::Permit;
use crate::backends::Backend;
use crate::backends::launch::Launch;
use crate::failure::{Failure, Kind};
use crate::pool::{
    Acquired, AwaitingFirstToken, Held, Key, Pool, ProcessOrigin, Refusal, Serving, Sought,
};
use crate::telemetry::names;

/// A request's hold on a process.
pub(super) struct Lease {
    backend: Arc<Backend>,
    pool: Arc<Pool>,
    launch: Arc<Launch>,
    /// What of the launch the adapter chose.
    options: Vec<(String, String)>,
    patience: Duration,
    origin: ProcessOrigin,
    /// How many requests the process has served, this one included.
    served: u32,
    tenure: Tenure<Process>,
    /// What it means if the process does not take back what it is asked to. None if it is not asked.
    refusal: Option<Refusal>,
    _serving: Serving,
    awaiting_first_token: Option<AwaitingFirstToken>,
}

/// What a lease brings next.
pub(super) enum Next {
    Output(Output),
    /// The process did not prove itself, and was replaced. The new one must be told everything.
    Replaced,
}

impl Lease {
    /// Acquires a process. If the process holds the conversation, also says how the session goes on with it.
    pub(super) async fn take(
        request: &ExchangeRequest,
        guest: &mut AdapterSession,
        pool: &Arc<Pool>,
        permit: Permit,
    ) -> Result<(Self, Option<Resumption>), Failure> {
        let broken = |guest: &AdapterSession, error| guest_failure(guest.guest(), &error);
        let options = guest.launch_options();
        let options = options.map_err(|error| broken(guest, error))?;
        let mut launch = launch(request, &options).map_err(|error| broken(guest, error))?;
        let config = &request.backend.config;
        let sought = match pool.parks(&launch) {
            true => {
                let wanted = guest.want(request.size);
                let wanted = wanted.map_err(|error| broken(guest, error))?;
                wanted.map(|wanted| sought(request, wanted))
            }
            false => None,
        };
        let awaiting_first_token = pool.awaiting_first_token();
        let acquired = match pool.take(&launch, sought.as_ref()) {
            Some(acquired) => acquired,
            None => {
                request.backend.tried().await?;
                // A program that was replaced since has another launch.
                launch = self::launch(request, &options).map_err(|error| broken(guest, error))?;
                let started = pool.start(&launch, request.deadline).await;
                Acquired::new(started.map_err(|error| no_process(&request.backend, error))?)
            }
        };
        let Acquired {
            mut process,
            origin,
            resumption,
            served,
            refusal,
        } = acquired;
        tracing::debug!(backend = %config.name, pid = process.id(), ?origin, "a process serves a request");
        metrics::counter!(names::PROCESSES, "origin" => origin.name()).increment(1);
        process.serve(Some(Box::new(permit)));
        let lease = Lease {
            backend: request.backend.clone(),
            pool: pool.clone(),
            options,
            patience: config.admission.queue_timeout,
            origin,
            served: served + 1,
            tenure: match origin {
                ProcessOrigin::New => Tenure::Tried(process),
                ProcessOrigin::Warm => Tenure::Untried(process, Proof::FirstWord),
                ProcessOrigin::Kept | ProcessOrigin::Rewound => {
                    Tenure::Untried(process, Proof::Answer)
                }
            },
            refusal,
            _serving: pool.serving(&launch),
            launch,
            awaiting_first_token: Some(awaiting_first_token),
        };
        Ok((lease, resumption))
    }

    /// Where the process came from.
    pub(super) fn origin(&self) -> &'static str {
        self.origin.name()
    }

    /// The next output of the process. If this future is dropped, no output is lost.
    pub(super) async fn next(&mut self) -> Result<Next, Failure> {
        loop {
            let output = match &mut self.tenure {
                Tenure::Untried(process, _) => process.next_unless_stopped().await,
                Tenure::Tried(process) => process.next().await,
                Tenure::Ended { deadline, .. } => {
                    let deadline = *deadline;
                    return self.replace(deadline).await;
                }
                Tenure::Over => return std::future::pending().await,
            };
            let has_ended = matches!(output, Output::Exited(_));
            match self.tenure.heard(has_ended, self.patience) {
                Heard::EndBeforeProof => {
                    if self.origin == ProcessOrigin::Warm {
                        self.pool.record_failure(&self.launch);
                    }
                    continue;
                }
                Heard::FirstWord => self.pool.record_success(&self.launch),
                Heard::More => {}
            }
            return Ok(Next::Output(output));
        }
    }

    /// Whether no other process takes the place of this one any more.
    pub(super) fn is_settled(&self) -> bool {
        matches!(self.tenure, Tenure::Tried(_) | Tenure::Over)
    }

    /// Whether the process was given up, and its replacement is not there yet.
    pub(super) fn is_replaced(&self) -> bool {
        matches!(self.tenure, Tenure::Ended { .. })
    }

    /// Ends the process, because this request cannot go on in it. False if it is too late for another one.
    pub(super) fn give_up(&mut self) -> bool {
        self.tenure.give_up(self.patience)
    }

    /// The same, because the process does not take back what it was asked to: others like it are not asked again.
    pub(super) fn refuse(&mut self) -> bool {
        let given_up = self.give_up();
        if let (true, Some(refusal)) = (given_up, self.refusal) {
            self.pool.record_refusal(&self.launch, refusal);
        }
        given_up
    }

    /// Whether a session wants a process just like this one.
    pub(super) fn fits(&self, guest: &mut AdapterSession) -> Result<bool, GuestError> {
        Ok(guest.launch_options()? == self.options)
    }

    /// Another piece of what was read already.
    pub(super) fn buffered(&mut self) -> Option<Bytes> {
        self.tenure.process()?.buffered()
    }

    /// Starts a replacement.
    async fn replace(&mut self, deadline: Instant) -> Result<Next, Failure> {
        self.backend.tried().await?;
        let started = self.pool.start(&self.launch, deadline).await;
        let process = started.map_err(|error| no_process(&self.backend, error))?;
        tracing::debug!(
            backend = self.launch.backend,
            pid = process.id(),
            "an idle process was of no use, and was replaced"
        );
        self.tenure.replace(process);
        self.served = 1;
        Ok(Next::Replaced)
    }

    pub(super) fn write(&mut self, line: Vec<u8>) {
        if let Some(process) = self.tenure.process() {
            process.write(line);
        }
    }

    pub(super) fn close_input(&mut self) {
        if let Some(process) = self.tenure.process() {
            process.close_input();
        }
    }

    pub(super) fn stderr_tail(&mut self) -> String {
        let process = self.tenure.process();
        process
            .map(|process| process.stderr_tail())
            .unwrap_or_default()
    }

    /// Takes note that the first token has come: processes may be started ahead again. If this backend was
    /// suspended, the suspension ends.
    pub(super) fn answers(&mut self) {
        if self.tenure.prove() {
            self.pool.record_success(&self.launch);
        }
        if self.awaiting_first_token.take().is_some() && self.pool.is_current(&self.launch) {
            self.pool.resume(&self.launch.backend);
        }
    }

    /// Whether the process is killed when it is dropped, without time to end by itself.
    pub(super) fn is_killed_at_end(&mut self, is_killed: bool) {
        if let Some(process) = self.tenure.process() {
            process.is_killed_at_end(is_killed);
        }
    }

    /// Kills the process without giving it time to end by itself.
    pub(super) fn end_at_once(&mut self) {
        if let Some(process) = self.tenure.process() {
            process.end_at_once();
        }
    }

    /// Takes note that the request failed. If the login is the reason, the backend's idle processes end.
    pub(super) fn failed(&mut self, kind: Kind) {
        self.awaiting_first_token = None;
        if kind == Kind::Authentication && self.pool.is_current(&self.launch) {
            self.pool.suspend(&self.launch.backend);
        }
    }

    /// Whether processes like this one are parked.
    pub(super) fn may_park(&self) -> bool {
        self.pool.may_park(&self.launch)
    }

    /// Parks the process if the adapter says that the conversation can go on in it. `size` is the number of
    /// bytes of the request and its answer.
    pub(super) fn park(
        &mut self,
        guest: &mut AdapterSession,
        size: usize,
        request: &ExchangeRequest,
    ) {
        self.awaiting_first_token = None;
        if !self.may_park() {
            return;
        }
        let held = match guest.hold(size) {
            Ok(Some(held)) => held,
            Ok(None) => return,
            // The client has its answer all the same.
            Err(error) => {
                return tracing::warn!(%error, "the guest did not say what a process holds");
            }
        };
        let turns = held.turns.into_iter();
        let held = Held {
            owner: owner(request, &held.opening),
            turns: turns.map(|turn| (digest(&turn.key), turn.rewind)).collect(),
            awaited: held.awaited,
            memo: held.memo,
            served: self.served,
        };
        if let Some((process, hold)) = self.tenure.release(Process::is_sound) {
            self.pool.park(self.launch.clone(), process, held);
            // `hold` is the request's permit. It is dropped only after the process is parked, so that the next
            // request finds the process.
            drop(hold);
        }
    }
}

/// How the process for this request is started.
fn launch(
    request: &ExchangeRequest,
    options: &[(String, String)],
) -> Result<Arc<Launch>, GuestError> {
    let launch = request.backend.launch(&request.model, options);
    launch.map_err(|error| GuestError::Contract(error.to_string()))
}

/// What a process must hold to go on with a request.
fn sought(request: &ExchangeRequest, wanted: completion::Wanted) -> Sought {
    Sought {
        owner: owner(request, &wanted.opening),
        turns: wanted.turns.iter().map(digest).collect(),
        results: wanted.results,
    }
}

/// Who may go on with a process: the same caller, through the same guests with the same configurations, in a
/// conversation that begins with the same opening.
fn owner(request: &ExchangeRequest, opening: &completion::Key) -> Key {
    let mut digest = Sha256::new();
    digest.update((request.chain.len() as u64).to_le_bytes());
    digest.update(&*request.chain);
    digest.update([u8::from(request.caller.is_some())]);
    digest.update(request.caller.unwrap_or_default());
    blocking::run_on(opening.len(), || digest.update(opening));
    digest.finalize().into()
}

fn digest(key: &completion::Key) -> Key {
    blocking::run_on(key.len(), || Sha256::digest(key).into())
}
