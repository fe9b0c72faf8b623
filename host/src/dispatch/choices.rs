//! The answers to one request: one exchange for each choice, all at once.

use std::future::poll_fn;
use std::task::Poll;

use guests::completion::Usage;

use crate::exchange::{Event, Exchange};
use crate::lane::Apart;

/// An exchange, wherever it runs.
pub(crate) enum Source {
    /// In the task of the request, whose guest is built in.
    Here(Box<Exchange>),
    /// Where guests of others run.
    Apart(Apart),
}

impl Source {
    async fn next(&mut self) -> Event {
        match self {
            Source::Here(exchange) => exchange.next().await,
            Source::Apart(exchange) => exchange.next().await,
        }
    }
}

/// Exchanges that answer one request, each under its index.
pub(crate) struct Choices {
    exchanges: Vec<Option<Source>>,
    /// The one that is looked at first, so that none starves another.
    turn: usize,
    usage: Option<Usage>,
}

impl Choices {
    pub(crate) fn new(exchanges: Vec<Source>) -> Self {
        Choices {
            exchanges: exchanges.into_iter().map(Some).collect(),
            turn: 0,
            usage: None,
        }
    }

    /// How many choices there are.
    pub(crate) fn len(&self) -> usize {
        self.exchanges.len()
    }

    /// The first choice that is not finished.
    pub(crate) fn running(&self) -> usize {
        self.exchanges.iter().position(Option::is_some).unwrap_or(0)
    }

    /// What comes next, and from which choice. None when all are finished. A choice that failed
    /// ends all of them: nothing is left to ask for then.
    pub(crate) async fn next(&mut self) -> Option<(usize, Event)> {
        if let [Some(only)] = self.exchanges.as_mut_slice() {
            let event = only.next().await;
            self.note(0, &event);
            return Some((0, event));
        }
        let count = self.exchanges.len();
        let turn = self.turn;
        let mut waiting: Vec<_> = self
            .exchanges
            .iter_mut()
            .enumerate()
            .filter_map(|(i, exchange)| Some((i, Box::pin(exchange.as_mut()?.next()))))
            .collect();
        if waiting.is_empty() {
            return None;
        }
        waiting.sort_by_key(|(i, _)| (i + count - turn) % count);
        let first = poll_fn(|context| {
            for (i, next) in &mut waiting {
                if let Poll::Ready(event) = next.as_mut().poll(context) {
                    return Poll::Ready((*i, event));
                }
            }
            Poll::Pending
        });
        let (i, event) = first.await;
        drop(waiting);
        self.turn = (i + 1) % count;
        self.note(i, &event);
        Some((i, event))
    }

    fn note(&mut self, i: usize, event: &Event) {
        match event {
            Event::Delta(_) => {}
            Event::Finish(outcome) => {
                if let Some(Source::Here(exchange)) = self.exchanges[i].take() {
                    exchange.park();
                }
                self.usage = match (self.usage, outcome.usage) {
                    (Some(sum), Some(more)) => Some(sum.plus(more)),
                    (sum, more) => sum.or(more),
                };
            }
            Event::Fail(_) => self.exchanges.fill_with(|| None),
        }
    }

    /// What the finished choices took together.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.usage
    }
}
