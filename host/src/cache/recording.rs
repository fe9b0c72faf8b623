//! An answer as it was given, for all who read it, now and later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::charge::Charge;
use super::events::{Events, Place};
use super::{Cache, Key};
use crate::exchange::Event;
use crate::failure::{Failure, Kind};

/// The longest answer that is recorded, in bytes: as long as one in one piece may be.
const ANSWER_MAX: usize = 64 << 20;

/// What a recording takes beside its deltas, in bytes: about the size of its parts, its end, its key and its entry.
const RECORDING_SIZE: usize = 1 << 10;

/// An answer, as far as it came.
pub(super) struct Recording {
    state: Mutex<State>,
    /// Something was added, or the next reader may get what comes next.
    changed: Notify,
    charge: Charge,
}

#[derive(Default)]
struct State {
    /// Where the answer comes from, or why it did not begin.
    begun: Option<Result<Origin, Failure>>,
    events: Events,
    /// None while a reader gets what comes next, and when nothing more comes.
    tape: Option<Box<Tape>>,
    is_over: bool,
}

/// Where an answer comes from, and where it goes. A reader who needs more than there is takes the tape, gets what comes next
/// for all readers, and puts the tape back.
struct Tape {
    cache: Arc<Cache>,
    key: Key,
    source: Source,
}

enum Source {
    Beginning(BoxFuture<'static, Result<Answer, Failure>>),
    Running(BoxStream<'static, Batch>),
}

/// Where an answer comes from.
#[derive(Clone, Copy)]
pub(crate) struct Origin {
    /// For the log.
    pub(crate) name: &'static str,
    /// How long its request waited for a place and a process.
    pub(crate) waited: Duration,
}

/// An answer that has begun.
pub(crate) struct Answer {
    pub(crate) origin: Origin,
    pub(crate) batches: BoxStream<'static, Batch>,
}

/// Events of an answer that came together, or its end.
pub(crate) struct Batch {
    pub(crate) events: VecDeque<Event>,
    /// It is the end of an answer that may be given again.
    pub(crate) is_reusable: bool,
}

/// Reads a recording from its beginning.
pub(crate) struct Reader {
    recording: Arc<Recording>,
    /// What this reader got for all, and has not read yet.
    ready: VecDeque<Event>,
    /// The place of what is behind `ready`.
    place: Place,
}

/// What a reader finds.
enum Found<'r, T> {
    There(T),
    Turn(Turn<'r>),
}

/// The turn of a reader who has the tape; dropping it puts the tape back. All other readers wait for it, so who has it must
/// go on with it or drop it.
struct Turn<'r> {
    recording: &'r Arc<Recording>,
    tape: Option<Box<Tape>>,
}

impl Recording {
    /// A recording of the answer to a question, for this cache.
    pub(super) fn new(
        cache: Arc<Cache>,
        key: Key,
        begin: BoxFuture<'static, Result<Answer, Failure>>,
    ) -> Self {
        let source = Source::Beginning(begin);
        let state = State {
            tape: Some(Box::new(Tape { cache, key, source })),
            ..State::default()
        };
        Recording {
            state: Mutex::new(state),
            changed: Notify::new(),
            charge: Charge::default(),
        }
    }

    /// How much it takes, in bytes.
    pub(super) fn weight(&self) -> u32 {
        let size = RECORDING_SIZE + self.state.lock().events.size();
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    /// Waits until `look` finds something, or until the tape is free.
    async fn find<T>(self: &Arc<Self>, mut look: impl FnMut(&State) -> Option<T>) -> Found<'_, T> {
        loop {
            // What changes from here on is not missed.
            let changed = self.changed.notified();
            let tape = {
                let mut state = self.state.lock();
                if let Some(there) = look(&state) {
                    return Found::There(there);
                }
                state.tape.take()
            };
            if tape.is_some() {
                let recording = self;
                return Found::Turn(Turn { recording, tape });
            }
            changed.await;
        }
    }
}

impl Turn<'_> {
    /// Waits for the beginning.
    async fn begin(mut self) -> Result<Origin, Failure> {
        let source = self.tape.as_mut().map(|tape| &mut tape.source);
        let begun = match source {
            Some(Source::Beginning(begin)) => begin.await,
            _ => Err(broken_off()),
        };
        let begun = match (begun, &mut self.tape) {
            (Ok(answer), Some(tape)) => {
                tape.source = Source::Running(answer.batches);
                Ok(answer.origin)
            }
            (begun, _) => {
                self.end();
                begun.map(|answer| answer.origin)
            }
        };
        self.recording.state.lock().begun = Some(begun.clone());
        begun
    }

    /// Gets what comes next and adds it. Returns the place behind it, too.
    async fn next(mut self) -> (VecDeque<Event>, Place) {
        let source = self.tape.as_mut().map(|tape| &mut tape.source);
        let batch = match source {
            Some(Source::Running(batches)) => batches.next().await,
            _ => None,
        };
        let broken_off = || Batch {
            events: VecDeque::from([Event::Fail(broken_off())]),
            is_reusable: false,
        };
        let batch = batch.unwrap_or_else(broken_off);
        if batch.is_reusable
            && let Some(tape) = &self.tape
        {
            tape.cache.keep(tape.key, self.recording.clone());
        }
        let is_end = !matches!(batch.events.back(), Some(Event::Delta(_)));
        // Before the end can be read, so that nobody joins who comes after it.
        if is_end {
            self.end();
        }
        let (place, size) = self.push(&batch.events);
        if size > ANSWER_MAX && !is_end {
            self.end();
            let message = format!("the answer is longer than {ANSWER_MAX} bytes");
            self.push(&[Event::Fail(Failure::new(Kind::Backend, message))].into());
        }
        (batch.events, place)
    }

    /// Adds events. Returns the place behind them, and how many bytes there are now.
    fn push(&self, events: &VecDeque<Event>) -> (Place, usize) {
        let state = &mut *self.recording.state.lock();
        events.iter().for_each(|event| state.events.push(event));
        if !matches!(events.back(), Some(Event::Delta(_))) {
            state.events.shrink();
            state.is_over = true;
        }
        (state.events.end(), state.events.size())
    }

    /// Nothing more comes.
    fn end(&mut self) {
        if let Some(tape) = self.tape.take() {
            tape.cache.ended(tape.key, self.recording);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // What has panicked must not go on.
        if thread::panicking() {
            self.end();
            let state = &mut *self.recording.state.lock();
            state.begun.get_or_insert_with(|| Err(broken_off()));
            state.is_over = true;
        }
        self.recording.state.lock().tape = self.tape.take();
        self.recording.changed.notify_waiters();
    }
}

impl Reader {
    pub(super) fn new(recording: Arc<Recording>) -> Self {
        Reader {
            recording,
            ready: VecDeque::new(),
            place: Place::default(),
        }
    }

    /// Who pays for the answer.
    pub(crate) fn charge(&self) -> Charge {
        self.recording.charge.share()
    }

    /// Waits for the beginning: where the answer comes from. Cancelling it loses nothing.
    pub(super) async fn begun(&self) -> Result<Origin, Failure> {
        match self.recording.find(|state| state.begun.clone()).await {
            Found::There(begun) => begun,
            Found::Turn(turn) => turn.begin().await,
        }
    }

    /// What comes next. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Event {
        if let Some(event) = self.ready.pop_front() {
            return event;
        }
        let place = &mut self.place;
        let recorded = |state: &State| {
            let over = || state.is_over.then(|| Event::Fail(broken_off()));
            state.events.next(place).or_else(over)
        };
        match self.recording.find(recorded).await {
            Found::There(event) => event,
            Found::Turn(turn) => {
                let (events, behind) = turn.next().await;
                (self.ready, self.place) = (events, behind);
                self.ready
                    .pop_front()
                    .unwrap_or_else(|| Event::Fail(broken_off()))
            }
        }
    }
}

fn broken_off() -> Failure {
    Failure::new(Kind::Internal, "the answer was broken off").logged()
}
