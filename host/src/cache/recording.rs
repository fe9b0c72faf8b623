//! An answer as it was given, for all who read it, now and later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Running;
use crate::exchange::Event;
use crate::failure::{Failure, Kind};

/// How far an answer is recorded ahead of its fastest reader, in bytes.
const AHEAD_MAX: usize = 1 << 20;

/// What an event takes beside its text, in bytes: about the size of its type, of an allocation, and of the room that a
/// vector keeps free.
const EVENT_SIZE: usize = 256;

/// An answer, as far as it came.
#[derive(Default)]
pub(super) struct Recording {
    state: Mutex<State>,
    /// Something was added.
    written: Notify,
    /// How many bytes the fastest reader has read.
    read: AtomicUsize,
    /// The writer waits for readers.
    is_waiting: AtomicBool,
    /// The fastest reader has read more, while the writer waits.
    read_more: Notify,
    charge: Charge,
}

/// Who pays for an answer that several get: the first of them who has all of it, or else the last who leaves.
#[derive(Default)]
pub(crate) struct Charge(Arc<Bill>);

#[derive(Default)]
struct Bill {
    is_paid: AtomicBool,
    /// How many get the answer.
    payers: AtomicUsize,
}

impl Charge {
    /// The charge of one more who gets the answer.
    fn share(&self) -> Charge {
        self.0.payers.fetch_add(1, Ordering::SeqCst);
        Charge(self.0.clone())
    }

    /// Takes note that this one leaves. Whether nobody is left who may pay.
    pub(crate) fn leave(&self) -> bool {
        self.0.payers.fetch_sub(1, Ordering::SeqCst) == 1
    }

    /// Whether nobody has paid yet. Who asks, pays.
    pub(crate) fn take(&self) -> bool {
        !self.0.is_paid.swap(true, Ordering::SeqCst)
    }
}

#[derive(Default)]
struct State {
    /// Where the answer comes from, or why it did not begin.
    begun: Option<Result<&'static str, Failure>>,
    events: Vec<Event>,
    size: usize,
    /// The last event was the end.
    is_over: bool,
}

/// Writes a recording. If it is dropped before the end, the answer has failed.
pub(super) struct Writer<'r>(&'r Recording);

/// Reads a recording from its beginning.
pub(crate) struct Reader {
    recording: Arc<Recording>,
    /// Events that were taken out of the recording together, because each look at it costs a lock.
    ready: VecDeque<Event>,
    /// Keeps the recording going.
    _running: Option<Arc<Running>>,
    next: usize,
    bytes: usize,
}

impl Recording {
    /// How much it takes, in bytes.
    pub(super) fn weight(&self) -> u32 {
        let state = self.state.lock();
        u32::try_from(state.size).unwrap_or(u32::MAX)
    }
}

impl<'r> Writer<'r> {
    pub(super) fn of(recording: &'r Recording) -> Self {
        Writer(recording)
    }

    /// Says where the answer comes from, or why it does not begin.
    pub(super) fn begin(&self, begun: Result<&'static str, Failure>) {
        self.0.state.lock().begun.get_or_insert(begun);
        self.0.written.notify_waiters();
    }

    /// Adds what comes next, and returns how many bytes there are now. Behind the end nothing is added.
    pub(super) fn push(&self, event: Event) -> usize {
        let mut state = self.0.state.lock();
        if state.is_over {
            return state.size;
        }
        state.size += size(&event);
        state.is_over = !matches!(event, Event::Delta(_));
        state.events.push(event);
        let size = state.size;
        drop(state);
        self.0.written.notify_waiters();
        size
    }

    /// Waits while the answer, of so many bytes, is too far ahead of all readers.
    pub(super) async fn wait_for_readers(&self, size: usize) {
        let is_near = || size <= self.0.read.load(Ordering::SeqCst) + AHEAD_MAX;
        while !is_near() {
            let more = self.0.read_more.notified();
            self.0.is_waiting.store(true, Ordering::SeqCst);
            // Between the look and the mark, somebody may have read.
            if !is_near() {
                more.await;
            }
        }
        self.0.is_waiting.store(false, Ordering::Relaxed);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        let broken_off = || Failure::new(Kind::Internal, "the answer was broken off").logged();
        if self.0.state.lock().begun.is_none() {
            self.begin(Err(broken_off()));
        }
        if !self.0.state.lock().is_over {
            self.push(Event::Fail(broken_off()));
        }
    }
}

impl Reader {
    pub(super) fn new(recording: Arc<Recording>, running: Option<Arc<Running>>) -> Self {
        Reader {
            recording,
            ready: VecDeque::new(),
            _running: running,
            next: 0,
            bytes: 0,
        }
    }

    /// Who pays for the answer.
    pub(crate) fn charge(&self) -> Charge {
        self.recording.charge.share()
    }

    /// Waits for the beginning: where the answer comes from.
    pub(super) async fn begun(&mut self) -> Result<&'static str, Failure> {
        loop {
            let written = self.recording.written.notified();
            if let Some(begun) = &self.recording.state.lock().begun {
                return begun.clone();
            }
            written.await;
        }
    }

    /// What comes next. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.note(&event);
                return event;
            }
            if self.fill() {
                continue;
            }
            let recording = self.recording.clone();
            let written = recording.written.notified();
            // Something may have been added since the look.
            if !self.fill() {
                written.await;
            }
        }
    }

    /// Takes what there is. False if nothing new is there.
    fn fill(&mut self) -> bool {
        let state = self.recording.state.lock();
        let new = state.events.get(self.next..).unwrap_or_default();
        self.ready.extend(new.iter().cloned());
        self.next += new.len();
        if self.ready.is_empty() && state.is_over {
            let failure = Failure::new(Kind::Internal, "the exchange is over");
            self.ready.push_back(Event::Fail(failure));
        }
        !self.ready.is_empty()
    }

    /// Tells the writer how far this reader has come, if it is the fastest.
    fn note(&mut self, event: &Event) {
        self.bytes += size(event);
        let before = self.recording.read.fetch_max(self.bytes, Ordering::SeqCst);
        if self.bytes > before && self.recording.is_waiting.load(Ordering::SeqCst) {
            self.recording.read_more.notify_one();
        }
    }
}

/// What an event takes in memory, in bytes.
fn size(event: &Event) -> usize {
    EVENT_SIZE
        + match event {
            Event::Delta(delta) => delta.size(),
            Event::Finish(_) | Event::Fail(_) => 0,
        }
}

#[cfg(test)]
mod tests {
    use guests::completion::Delta;

    use super::*;

    fn text(length: usize) -> Event {
        Event::Delta(Delta::Content("x".repeat(length)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_for_its_fastest_reader() {
        let recording = Arc::new(Recording::default());
        let writer = Writer::of(&recording);
        let size = writer.push(text(AHEAD_MAX - EVENT_SIZE));
        assert_eq!(size, AHEAD_MAX);
        writer.wait_for_readers(size).await;
        let size = writer.push(text(1));
        let wait = std::time::Duration::from_secs(1);
        let waited = tokio::time::timeout(wait, writer.wait_for_readers(size)).await;
        assert!(waited.is_err());
        let mut fast = Reader::new(recording.clone(), None);
        let _slow = Reader::new(recording.clone(), None);
        fast.next().await;
        writer.wait_for_readers(size).await;
    }

    #[test]
    fn one_of_those_who_share_an_answer_pays() {
        let charge = Charge::default();
        let (one, other) = (charge.share(), charge.share());
        assert!(!one.leave() && other.leave());
        assert!(other.take() && !charge.share().take());
    }

    #[tokio::test]
    async fn an_answer_whose_writer_is_gone_has_failed() {
        let recording = Arc::new(Recording::default());
        let mut reader = Reader::new(recording.clone(), None);
        let writer = Writer::of(&recording);
        writer.begin(Ok("new"));
        writer.push(text(1));
        drop(writer);
        assert_eq!(reader.begun().await.ok(), Some("new"));
        assert!(matches!(reader.next().await, Event::Delta(_)));
        assert!(matches!(reader.next().await, Event::Fail(_)));
        drop(Writer::of(&Recording::default()));
    }
}
