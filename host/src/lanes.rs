//! Threads for requests whose guest is not built in.
//!
//! A guest's call cannot be interrupted before its time is up, and holds its thread meanwhile. Requests
//! of guests that somebody else wrote therefore have runtimes of their own, with few threads that give
//! way to all others: such a guest holds up nobody but others of its kind, and these take turns. One that
//! lately broke a bound goes on where it gets next to nothing of a busy processor.

use std::collections::VecDeque;
use std::future::Future;

use basics::{blocking, priority};
use futures_util::FutureExt;
use guests::admit::Standing;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::chain::Choice;
use crate::exchange::Event;
use crate::failure::{Failure, Kind};

/// How many calls of guests from files run at once.
const THREADS: usize = 4;

/// How many calls of suspect guests run at once. A thread that gets little of the processor may hold a lock, of the
/// allocator's or of the kernel's, for which those wait that serve. With four, a hundredth of the deltas of others came
/// 4 ms late, with two hardly any more than beside guests that only fail. One that spins leaves a thread for others.
const THREADS_OF_SUSPECTS: usize = 2;

/// How much less of the processor than a thread that serves the guests from files get (as by `nice`). On a busy
/// machine a call still has its turn after some milliseconds.
const NICE: i32 = 5;

/// The same for guests that are suspect: the most that there is, a seventieth of what a thread that serves gets.
const NICE_OF_SUSPECTS: i32 = 19;

/// Events that may wait for a client, so that a fast guest does not change threads for each.
const EVENTS_AHEAD: usize = 16;

/// The threads, for each standing of a guest.
pub(crate) struct Lanes {
    from_files: Lane,
    suspects: Lane,
}

/// Some threads. None when the service ends.
struct Lane(Option<Runtime>);

/// A choice that is answered in a lane. Dropping it ends the choice.
pub(crate) struct Apart {
    events: mpsc::Receiver<Event>,
    _task: AbortOnDropHandle<()>,
}

impl Lanes {
    pub(crate) fn start() -> std::io::Result<Self> {
        Ok(Lanes {
            from_files: Lane::start("foreign-guest", THREADS, NICE)?,
            suspects: Lane::start("suspect-guest", THREADS_OF_SUSPECTS, NICE_OF_SUSPECTS)?,
        })
    }

    /// Runs something where guests of this standing may run, and waits for it. Who stops waiting ends it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        standing: Standing,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let Some(lane) = self.lane(standing) else {
            return work.await;
        };
        let lost = || Failure::new(Kind::Internal, "the guest's thread is gone").logged();
        let Some(runtime) = &lane.0 else {
            return Err(lost());
        };
        let task = AbortOnDropHandle::new(runtime.spawn(work));
        task.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Moves a choice into the lane for this standing, or gives it back if it may be answered where it is.
    pub(crate) fn take(&self, standing: Standing, choice: Choice) -> Result<Apart, Box<Choice>> {
        match self.lane(standing) {
            Some(Lane(Some(runtime))) => Ok(Apart::start(runtime, choice)),
            Some(Lane(None)) | None => Err(Box::new(choice)),
        }
    }

    /// None for guests that may run anywhere.
    fn lane(&self, standing: Standing) -> Option<&Lane> {
        match standing {
            Standing::BuiltIn => None,
            Standing::FromFile => Some(&self.from_files),
            Standing::Suspect => Some(&self.suspects),
        }
    }
}

impl Lane {
    fn start(name: &str, threads: usize, nice: i32) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .max_blocking_threads(threads)
            .thread_name(name)
            .on_thread_start(move || {
                blocking::allow_here();
                priority::give_way(nice);
            })
            .enable_all()
            .build()?;
        Ok(Lane(Some(runtime)))
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
    fn start(runtime: &Runtime, mut choice: Choice) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_AHEAD);
        let task = runtime.spawn(async move {
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
        Apart {
            events,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// All that has come already.
    pub(crate) fn ready(&mut self) -> VecDeque<Event> {
        // Not `try_recv`: while the other thread is putting something in, that blocks this one.
        let next = || self.events.recv().now_or_never().flatten();
        std::iter::from_fn(next).take(EVENTS_AHEAD).collect()
    }

    /// What comes next. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Event {
        let gone = || Failure::new(Kind::Internal, "the exchange is over");
        self.events
            .recv()
            .await
            .unwrap_or_else(|| Event::Fail(gone()))
    }
}
