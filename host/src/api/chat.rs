//! `POST /v1/chat/completions`.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::access::Calling;
use super::aggregate::{Aggregate, completion};
use super::body::{self, Read};
use super::choices::{Choices, Source};
use super::error;
use super::expectation::Expectation;
use super::list;
use super::observed::Record;
use super::request::ChatRequest;
use super::sse;
use super::wire::Head;
use super::{Recorded, RequestId};
use crate::admission::{Permit, Shed};
use crate::ascii_json;
use crate::backends::Backend;
use crate::blocking;
use crate::config::{Config, Http};
use crate::exchange::{Event, Exchange, Order, no_process, not_opened};
use crate::failure::{Failure, Kind, unix_now};
use crate::guests::admission::Guest;
use crate::guests::exchange::GuestExchange;
use crate::guests::types;
use crate::models::Route;
use crate::pool::Pool;
use crate::processes::Processes;
use crate::service::Service;
use crate::setup::Setup;
use crate::telemetry::names;

const IGNORED_PARAMS: HeaderName = HeaderName::from_static("x-ignored-params");

/// The longest answer that is put together for a unary request, in bytes: a model's longest are
/// below one MiB.
const ANSWER_MAX: usize = 64 << 20;

/// Answers a chat completion request, streaming or not.
pub(super) async fn completions(
    State(service): State<Arc<Service>>,
    Extension(id): Extension<RequestId>,
    Extension(calling): Extension<Calling>,
    body: Body,
) -> Response {
    let mut record = Record::new(id);
    let call = Call {
        setup: service.setup(),
        service: &service,
        calling,
    };
    match call.read(body, &mut record).await {
        Ok(begun) => respond(&service, &call.setup.config.http, begun, record).await,
        Err(failure) => refuse(&call.setup.config.http, failure, record),
    }
}

/// What a request is answered with.
struct Call<'a> {
    service: &'a Arc<Service>,
    setup: Arc<Setup>,
    calling: Calling,
}

/// A request with the exchanges that answer it, and what its answer is called.
struct Begun {
    request: ChatRequest,
    choices: Choices,
    head: Head,
}

impl Call<'_> {
    /// From the body to running exchanges.
    async fn read(&self, body: Body, record: &mut Record) -> Result<Begun, Failure> {
        if self.service.is_draining() {
            let message = "the service is being shut down: try again in a moment";
            return Err(Failure::new(Kind::ShuttingDown, message));
        }
        let http = &self.setup.config.http;
        let Read { bytes, share } = body::read(body, http, &self.service.bodies).await?;
        record.hold(share);
        let request = blocking::run_on(bytes.len(), || ChatRequest::parse(bytes));
        let request = request.map_err(|unread| {
            let route = unread
                .model
                .and_then(|model| self.setup.models.route(&model));
            record.named(route.map(|route| route.label).unwrap_or_default());
            unread.failure
        })?;
        if let Some(param) = request.ignored.first()
            && http.refuse_ignored
        {
            let message = format!("`{param}` is not supported, and `refuse_ignored_params` is set");
            return Err(Failure::new(Kind::UnsupportedParameter, message).with_param(param));
        }
        self.begin(request, record).await
    }

    /// From a request to the exchanges that answer it, in the order of what each step costs.
    async fn begin(&self, mut request: ChatRequest, record: &mut Record) -> Result<Begun, Failure> {
        let route = self.setup.models.route(&request.model);
        let Route {
            backend,
            model,
            label,
        } = route.ok_or_else(|| list::unknown_model(&self.setup.models, &request.model))?;
        record.routed(label, request.stream);
        let count = count(&request, &self.setup.config, &backend)?;
        record.served(&backend.config.name, &request.ignored);
        let came = Instant::now();
        let entered = backend.admission.enter(self.calling.queue, count).await;
        metrics::histogram!(names::QUEUE_WAIT, "backend" => backend.config.name.clone())
            .record(came.elapsed());
        let permits = entered.map_err(|shed| full(&shed))?;
        let limit = backend.config.request_timeout;
        request
            .expectation
            .prepare(&self.service.processes, limit)
            .await?;
        let adapter = &backend.config.adapter;
        let patience = backend.config.queue_timeout;
        let deadline = Instant::now() + patience;
        let guest = self.service.guests.find(adapter, deadline.into()).await;
        let guest = guest.ok_or_else(|| self.missing_guest(adapter))?;
        record.pinned(guest.generation);
        let head = Head {
            id: format!("chatcmpl-{}", uuid::Uuid::new_v4().simple()),
            created: unix_now(),
            model: request.model.clone(),
            fingerprint: format!("fp_{}", guest.digest.chars().take(10).collect::<String>()),
        };
        let order = Order {
            backend,
            model,
            size: request.json.len(),
            caller: self.calling.caller,
            deadline: Instant::now() + patience,
            is_probe: false,
        };
        let context = context(&head, &order);
        let is_own = guest.is_own();
        let start = Start {
            pool: self.service.pool.clone(),
            guest,
            context,
            request: std::mem::take(&mut request.json),
            order,
            permits,
            count,
        };
        let lane = &self.service.lane;
        let exchanges = match is_own {
            true => start.run().await?,
            false => lane.run(start.run()).await?,
        };
        record.origin(exchanges.first().map_or("", Exchange::origin));
        let place = |exchange| match is_own {
            true => Some(Source::Here(Box::new(exchange))),
            false => lane.take(exchange).map(Source::Apart),
        };
        Ok(Begun {
            request,
            choices: Choices::new(exchanges.into_iter().filter_map(place).collect()),
            head,
        })
    }

    fn missing_guest(&self, adapter: &str) -> Failure {
        let set = self.service.guests.current();
        let message = match set.rejected.get(adapter) {
            Some(reason) => format!("the adapter `{adapter}` is not loaded: {reason}"),
            None if set.pending.contains(adapter) => {
                format!("the adapter `{adapter}` is still being compiled: try again later")
            }
            None => format!(
                "the adapter `{adapter}` is not loaded: put it at {}",
                self.setup.config.guest_file(adapter).display()
            ),
        };
        Failure::new(Kind::Guest, message).logged()
    }
}

/// All that it takes to start the exchanges of a request.
struct Start {
    pool: Arc<Pool>,
    guest: Arc<Guest>,
    context: types::Context,
    request: String,
    order: Order,
    permits: Permit,
    count: usize,
}

impl Start {
    /// Opens the exchanges, and takes a process for each.
    async fn run(mut self) -> Result<Vec<Exchange>, Failure> {
        let open = |_| GuestExchange::open(self.guest.clone(), &self.context, &self.request);
        let opened: Result<Vec<_>, _> = (0..self.count).map(open).collect();
        let order = self.order;
        let opened = opened.map_err(|why| not_opened(&order.backend.config.adapter, why))?;
        // The adapter has its own copy, which will become several.
        drop(self.request);
        let busy = |error| no_process(&order.backend, error);
        let _turn = match opened.len() {
            1 => None,
            _ => Some(self.pool.turn(order.deadline).await.map_err(busy)?),
        };
        let mut exchanges = Vec::with_capacity(opened.len());
        for (guest, permit) in opened
            .into_iter()
            .zip(std::iter::from_fn(|| self.permits.split()))
        {
            exchanges.push(Exchange::begin(order.clone(), guest, &self.pool, permit).await?);
        }
        Ok(exchanges)
    }
}

/// What an adapter is told of a request beside its words.
fn context(head: &Head, order: &Order) -> types::Context {
    let offer = order.backend.status.offer(&order.model);
    types::Context {
        id: head.id.clone(),
        created: head.created,
        model: order.model.clone(),
        extra: json!({
            "fetch_urls": order.backend.config.fetch_urls,
            "resolved_model": offer.and_then(|offer| offer.resolved),
        })
        .to_string(),
    }
}

/// How many exchanges a request needs, if it may have so many.
fn count(request: &ChatRequest, config: &Config, backend: &Backend) -> Result<usize, Failure> {
    let limits = [
        (config.http.max_choices as usize, "max_choices"),
        (backend.config.max_concurrent, "max_concurrent"),
        (config.max_processes, "max_processes"),
    ];
    let count = request.choices as usize;
    let exceeded = limits.into_iter().filter(|(limit, _)| count > *limit);
    match exceeded.min_by_key(|(limit, _)| *limit) {
        None => Ok(count),
        Some((limit, setting)) => {
            let message = format!("`n` may be at most {limit} (`{setting}`)");
            Err(Failure::invalid("n", message))
        }
    }
}

/// From running exchanges to a response.
async fn respond(
    service: &Arc<Service>,
    http: &Http,
    begun: Begun,
    mut record: Record,
) -> Response {
    let Begun {
        request,
        mut choices,
        head,
    } = begun;
    let ignored = request.ignored;
    let mut response = if request.stream {
        match first_event(http, &mut choices).await {
            Err(failure) => return refuse(http, failure, record),
            Ok(first) => {
                let settings = sse::Settings::new(http, request.include_usage, request.expectation);
                let processes = service.processes.clone();
                sse::response(head, settings, choices, first, record, processes).await
            }
        }
    } else {
        match fold(
            &service.processes,
            &mut choices,
            &request.expectation,
            &mut record,
        )
        .await
        {
            Err(failure) => return refuse(http, failure, record),
            Ok(answers) => {
                let json = [(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                )];
                let usage = choices.usage();
                let body = ascii_json::to_vec(&completion(&head, answers, usage.as_ref()));
                record.finished(usage);
                (json, body).into_response()
            }
        }
    };
    if !ignored.is_empty()
        && let Ok(list) = HeaderValue::from_str(&listed(&ignored))
    {
        response.headers_mut().insert(IGNORED_PARAMS, list);
    }
    response
}

/// Names in a row, as many as fit into a header that every client can read.
fn listed(names: &[String]) -> String {
    /// The longest value of the header, in bytes.
    const LIST_MAX: usize = 1024;
    let mut list = String::new();
    for name in names {
        if list.len() + name.len() > LIST_MAX {
            return list + ", ...";
        }
        if !list.is_empty() {
            list += ", ";
        }
        list += name;
    }
    list
}

/// Holds the status line back until the first content or error, within bounds, so that a
/// failure has its true status.
async fn first_event(
    http: &Http,
    choices: &mut Choices,
) -> Result<Option<(usize, Event)>, Failure> {
    match tokio::time::timeout(http.hold, choices.next()).await {
        Ok(Some((_, Event::Fail(failure)))) => Err(failure),
        Ok(event) => Ok(event),
        Err(_) => Ok(None),
    }
}

/// Puts all choices together.
async fn fold(
    processes: &Processes,
    choices: &mut Choices,
    expectation: &Expectation,
    record: &mut Record,
) -> Result<Vec<Value>, Failure> {
    let mut answers = Vec::new();
    answers.resize_with(choices.len(), Aggregate::default);
    let mut done = vec![Value::Null; choices.len()];
    while let Some((index, event)) = choices.next().await {
        match event {
            Event::Delta(delta) => {
                record.delta();
                answers[index].push(delta);
                if answers[index].size() > ANSWER_MAX {
                    let message = format!("the answer is longer than {ANSWER_MAX} bytes");
                    return Err(Failure::new(Kind::Backend, message));
                }
            }
            Event::Finish(outcome) => {
                let answer = std::mem::take(&mut answers[index]);
                expectation
                    .check(processes, &answer, outcome.finish_reason)
                    .await?;
                done[index] = answer.choice(index, outcome.finish_reason);
            }
            Event::Fail(failure) => return Err(failure),
        }
    }
    Ok(done)
}

fn refuse(http: &Http, failure: Failure, mut record: Record) -> Response {
    let status = error::status(&failure, http.rate_limit_status);
    record.failed(&failure, status);
    let mut response = failure.into_response();
    response.extensions_mut().insert(Recorded);
    response
}

fn full(shed: &Shed) -> Failure {
    let mut failure = Failure::new(Kind::QueueFull, format!("the backend is busy: {shed}"));
    failure.retry_after = Some(shed.retry_after());
    failure
}
