//! What happens to a request, in order: the same steps for every API, streaming or not.
//!
//! The module of an API parses the request and writes the response. Everything between these two is here.

pub(crate) mod answer;
pub(crate) mod choices;
pub(crate) mod output_schema;
pub(crate) mod request_log;
pub(crate) mod start;

use std::sync::Arc;
use std::time::Duration;

use basics::blocking;
use guests::completion::Context;
use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::admission::Caller;
use crate::backends::Backend;
use crate::cache::{self, Cache};
use crate::chain::Chain;
use crate::config::{Config, KeyDigest, KeyLimits};
use crate::failure::{Failure, Kind, unix_now};
use crate::models::Route;
use crate::runtime::Snapshot;
use crate::service::Service;
use choices::{Choices, Source};
use output_schema::OutputSchema;
use request_log::RequestLog;
use start::Start;

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

/// What is known of the caller of a request.
#[derive(Clone, Debug)]
pub(crate) struct Calling {
    /// The name of its key, if it has one.
    pub(crate) key: Option<Arc<str>>,
    /// What its key may use.
    pub(crate) limits: Arc<KeyLimits>,
    /// The digest of its key, if it has one. Only the same caller may go on with a conversation.
    pub(crate) caller: Caller,
    /// The queue that the request waits in. Each caller has its own.
    pub(crate) queue: KeyDigest,
    /// Whether the answer must be neither taken from the cache nor kept in it.
    pub(crate) wants_fresh: bool,
    /// Configurations that guests have only for this request, by their names.
    pub(crate) configs: Option<Arc<Map<String, Value>>>,
}

/// The answers to a request that are on their way: one for each choice, usually from an exchange
/// (one request on one process).
pub(crate) struct Answers {
    pub(crate) head: Head,
    pub(crate) choices: Choices,
    pub(crate) output: OutputSchema,
    /// What the cache did, if there is one.
    pub(crate) cached: Option<cache::Outcome>,
}

/// What every answer begins with, streamed or not.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    /// The name that the client uses.
    pub(crate) model: String,
    /// The `system_fingerprint` of the answer. It is made from the digest of the guests and their
    /// configurations, and changes with it.
    pub(crate) fingerprint: String,
}

impl Calling {
    /// Whether the caller's key may use a model, by the name that the client uses.
    pub(crate) fn may_use(&self, model: &str) -> bool {
        let models = self.limits.models.as_ref();
        models.is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }

    /// Refuses the caller while a window of the backend's plan is used further than its key may use it. What is not known
    /// refuses nobody.
    fn check_plan(&self, backend: &Backend) -> Result<(), Failure> {
        let (Some(most), Some(plan)) = (self.limits.plan_percent, backend.status.plan()) else {
            return Ok(());
        };
        let now = unix_now();
        let Some(window) = plan.fuller_than(most, now) else {
            return Ok(());
        };
        let key = self.key.as_deref().unwrap_or_default();
        let message = format!(
            "the key `{key}` may use the plan until {most} % of a window are used (`plan_percent`), and `{}` is used by {:.0} %",
            window.name,
            window.utilization.unwrap_or(1.0) * 100.0
        );
        let mut failure = Failure::new(Kind::RateLimit, message);
        failure.code = Some("insufficient_quota");
        Err(match window.resets_at {
            Some(at) => failure.with_retry_after(Duration::from_secs(at.saturating_sub(now))),
            None => failure,
        })
    }

    /// Why the caller may not use a model.
    pub(crate) fn no_such_model(&self, model: &str) -> Failure {
        let key = self.key.as_deref().unwrap_or_default();
        let allowed = self.limits.models.iter().flatten();
        let allowed: Vec<String> = allowed.map(|model| format!("`{model}`")).collect();
        let message = format!(
            "the key `{key}` may not use `{}`, only {}",
            basics::plain::line(model, 100),
            allowed.join(", ")
        );
        Failure::new(Kind::AccessDenied, message).with_param("model")
    }
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

/// The snapshot that answers a request to `model`. If a guest of the model is still being compiled, this waits
/// for it, and then returns the snapshot that has it.
pub(crate) async fn settled(
    service: &Service,
    snapshot: Arc<Snapshot>,
    model: &str,
) -> Arc<Snapshot> {
    if !snapshot.waits(model) {
        return snapshot;
    }
    let Some(backend) = snapshot.models.backend(model) else {
        return snapshot;
    };
    let deadline = Instant::now() + backend.config.admission.queue_timeout;
    service.runtime.settled(model, deadline).await;
    service.snapshot()
}

/// Takes one request from its parsed form to running exchanges. Cheap steps come first.
///
/// # Errors
///
/// Says at which step it failed, and what to do about it.
pub(crate) async fn dispatch(
    service: &Arc<Service>,
    snapshot: &Snapshot,
    calling: Calling,
    mut request: Request,
    log: &mut RequestLog,
) -> Result<Answers, Failure> {
    refuse_ignored(&request, &snapshot.config)?;
    let route = snapshot.models.route(&request.model);
    let route = route.ok_or_else(|| snapshot.models.unknown(&request.model))?;
    log.routed(&route, &request);
    if !calling.may_use(&request.model) {
        return Err(calling.no_such_model(&request.model));
    }
    calling.check_plan(&route.backend)?;
    if let Some(key) = &calling.key {
        log.charges(service.quotas.admit(key, &calling.limits)?);
    }
    let count = count(&request, &snapshot.config, &route.backend)?;
    let chain = match &calling.configs {
        None => snapshot.chain(&route)?.clone(),
        Some(configs) => on_trial(service, snapshot.chain(&route)?, configs).await?,
    };
    let head = Head::new(&request.model, &chain);
    log.pinned(chain.generation(), &head.id);
    let cache = service.caches.with(snapshot.config.cache.as_ref());
    let key = match &cache {
        Some(cache) if count == 1 && !calling.wants_fresh => {
            Some(key(cache, &calling, &route, &chain, &request))
        }
        _ => None,
    };
    request.output.limit(route.backend.config.timeouts.request);
    let start = Start {
        service: service.clone(),
        trace: log.trace().clone(),
        context: context(&head, &route),
        queue: calling.queue,
        caller: calling.caller,
        size: request.size,
        output: request.output,
        body: Arc::new(request.body),
        count,
        chain,
        route,
    };
    let (sources, output, cached) = match cache.as_ref().zip(key) {
        None => {
            let begun = start.begin().await?;
            log.started(begun.origin);
            log.waited(begun.waited);
            let cached = cache.map(|_| cache::Outcome::Bypass);
            (begun.sources, begun.output, cached)
        }
        Some((cache, key)) => {
            let (processes, output) = (service.processes.clone(), start.output.clone());
            let answer = cache.answer(key, || async {
                let begun = start.begin().await;
                begun.map(|begun| begun.recordable(processes))
            });
            let (reader, origin, outcome) = answer.await?;
            log.started(origin.name);
            if outcome == cache::Outcome::Miss {
                log.waited(origin.waited);
            }
            log.shares(reader.charge());
            (vec![Source::Recorded(reader)], output, Some(outcome))
        }
    };
    if let Some(outcome) = cached {
        cache::count(outcome);
    }
    Ok(Answers {
        head,
        choices: Choices::new(sources),
        output,
        cached,
    })
}

/// A chain whose guests have other configurations, where its guests may run.
async fn on_trial(
    service: &Service,
    chain: &Chain,
    configs: &Arc<Map<String, Value>>,
) -> Result<Chain, Failure> {
    let (standing, chain, configs) = (chain.standing(), chain.clone(), configs.clone());
    let tried = async move { chain.with_configs(&configs) };
    service.lanes.run(standing, tried).await
}

/// What the cache knows a request by.
fn key(
    cache: &Cache,
    calling: &Calling,
    route: &Route,
    chain: &Chain,
    request: &Request,
) -> cache::Key {
    let offer = route.backend.status.offer(&route.model);
    let resolved = offer.and_then(|offer| offer.resolved).unwrap_or_default();
    let launch = route.backend.config.launch.digest();
    let question = cache::Question {
        caller: (!cache.is_across_keys()).then_some(calling.caller),
        backend: &route.backend.config.name,
        launch: &launch,
        fetch_urls: route.backend.config.fetch_urls,
        model: [&request.model, &route.model, &resolved],
        chain: &chain.digest,
        body: &request.body,
    };
    blocking::run_on(request.size, || question.key())
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

impl Head {
    fn new(model: &str, chain: &Chain) -> Self {
        Head {
            id: format!("chatcmpl-{}", uuid::Uuid::new_v4().simple()),
            created: unix_now(),
            model: model.to_owned(),
            fingerprint: format!("fp_{}", chain.digest.chars().take(10).collect::<String>()),
        }
    }
}

/// What guests are told of a request beside its body.
fn context(head: &Head, route: &Route) -> Context {
    let offer = route.backend.status.offer(&route.model);
    Context {
        id: head.id.clone(),
        created: head.created,
        model: head.model.clone(),
        backend_model: route.model.clone(),
        profile: route.backend.config.launch.profile.name.into(),
        resolved_model: offer.and_then(|offer| offer.resolved),
        fetch_urls: route.backend.config.fetch_urls,
        choice: 0,
    }
}
