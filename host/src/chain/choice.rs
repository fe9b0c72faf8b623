//! One choice of an answer on its way back through the chain.

use std::collections::{HashSet, VecDeque};

use guests::GuestError;
use guests::completion::{Delta, FinishReason, Outcome, Step, Usage};

use super::calls::Calls;
use super::object::ObjectFilter;
use super::stop::StopFilter;
use super::{Watching, WayBack, estimate, skipped};
use crate::config::OnError;
use crate::exchange::{Event, Exchange, api_failure, guest_failure};
use crate::failure::{Failure, Kind};

/// A choice that is being answered. Whoever holds it holds everything that belongs to it; dropping it ends its
/// process.
pub(crate) struct Choice {
    source: Source,
    /// In the order of the request. One that is None has ended.
    filters: Vec<Option<Watching>>,
    /// The functions whose calls may reach the client, and the calls so far. None if no transform
    /// can have changed the calls.
    declared: Option<(HashSet<String>, Calls)>,
    stop: StopFilter,
    /// Takes words around the JSON away, if the answer is to be a JSON object.
    object: Option<ObjectFilter>,
    ready: VecDeque<Event>,
    /// Bytes of the request.
    asked: usize,
    /// Bytes that the adapter has answered.
    written: usize,
    is_over: bool,
    /// The answer ended before the adapter said so: its process holds more than the client has seen.
    is_cut: bool,
}

/// Where an answer comes from.
pub(crate) enum Source {
    /// A process.
    Process(Box<Exchange>),
    /// A transform.
    Reply(Vec<Delta>, Outcome),
}

/// Pieces of an answer that came together, and its end if that came too.
struct Flow {
    deltas: Vec<Delta>,
    end: Option<Event>,
}

impl Choice {
    pub(crate) fn new(source: Source, back: WayBack) -> Self {
        Choice {
            source,
            filters: back.filters.into_iter().map(Some).collect(),
            declared: back.declared.map(|names| (names, Calls::default())),
            stop: StopFilter::new(back.stop),
            object: back.is_object.then(ObjectFilter::default),
            ready: VecDeque::new(),
            asked: back.size,
            written: 0,
            is_over: false,
            is_cut: false,
        }
    }

    /// Where its process came from.
    pub(crate) fn origin(&self) -> &'static str {
        match &self.source {
            Source::Process(exchange) => exchange.origin(),
            Source::Reply(..) => "transform",
        }
    }

    /// What comes next. After an end there is nothing more to ask for. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            if self.is_over {
                return Event::Fail(Failure::new(Kind::Internal, "the exchange is over"));
            }
            let is_untouched = self.is_untouched();
            let flow = match &mut self.source {
                Source::Process(exchange) => {
                    let first = exchange.next().await;
                    if is_untouched {
                        return self.untouched(first);
                    }
                    Flow::of(first, exchange)
                }
                Source::Reply(deltas, outcome) => Flow {
                    deltas: std::mem::take(deltas),
                    end: Some(Event::Finish(*outcome)),
                },
            };
            self.pass(flow);
        }
    }

    /// What came together with the event before, in its order.
    pub(crate) fn ready(&mut self) -> VecDeque<Event> {
        let is_untouched = self.is_untouched();
        match &mut self.source {
            Source::Process(exchange) if is_untouched => {
                let mut events = exchange.take_ready();
                self.written += events.iter().map(Event::size).sum::<usize>();
                if let Some(Event::Finish(outcome)) = events.back_mut() {
                    *outcome = self.counted(*outcome);
                }
                events
            }
            _ => std::mem::take(&mut self.ready),
        }
    }

    /// Parks the process of a finished choice, so that it may serve the next turn. A process that is still at it is
    /// brought to rest first.
    pub(crate) fn park(self) {
        match self.source {
            Source::Process(exchange) if self.is_cut => exchange.park_cut(),
            Source::Process(exchange) => exchange.park(),
            Source::Reply(..) => {}
        }
    }

    /// Whether nothing looks at what the adapter answers.
    fn is_untouched(&self) -> bool {
        self.declared.is_none() && self.stop.is_empty() && self.object.is_none()
    }

    /// An event that nothing looks at.
    fn untouched(&mut self, event: Event) -> Event {
        match event {
            Event::Delta(delta) => {
                self.written += delta.size();
                Event::Delta(delta)
            }
            Event::Finish(outcome) => Event::Finish(self.counted(outcome)),
            event => event,
        }
    }

    /// An outcome whose tokens are estimated if the backend does not count.
    fn counted(&self, outcome: Outcome) -> Outcome {
        let is_answered = matches!(self.source, Source::Process(_));
        let estimate = || is_answered.then(|| estimate::of_uncounted(self.asked, self.written));
        Outcome {
            usage: outcome.usage.or_else(estimate),
            ..outcome
        }
    }

    /// Leads pieces through all filters, from the last to the first, and puts what is left of them into `ready`.
    fn pass(&mut self, mut flow: Flow) {
        self.written += flow.deltas.iter().map(Delta::size).sum::<usize>();
        if let Some(Event::Finish(outcome)) = &mut flow.end {
            *outcome = self.counted(*outcome);
        }
        if let Some(object) = &mut self.object {
            object.pass(&mut flow.deltas);
        }
        for i in (0..self.filters.len()).rev() {
            self.filter(i, &mut flow);
        }
        self.check_calls(&mut flow);
        self.stop(&mut flow);
        self.is_over = flow.end.is_some();
        self.ready.extend(flow.deltas.into_iter().map(Event::Delta));
        self.ready.extend(flow.end);
    }

    fn filter(&mut self, i: usize, flow: &mut Flow) {
        let Some(watching) = &mut self.filters[i] else {
            return;
        };
        if !flow.deltas.is_empty() {
            let step = watching.take(&flow.deltas);
            match step {
                Ok(Step::Forward(deltas)) => flow.deltas = deltas,
                Ok(Step::End(ending)) => {
                    flow.deltas = ending.deltas;
                    self.filters[i] = None;
                    return self.cut(flow, ending.finish_reason);
                }
                Ok(Step::Fail(error)) => return self.fail(flow, api_failure(error)),
                Err(error) => return self.broken(i, flow, &error),
            }
        }
        let Some(Event::Finish(outcome)) = &mut flow.end else {
            return;
        };
        let Some(mut watching) = self.filters[i].take() else {
            return;
        };
        let mut calls = std::mem::take(&mut watching.calls);
        let (guest, on_error) = (watching.filter.guest().clone(), watching.on_error);
        let ended = match watching.filter.finish(outcome, self.written) {
            Ok(Ok(mut ending)) => calls.renumber(&mut ending.deltas, None).map(|()| ending),
            Ok(Err(error)) => return self.fail(flow, api_failure(error)),
            Err(error) => Err(error),
        };
        match ended {
            Ok(ending) => {
                guest.served();
                flow.deltas.extend(ending.deltas);
                outcome.finish_reason = ending.finish_reason;
            }
            Err(error) if on_error == OnError::Skip => skipped(&guest, &error),
            Err(error) => self.fail(flow, guest_failure(&guest, &error)),
        }
    }

    /// A transform broke a bound.
    fn broken(&mut self, i: usize, flow: &mut Flow, error: &GuestError) {
        let Some(watching) = self.filters[i].take() else {
            return;
        };
        match watching.on_error {
            OnError::Skip => skipped(watching.filter.guest(), error),
            OnError::Refuse => self.fail(flow, guest_failure(watching.filter.guest(), error)),
        }
    }

    /// Leaves out calls of functions that the client did not declare.
    fn check_calls(&mut self, flow: &mut Flow) {
        let Some((names, calls)) = &mut self.declared else {
            return;
        };
        if let Err(error) = calls.renumber(&mut flow.deltas, Some(names)) {
            let failure = Failure::new(Kind::Guest, format!("the transforms failed: {error}"));
            return self.fail(flow, failure.logged());
        }
        if let Some(Event::Finish(outcome)) = &mut flow.end
            && outcome.finish_reason == FinishReason::ToolCalls
            && !calls.any()
        {
            outcome.finish_reason = FinishReason::Stop;
        }
    }

    fn stop(&mut self, flow: &mut Flow) {
        let (deltas, stopped) = self.stop.pass(std::mem::take(&mut flow.deltas));
        flow.deltas = deltas;
        if stopped {
            return self.cut(flow, FinishReason::Stop);
        }
        if let Some(Event::Finish(_)) = flow.end {
            flow.deltas.extend(self.stop.rest());
        }
    }

    /// Ends the answer here, whatever the adapter would have said.
    fn cut(&mut self, flow: &mut Flow, finish_reason: FinishReason) {
        let usage = match (&flow.end, &self.source) {
            (Some(Event::Finish(outcome)), _) => outcome.usage,
            (_, Source::Process(exchange)) => Some(self.estimate(exchange.usage_so_far())),
            (_, Source::Reply(..)) => None,
        };
        self.is_cut = true;
        flow.end = Some(Event::Finish(Outcome {
            finish_reason,
            usage,
        }));
    }

    fn estimate(&self, counted: Option<Usage>) -> Usage {
        match counted {
            Some(counted) => estimate::of_cut(counted, self.written),
            None => estimate::of_uncounted(self.asked, self.written),
        }
    }

    fn fail(&mut self, flow: &mut Flow, failure: Failure) {
        self.is_cut = true;
        self.filters.iter_mut().for_each(|filter| *filter = None);
        flow.deltas.clear();
        flow.end = Some(Event::Fail(failure));
    }
}

impl Watching {
    fn take(&mut self, deltas: &[Delta]) -> Result<Step, GuestError> {
        let mut step = self.filter.take(deltas)?;
        match &mut step {
            Step::Forward(deltas) => self.calls.renumber(deltas, None)?,
            Step::End(ending) => self.calls.renumber(&mut ending.deltas, None)?,
            Step::Fail(_) => {}
        }
        Ok(step)
    }
}

impl Flow {
    /// An event, and those that came with it.
    fn of(first: Event, exchange: &mut Exchange) -> Self {
        let mut flow = Flow {
            deltas: Vec::new(),
            end: None,
        };
        let mut event = Some(first);
        while let Some(next) = event {
            match next {
                Event::Delta(delta) => flow.deltas.push(delta),
                end => {
                    flow.end = Some(end);
                    break;
                }
            }
            event = exchange.ready();
        }
        flow
    }
}
