//! What happens to a request, in order: the same steps for every API, streaming or not.
//!
//! The module of an API parses the request and writes the response. Everything between these two is here.

pub(crate) mod answer;
pub(crate) mod choices;
pub(crate) mod output_schema;
pub(crate) mod request_log;

use std::sync::Arc;

use guests::adapter::AdapterSession;
use guests::admit::Guest;
use guests::completion::Context;
use tokio::time::Instant;

use crate::admission::{Caller, Permit, Shed};
use crate::backends::Backend;
use crate::config::{Config, KeyDigest};
use crate::exchange::{Exchange, ExchangeRequest, no_process, not_opened};
use crate::failure::{Failure, Kind, unix_now};
use crate::models::Route;
use crate::pool::Pool;
use crate::runtime::Snapshot;
use crate::service::Service;
use crate::telemetry::names;
use choices::{Choices, Source};
use output_schema::OutputSchema;
use request_log::RequestLog;

/// A chat completion request that was parsed, and whose fields were checked.
#[derive(Debug)]
pub(crate) struct Request {
    /// The name that the client uses.
    pub(crate) model: String,
    /// How many answers the client wants (`n`).
    pub(crate) choices: u32,
    /// What an answer is checked against at its end.
    pub(crate) output: OutputSchema,
    /// Fields that are not honoured, sorted.
    pub(crate) ignored: Vec<String>,
    /// How many bytes its body had.
    pub(crate) size: usize,
    /// What the transforms and the adapter get.
    pub(crate) body: guests::request::Request,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(crate) struct Calling {
    /// The name of its key, if it has one.
    pub(crate) key: Option<Arc<str>>,
    /// Who calls. Only the same caller may go on with a conversation.
    pub(crate) caller: Caller,
    /// The queue that the request waits in. Each caller has its own.
    pub(crate) queue: KeyDigest,
}

/// The running exchanges that answer a request.
pub(crate) struct Answers {
    pub(crate) head: Head,
    pub(crate) choices: Choices,
    pub(crate) output: OutputSchema,
}

/// What every answer begins with, streamed or not.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    /// The name that the client uses.
    pub(crate) model: String,
    /// The `system_fingerprint` of the answer. It is made from the adapter's digest, and changes with it.
    pub(crate) fingerprint: String,
}

/// Refuses new requests while the service is being shut down.
///
/// # Errors
///
/// Fails while the service is draining.
pub(crate) fn check(service: &Service) -> Result<(), Failure> {
    if service.is_draining() {
        let message = "the service is being shut down: try again in a moment";
        return Err(Failure::new(Kind::ShuttingDown, message));
    }
    Ok(())
}

/// The snapshot that answers a request to `model`. If the model's adapter is still being compiled, this waits
/// for it, and then returns the snapshot that has it.
pub(crate) async fn settled(
    service: &Service,
    snapshot: Arc<Snapshot>,
    model: &str,
) -> Arc<Snapshot> {
    let pending = &snapshot.guests.pending;
    let backend = snapshot.models.backend(model);
    let Some(backend) = backend.filter(|backend| pending.contains(&backend.config.adapter)) else {
        return snapshot;
    };
    let deadline = Instant::now() + backend.config.admission.queue_timeout;
    let adapter = &backend.config.adapter;
    service.runtime.adapter_settled(adapter, deadline).await;
    service.snapshot()
}

/// Takes one request from its parsed form to running exchanges. Cheap steps come first.
///
/// # Errors
///
/// Says at which step it failed, and what to do about it.
pub(crate) async fn dispatch(
    service: &Service,
    snapshot: &Snapshot,
    calling: Calling,
    mut request: Request,
    log: &mut RequestLog,
) -> Result<Answers, Failure> {
    refuse_ignored(&request, &snapshot.config)?;
    let route = snapshot.models.route(&request.model);
    let route = route.ok_or_else(|| snapshot.models.unknown(&request.model))?;
    log.routed(&route, &request);
    let count = count(&request, &snapshot.config, &route.backend)?;
    let permits = admit(&route.backend, calling.queue, count).await?;
    let limit = route.backend.config.timeouts.request;
    request.output.prepare(&service.processes, limit).await?;
    let guest = adapter(snapshot, &route.backend)?;
    log.pinned(guest.generation);
    let head = Head::new(&request.model, &guest);
    let (is_own, lane) = (guest.is_own(), &service.lane);
    let start = Start::new(
        service,
        calling,
        &head,
        route,
        guest,
        permits,
        request.size,
        request.body,
        count,
    );
    let exchanges = match is_own {
        true => start.run().await?,
        false => lane.run(start.run()).await?,
    };
    log.started(exchanges.first().map_or("", Exchange::origin));
    let place = |exchange| match is_own {
        true => Some(Source::Here(Box::new(exchange))),
        false => lane.take(exchange).map(Source::Apart),
    };
    Ok(Answers {
        head,
        choices: Choices::new(exchanges.into_iter().filter_map(place).collect()),
        output: request.output,
    })
}

/// Refuses a field that would only be ignored, if `refuse_ignored_params` is set.
fn refuse_ignored(request: &Request, config: &Config) -> Result<(), Failure> {
    match request.ignored.first() {
        Some(param) if config.http.refuse_ignored => {
            let message = format!("`{param}` is not supported, and `refuse_ignored_params` is set");
            Err(Failure::new(Kind::UnsupportedParameter, message).with_param(param))
        }
        _ => Ok(()),
    }
}

/// How many exchanges a request needs. Fails if that is more than a limit allows.
fn count(request: &Request, config: &Config, backend: &Backend) -> Result<usize, Failure> {
    let limits = [
        (config.http.max_choices as usize, "max_choices"),
        (backend.config.admission.max_concurrent, "max_concurrent"),
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

/// The guest that speaks a backend's protocol.
fn adapter(snapshot: &Snapshot, backend: &Backend) -> Result<Arc<Guest>, Failure> {
    let name = &backend.config.adapter;
    if let Some(guest) = snapshot.guests.serving.get(name) {
        return Ok(guest.clone());
    }
    let set = &snapshot.guests;
    let message = match set.rejected.get(name) {
        Some(reason) => format!("the adapter `{name}` is not loaded: {reason}"),
        None if set.pending.contains(name) => {
            format!("the adapter `{name}` is still being compiled: try again later")
        }
        None => format!(
            "the adapter `{name}` is not loaded: put it at {}",
            snapshot.config.guests.file(name).display()
        ),
    };
    Err(Failure::new(Kind::Guest, message).logged())
}

impl Head {
    fn new(model: &str, guest: &Guest) -> Self {
        Head {
            id: format!("chatcmpl-{}", uuid::Uuid::new_v4().simple()),
            created: unix_now(),
            model: model.to_owned(),
            fingerprint: format!("fp_{}", guest.digest.chars().take(10).collect::<String>()),
        }
    }
}

/// All that it takes to start the exchanges of a request.
struct Start {
    pool: Arc<Pool>,
    guest: Arc<Guest>,
    context: Context,
    body: guests::request::Request,
    request: ExchangeRequest,
    permits: Permit,
    count: usize,
}

impl Start {
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a step's result, and none belongs to another"
    )]
    fn new(
        service: &Service,
        calling: Calling,
        head: &Head,
        route: Route,
        guest: Arc<Guest>,
        permits: Permit,
        size: usize,
        body: guests::request::Request,
        count: usize,
    ) -> Self {
        let patience = route.backend.config.admission.queue_timeout;
        let request = ExchangeRequest {
            backend: route.backend,
            model: route.model,
            size,
            caller: calling.caller,
            deadline: Instant::now() + patience,
            is_probe: false,
        };
        Start {
            pool: service.pool.clone(),
            guest,
            context: context(head, &request),
            body,
            request,
            permits,
            count,
        }
    }

    /// Opens the exchanges, and gets a process for each.
    async fn run(mut self) -> Result<Vec<Exchange>, Failure> {
        let size = self.request.size;
        let open = |_| AdapterSession::open(self.guest.clone(), &self.context, &self.body, size);
        let opened: Result<Vec<_>, _> = (0..self.count).map(open).collect();
        let request = self.request;
        let opened = opened.map_err(|why| not_opened(&request.backend.config.adapter, why))?;
        // Each session has its own copy of the request, and will make more.
        drop(self.body);
        let busy = |error| no_process(&request.backend, error);
        let _turn = match opened.len() {
            1 => None,
            _ => Some(self.pool.turn(request.deadline).await.map_err(busy)?),
        };
        let mut exchanges = Vec::with_capacity(opened.len());
        for (guest, permit) in opened
            .into_iter()
            .zip(std::iter::from_fn(|| self.permits.split()))
        {
            exchanges.push(Exchange::begin(request.clone(), guest, &self.pool, permit).await?);
        }
        Ok(exchanges)
    }
}

/// What an adapter is told of a request beside its body.
fn context(head: &Head, request: &ExchangeRequest) -> Context {
    let offer = request.backend.status.offer(&request.model);
    Context {
        id: head.id.clone(),
        created: head.created,
        model: head.model.clone(),
        backend_model: request.model.clone(),
        profile: request.backend.config.launch.profile.name,
        resolved_model: offer.and_then(|offer| offer.resolved),
        fetch_urls: request.backend.config.fetch_urls,
    }
}
