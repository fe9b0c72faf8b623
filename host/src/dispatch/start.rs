//! How answers begin: a place, the chain for each choice, and a process for each that needs one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use guests::completion::{Context, FinishReason};
use processes::Processes;
use tokio::time::Instant;

use super::answer::Answer;
use super::choices::Source;
use super::output_schema::OutputSchema;
use crate::admission::{Caller, Permit, Shed};
use crate::backends::Backend;
use crate::cache;
use crate::chain::{self, Chain, Choice, End};
use crate::config::KeyDigest;
use crate::exchange::{Event, Exchange, ExchangeRequest, no_process};
use crate::failure::{Failure, Kind};
use crate::models::Route;
use crate::pool::Pool;
use crate::service::Service;
use crate::telemetry::names;
use crate::traces::Trace;

/// Answers that have begun, on their way from the exchanges.
pub(crate) struct Begun {
    pub(crate) sources: Vec<Source>,
    /// Where the process of the first one came from.
    pub(crate) origin: &'static str,
    /// How long the request waited for a place and for its processes.
    pub(crate) waited: Duration,
    pub(crate) output: OutputSchema,
}

/// A single answer, for the cache to record.
struct Recordable {
    /// None behind the end.
    source: Option<Source>,
    /// The end, if it came with the last deltas.
    end: Option<Event>,
    /// What came so far, if it must be checked at its end.
    answer: Option<Answer>,
    output: OutputSchema,
    processes: Arc<Processes>,
}

impl Begun {
    /// The first answer, for the cache to record.
    pub(super) fn recordable(mut self, processes: Arc<Processes>) -> cache::Answer {
        let recordable = Box::new(Recordable {
            source: self.sources.pop(),
            end: None,
            answer: (!self.output.is_empty()).then(Answer::default),
            output: self.output,
            processes,
        });
        let batches = stream::unfold(recordable, async |mut recordable| {
            let batch = recordable.next().await?;
            Some((batch, recordable))
        });
        cache::Answer {
            origin: cache::Origin {
                name: self.origin,
                waited: self.waited,
            },
            batches: batches.boxed(),
        }
    }
}

impl Recordable {
    /// What comes next. The end comes alone, because the deltas before it need not wait until it is checked.
    async fn next(&mut self) -> Option<cache::Batch> {
        let event = match self.end.take() {
            Some(end) => end,
            None => self.source.as_mut()?.next().await,
        };
        let (events, is_reusable) = match event {
            Event::Delta(_) => (self.deltas(event), false),
            Event::Finish(outcome) => {
                if let Some(source) = self.source.take() {
                    source.park();
                }
                // On the heap, so that it takes no room in what is moved for each batch.
                let checked = Box::pin(self.is_as_wanted(outcome.finish_reason)).await;
                (VecDeque::from([event]), checked)
            }
            Event::Fail(_) => {
                self.source = None;
                (VecDeque::from([event]), false)
            }
        };
        Some(cache::Batch {
            events,
            is_reusable,
        })
    }

    /// A delta, and those that came together with it.
    fn deltas(&mut self, first: Event) -> VecDeque<Event> {
        let source = self.source.as_mut();
        let mut events = source.map(Source::ready).unwrap_or_default();
        events.push_front(first);
        if !matches!(events.back(), Some(Event::Delta(_))) {
            self.end = events.pop_back();
        }
        if let Some(answer) = &mut self.answer {
            for event in &events {
                if let Event::Delta(delta) = event {
                    answer.push(delta.clone());
                }
            }
        }
        events
    }

    /// Whether the answer ended by itself, and is what the client relies on.
    async fn is_as_wanted(&mut self, reason: FinishReason) -> bool {
        reason == FinishReason::Stop
            && match &self.answer {
                None => true,
                Some(answer) => {
                    let checked = self.output.check(&self.processes, answer, reason).await;
                    checked.is_ok()
                }
            }
    }
}

/// All that it takes to start answering a request.
pub(super) struct Start {
    pub(super) service: Arc<Service>,
    pub(super) trace: Trace,
    pub(super) route: Route,
    pub(super) chain: Chain,
    pub(super) context: Context,
    pub(super) body: Arc<guests::request::Request>,
    pub(super) output: OutputSchema,
    pub(super) queue: KeyDigest,
    pub(super) caller: Caller,
    /// How many bytes the request has.
    pub(super) size: usize,
    pub(super) count: usize,
}

/// All that it takes once there is a place.
struct Admitted {
    trace: Trace,
    pool: Arc<Pool>,
    chain: Chain,
    context: Context,
    body: Arc<guests::request::Request>,
    request: ExchangeRequest,
    permits: Permit,
    count: usize,
}

impl Start {
    /// Waits for a place, and begins the answers.
    pub(super) async fn begin(self) -> Result<Begun, Failure> {
        let service = self.service;
        let (waiting, came) = (self.trace.step("queue"), Instant::now());
        let permits = admit(&self.route.backend, self.queue, self.count).await?;
        let queued = came.elapsed();
        drop(waiting);
        self.output.prepare(&service.processes).await?;
        let (standing, lanes) = (self.chain.standing(), &service.lanes);
        let admitted = Admitted {
            trace: self.trace,
            pool: service.pool.clone(),
            context: self.context,
            request: exchange_request(self.route, &self.chain, self.caller, self.size),
            chain: self.chain,
            body: self.body,
            permits,
            count: self.count,
        };
        let (choices, waited) = lanes.run(standing, admitted.run()).await?;
        let origin = choices.first().map_or("", Choice::origin);
        let place = |choice| match lanes.take(standing, choice) {
            Ok(apart) => Source::Apart(apart),
            Err(choice) => Source::Here(choice),
        };
        Ok(Begun {
            sources: choices.into_iter().map(place).collect(),
            origin,
            waited: queued + waited,
            output: self.output,
        })
    }
}

impl Admitted {
    /// Opens the chain for each choice, and gets a process for each that needs one. Tells how long that took, too.
    async fn run(mut self) -> Result<(Vec<Choice>, Duration), Failure> {
        let size = self.request.size;
        let mut opened = Vec::with_capacity(self.count);
        for choice in 0..self.count {
            self.context.choice = choice as u32;
            let _opening = self.trace.step("chain");
            opened.push(self.chain.open(&self.context, &self.body, size)?);
        }
        let request = self.request;
        // Each session has copied the request into its guest, and the guest will copy it again. So this copy is
        // freed as soon as no exchange may need it for another session.
        drop(self.body);
        let busy = |error| no_process(&request.backend, error);
        let came = Instant::now();
        let _turn = match opened.len() {
            1 => None,
            _ => Some(self.pool.turn(request.deadline).await.map_err(busy)?),
        };
        let mut waited = came.elapsed();
        let mut choices = Vec::with_capacity(opened.len());
        for ((end, back), permit) in opened
            .into_iter()
            .zip(std::iter::from_fn(|| self.permits.split()))
        {
            let source = match end {
                End::Reply(deltas, outcome) => chain::Source::Reply(deltas, outcome),
                End::Adapter(opened) => {
                    let request = ExchangeRequest {
                        size: back.size,
                        ..request.clone()
                    };
                    let (_getting, asked) = (self.trace.step("process"), Instant::now());
                    let exchange = Exchange::begin(request, *opened, &self.pool, permit).await?;
                    waited += asked.elapsed();
                    chain::Source::Process(Box::new(exchange))
                }
            };
            choices.push(Choice::new(source, back));
        }
        Ok((choices, waited))
    }
}

/// What an exchange needs to know of a request of `size` bytes.
fn exchange_request(route: Route, chain: &Chain, caller: Caller, size: usize) -> ExchangeRequest {
    let patience = route.backend.config.admission.queue_timeout;
    ExchangeRequest {
        backend: route.backend,
        model: route.model,
        size,
        caller,
        deadline: Instant::now() + patience,
        chain: chain.digest.clone(),
    }
}

/// Waits until `count` exchanges may begin on a backend.
async fn admit(backend: &Backend, queue: KeyDigest, count: usize) -> Result<Permit, Failure> {
    let came = Instant::now();
    let entered = backend.admission.enter(queue, count).await;
    metrics::histogram!(names::QUEUE_WAIT, "backend" => backend.config.name.clone())
        .record(came.elapsed());
    entered.map_err(|shed: Shed| {
        let failure = Failure::new(Kind::QueueFull, format!("the backend is busy: {shed}"));
        failure.with_retry_after(shed.retry_after())
    })
}
