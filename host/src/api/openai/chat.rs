//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use basics::blocking;
use processes::Processes;
use serde_json::Value;

use super::error;
use super::fields::Honours;
use super::request::{ChatRequest, model_of};
use super::stream;
use super::wire::{choice, completion};
use crate::api::body::{self, Read};
use crate::api::{Recorded, RequestId, tell_cache};
use crate::ascii_json;
use crate::config::HttpConfig;
use crate::dispatch::answer::Answer;
use crate::dispatch::choices::Choices;
use crate::dispatch::output_schema::OutputSchema;
use crate::dispatch::request_log::RequestLog;
use crate::dispatch::{self, Answers, Calling};
use crate::exchange::Event;
use crate::failure::{Failure, Kind};
use crate::runtime::Snapshot;
use crate::service::Service;

const IGNORED_PARAMS: HeaderName = HeaderName::from_static("x-ignored-params");

/// The longest answer in one piece, in bytes. The longest answers of a model are below one MiB.
const ANSWER_MAX: usize = 64 << 20;

/// Answers a chat completion request, streaming or not.
pub(in crate::api) async fn completions(
    State(service): State<Arc<Service>>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(calling): Extension<Calling>,
    request: axum::extract::Request,
) -> Response {
    let (books, key) = (service.books.clone(), calling.key.clone());
    let mut log = RequestLog::new(books, id, key, request.headers());
    let snapshot = service.snapshot();
    let read = match read(&service, &snapshot, request.into_body(), &mut log).await {
        Ok(read) => read,
        Err(failure) => return refuse(&snapshot.config.http, failure, log),
    };
    let (snapshot, wanted) = read;
    let http = &snapshot.config.http;
    let ChatRequest {
        request,
        include_usage,
    } = wanted;
    let (stream, ignored) = (request.body.stream, request.ignored.clone());
    let answers = dispatch::dispatch(&service, &snapshot, calling, request, &mut log).await;
    let cached = answers.as_ref().ok().and_then(|answers| answers.cached);
    let mut response = match answers {
        Err(failure) => return refuse(http, failure, log),
        Ok(answers) if stream => streamed(&service, http, answers, include_usage, log).await,
        Ok(answers) => whole(&service, http, answers, log).await,
    };
    tell_cache(&mut response, cached);
    if response.status().is_success()
        && !ignored.is_empty()
        && let Ok(list) = HeaderValue::from_str(&listed(&ignored))
    {
        response.headers_mut().insert(IGNORED_PARAMS, list);
    }
    response
}

/// Reads a request. Returns it with the snapshot that it keeps from here on.
async fn read(
    service: &Service,
    snapshot: &Arc<Snapshot>,
    body: Body,
    log: &mut RequestLog,
) -> Result<(Arc<Snapshot>, ChatRequest), Failure> {
    dispatch::check(service)?;
    let Read { bytes, share } = body::read(body, &snapshot.config.http, &service.bodies).await?;
    log.hold(share);
    let mut snapshot = snapshot.clone();
    // Only a loaded adapter says which fields it honours.
    if snapshot.guests.has_pending()
        && let Some(model) = model_of(&bytes)
    {
        snapshot = dispatch::settled(service, snapshot, &model).await;
    }
    let request = blocking::run_on(bytes.len(), || {
        ChatRequest::parse(bytes, |model| Honours(snapshot.honours(model)))
    });
    match request {
        Ok(request) => Ok((snapshot, request)),
        Err(unread) => {
            let route = unread.model.and_then(|model| snapshot.models.route(&model));
            log.named(route.map(|route| route.label).unwrap_or_default());
            Err(unread.failure)
        }
    }
}

/// The answer as a stream, whose status line waits for the first content or error.
async fn streamed(
    service: &Service,
    http: &HttpConfig,
    mut answers: Answers,
    include_usage: bool,
    log: RequestLog,
) -> Response {
    match first_event(http, &mut answers.choices).await {
        Err(failure) => refuse(http, failure, log),
        Ok(first) => {
            let settings = stream::Settings::new(http, include_usage);
            stream::response(answers, settings, first, log, service.processes.clone()).await
        }
    }
}

/// The answer in one piece: the folded stream.
async fn whole(
    service: &Service,
    http: &HttpConfig,
    answers: Answers,
    mut log: RequestLog,
) -> Response {
    let Answers {
        head,
        mut choices,
        output,
        ..
    } = answers;
    match fold(&service.processes, &mut choices, &output, &mut log).await {
        Err(failure) => refuse(http, failure, log),
        Ok(answers) => {
            let json = [(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )];
            let usage = choices.usage();
            let body = ascii_json::to_vec(&completion(&head, answers, usage.as_ref()));
            log.finished(usage);
            (json, body).into_response()
        }
    }
}

/// Joins names with commas, as many as fit into a header that every client can read.
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

/// Holds the status line back until the first content or error, for at most `hold`, so that a
/// failure has its true status.
async fn first_event(
    http: &HttpConfig,
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
    output: &OutputSchema,
    log: &mut RequestLog,
) -> Result<Vec<Value>, Failure> {
    let mut answers = Vec::new();
    answers.resize_with(choices.len(), Answer::default);
    let mut done = vec![Value::Null; choices.len()];
    while let Some((index, event)) = choices.next().await {
        match event {
            Event::Delta(delta) => {
                log.delta(delta.size());
                answers[index].push(delta);
                if answers[index].size() > ANSWER_MAX {
                    let message = format!("the answer is longer than {ANSWER_MAX} bytes");
                    return Err(Failure::new(Kind::Backend, message));
                }
            }
            Event::Finish(outcome) => {
                let answer = std::mem::take(&mut answers[index]);
                output
                    .check(processes, &answer, outcome.finish_reason)
                    .await?;
                done[index] = choice(answer, index, outcome.finish_reason);
            }
            Event::Fail(failure) => return Err(failure),
        }
    }
    Ok(done)
}

fn refuse(http: &HttpConfig, failure: Failure, mut log: RequestLog) -> Response {
    let status = error::status(&failure, http.rate_limit_status);
    log.failed(&failure, status.as_u16());
    let mut response = failure.into_response();
    response.extensions_mut().insert(Recorded);
    response
}
