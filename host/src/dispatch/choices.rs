//! The answers to one request: all choices at once.

use std::collections::VecDeque;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, SelectAll};
use guests::completion::Usage;

use crate::cache::Reader;
use crate::chain::Choice;
use crate::exchange::Event;
use crate::lanes::Apart;

/// A choice, wherever it is answered.
pub(crate) enum Source {
    /// In the request's own task, because its guests are built in.
    Here(Box<Choice>),
    /// In a lane (low-priority threads for guests from files), because one of its guests is from a file.
    Apart(Apart),
    /// In a recording, which others may read, too.
    Recorded(Reader),
}

impl Source {
    /// What comes next. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Event {
        match self {
            Source::Here(choice) => choice.next().await,
            Source::Apart(choice) => choice.next().await,
            Source::Recorded(reader) => reader.next().await,
        }
    }

    /// What came together with the event before. Nothing of a recording, which is read one by one.
    pub(super) fn ready(&mut self) -> VecDeque<Event> {
        match self {
            Source::Here(choice) => choice.ready(),
            Source::Apart(choice) => choice.ready(),
            Source::Recorded(_) => VecDeque::new(),
        }
    }

    /// Parks the process of a finished choice, so that it may serve the next turn. Those in a lane and those
    /// that are recorded park theirs by themselves.
    pub(super) fn park(self) {
        if let Source::Here(choice) = self {
            choice.park();
        }
    }

    /// All events of choice `index`.
    fn events(self, index: usize) -> BoxStream<'static, (usize, Event)> {
        let events = stream::unfold(Some(self), move |source| async move {
            let mut source = source?;
            let event = source.next().await;
            let next = match event {
                Event::Delta(_) => Some(source),
                Event::Finish(_) => {
                    source.park();
                    None
                }
                Event::Fail(_) => None,
            };
            Some(((index, event), next))
        });
        events.boxed()
    }
}

/// The choices of one answer, each under its index.
pub(crate) struct Choices {
    running: Running,
    /// Which choices are finished.
    finished: Vec<bool>,
    usage: Option<Usage>,
}

/// The choices that are not finished.
enum Running {
    /// The usual case: a single choice, so no streams have to be merged.
    One(Option<Source>),
    /// Several, which are polled in turn.
    Many(SelectAll<BoxStream<'static, (usize, Event)>>),
}

impl Choices {
    pub(crate) fn new(mut choices: Vec<Source>) -> Self {
        let finished = vec![false; choices.len()];
        let running = match choices.len() {
            0 | 1 => Running::One(choices.pop()),
            _ => {
                let each = choices.into_iter().enumerate();
                let events = each.map(|(index, source)| source.events(index));
                Running::Many(stream::select_all(events))
            }
        };
        Choices {
            running,
            finished,
            usage: None,
        }
    }

    /// How many choices there are.
    pub(crate) fn len(&self) -> usize {
        self.finished.len()
    }

    /// The first choice that is not finished.
    pub(crate) fn running(&self) -> usize {
        let mut finished = self.finished.iter();
        finished.position(|finished| !finished).unwrap_or(0)
    }

    /// What comes next, and from which choice. None when all are finished. If one choice fails, all of
    /// them end, and this returns None from then on.
    pub(crate) async fn next(&mut self) -> Option<(usize, Event)> {
        let (index, event) = match &mut self.running {
            Running::One(only) => {
                let event = only.as_mut()?.next().await;
                if let Event::Finish(_) = event
                    && let Some(source) = only.take()
                {
                    source.park();
                }
                (0, event)
            }
            Running::Many(events) => events.next().await?,
        };
        match &event {
            Event::Delta(_) => {}
            Event::Finish(outcome) => {
                self.finished[index] = true;
                self.usage = match (self.usage, outcome.usage) {
                    (Some(sum), Some(more)) => Some(sum.plus(more)),
                    (sum, more) => sum.or(more),
                };
            }
            Event::Fail(_) => self.running = Running::One(None),
        }
        Some((index, event))
    }

    /// What the finished choices took together.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }
}
