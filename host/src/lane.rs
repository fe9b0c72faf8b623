//! Threads for requests whose guest is not built in.
//!
//! A guest's call cannot be interrupted before its time is up, and holds its thread meanwhile. Requests
//! of guests that somebody else wrote therefore have a runtime of their own, with few threads that give
//! way to all others: such a guest holds up nobody but others of its kind, and these take turns.

use std::future::Future;

use basics::blocking;
use rustix::process::setpriority_process;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::chain::Choice;
use crate::exchange::Event;
use crate::failure::{Failure, Kind};

/// How many calls of such guests run at once.
const THREADS: usize = 4;

/// How much less of the processor than a thread that serves they get (as by `nice`).
const NICE: i32 = 5;

/// Events that may wait for a client, so that a fast guest does not change threads for each.
const EVENTS_AHEAD: usize = 16;

/// The threads.
pub(crate) struct Lane(Option<Runtime>);

/// A choice that is answered in the lane. Dropping it ends the choice.
pub(crate) struct Apart {
    events: mpsc::Receiver<Event>,
    _task: AbortOnDropHandle<()>,
}

impl Lane {
    pub(crate) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(THREADS)
            .thread_name("foreign-guest")
            .on_thread_start(|| {
                blocking::allow_here();
                // If it may not, it is as important as the others.
                let _ = setpriority_process(None, NICE);
            })
            .enable_all()
            .build()?;
        Ok(Lane(Some(runtime)))
    }

    /// Runs something in the lane, and waits for it. Who stops waiting ends it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let lost = || Failure::new(Kind::Internal, "the guest's thread is gone").logged();
        let Some(runtime) = &self.0 else {
            return Err(lost());
        };
        let task = AbortOnDropHandle::new(runtime.spawn(work));
        task.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Moves a choice into the lane.
    pub(crate) fn take(&self, mut choice: Choice) -> Option<Apart> {
        let (sender, events) = mpsc::channel(EVENTS_AHEAD);
        let task = self.0.as_ref()?.spawn(async move {
            loop {
                let event = choice.next().await;
                let is_last = !matches!(event, Event::Delta(_));
                if sender.send(event).await.is_err() {
                    return;
                }
                if is_last {
                    // The client has its whole answer, so it does not matter how long the guest takes from here
                    // on. Dropping the `Apart` ends this task only at an `await`, and none follows: parking is
                    // always carried out.
                    return choice.park();
                }
            }
        });
        Some(Apart {
            events,
            _task: AbortOnDropHandle::new(task),
        })
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A guest may hold a thread; the end of the process does not wait for it.
            runtime.shutdown_background();
        }
    }
}

impl Apart {
    /// What comes next. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Event {
        let gone = || Failure::new(Kind::Internal, "the exchange is over");
        self.events
            .recv()
            .await
            .unwrap_or_else(|| Event::Fail(gone()))
    }
}
