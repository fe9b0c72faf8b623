//! Calls of other HTTP APIs, which dialects read and answer.
//!
//! ```text
//! body ──► dialect.open ──► a chat completion ──► dispatch ──► deltas ──► dialect.take ──► client
//!                    └────► a reply, or the list of models ─────────────────────────────► client
//! ```

mod answer;
mod failure;

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use basics::{blocking, plain};
use guests::GuestError;
use guests::admit::Guest;
use guests::dialect::{self, Opened};
use guests::http::{Header, HttpRequest, HttpResponse, OfferedModel};
use guests::request::chat_json;
use serde_json::Value;
use tokio::time::{Duration, Instant};

use super::body::{self, Read};
use super::{Recorded, RequestId, openai, routes, tell_cache};
use crate::dialects::{Dialect, Found, context, is_own};
use crate::dispatch::request_log::RequestLog;
use crate::dispatch::{self, Calling};
use crate::exchange::{guest_failure, not_opened};
use crate::failure::{Failure, Kind};
use crate::runtime::Snapshot;
use crate::service::Service;
pub(super) use failure::worded;

/// How long a call waits for guests that are still being compiled, and one of which may be the dialect that it is for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Headers that carry keys, whatever a dialect says.
const KEY_HEADERS: [&str; 5] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
];

/// Headers by which an answer would tell a proxy in front of the service to do something.
const OF_PROXIES: [&str; 4] = ["x-accel-", "x-lighttpd-", "x-reproxy-", "x-sendfile"];

/// The dialect whose path a request names. While guests are still being compiled, it may be one of them, so this waits.
pub(super) async fn of(service: &Service, method: Method, uri: Uri) -> Option<Arc<Dialect>> {
    let (method, path) = (method.as_str(), uri.path());
    if is_own(path) {
        return None;
    }
    let is_known = |snapshot: &Snapshot| {
        let found = snapshot.dialects.find(method, path);
        !snapshot.guests.has_pending() || !matches!(found, Found::Nothing)
    };
    if !is_known(&service.snapshot()) {
        let deadline = Instant::now() + PATIENCE;
        service.runtime.until(is_known, deadline).await;
    }
    match service.snapshot().dialects.find(method, path) {
        Found::Dialect(dialect) | Found::OtherMethod(dialect) => Some(dialect),
        Found::Nothing => None,
    }
}

/// Answers a call of a path that is none of the host's.
pub(super) async fn call(
    State(service): State<Arc<Service>>,
    Extension(RequestId(id)): Extension<RequestId>,
    Extension(calling): Extension<Calling>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.as_str(), parts.uri.path());
    let snapshot = service.snapshot();
    let dialect = match snapshot.dialects.find(method, path) {
        Found::Dialect(dialect) => dialect,
        Found::OtherMethod(_) => {
            let message = format!("{path} does not take {method}");
            return Failure::new(Kind::NoSuchMethod, message).into_response();
        }
        Found::Nothing => {
            return routes::no_such_route(parts.method, parts.uri)
                .await
                .into_response();
        }
    };
    let (books, key) = (service.books.clone(), calling.key.clone());
    let mut log = RequestLog::new(books, id.clone(), key, &parts.headers);
    log.through(&dialect.of.guest.name);
    let call = Call {
        service,
        snapshot,
        dialect,
        id,
    };
    match call.answered(&parts, body, calling, log).await {
        Ok(response) => response,
        Err(refused) => {
            let Refused { failure, mut log } = *refused;
            let status =
                openai::error::status(&failure, call.snapshot.config.http.rate_limit_status);
            log.failed(&failure, status.as_u16());
            let mut response = failure.into_response();
            response.extensions_mut().insert(Recorded);
            response
        }
    }
}

/// A call of a dialect's route.
struct Call {
    service: Arc<Service>,
    snapshot: Arc<Snapshot>,
    dialect: Arc<Dialect>,
    id: Arc<str>,
}

/// A call that failed before the answer began, and what the log knows of it.
struct Refused {
    failure: Failure,
    log: RequestLog,
}

impl Call {
    async fn answered(
        &self,
        parts: &Parts,
        body: Body,
        calling: Calling,
        mut log: RequestLog,
    ) -> Result<Response, Box<Refused>> {
        let opened = match self.opened(parts, body, &mut log).await {
            Ok(opened) => opened,
            Err(failure) => return Err(Box::new(Refused { failure, log })),
        };
        let (model, choices, request, call) = match opened {
            Opened::Reply(reply) => return Ok(replied(reply, &mut log)),
            Opened::Models(call) => {
                let models = models(&self.service, &calling);
                let listed = self.run(move || call.list_models(&models)).await;
                return match listed {
                    Ok(reply) => Ok(replied(reply, &mut log)),
                    Err(failure) => Err(Box::new(Refused { failure, log })),
                };
            }
            Opened::Completion {
                model,
                choices,
                request,
                call,
            } => (model, choices, request, call),
        };
        let read = self
            .read(model, choices, &request, call.request_size())
            .await;
        drop(request);
        let answers = match read {
            Ok((snapshot, request)) => {
                dispatch::dispatch(&self.service, &snapshot, calling, request, &mut log).await
            }
            Err(failure) => Err(failure),
        };
        match answers {
            Ok(answers) => {
                let cached = answers.cached;
                let mut response = answer::response(self, call, answers, log).await?;
                tell_cache(&mut response, cached);
                Ok(response)
            }
            Err(failure) => Err(Box::new(Refused { failure, log })),
        }
    }

    /// Has the dialect read the call.
    async fn opened(
        &self,
        parts: &Parts,
        body: Body,
        log: &mut RequestLog,
    ) -> Result<Opened, Failure> {
        dispatch::check(&self.service)?;
        let http = &self.snapshot.config.http;
        let Read { bytes, share } = body::read(body, http, &self.service.bodies).await?;
        log.hold(share);
        let body = String::from_utf8(bytes.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Failure::new(
                Kind::InvalidRequest,
                format!("byte {at} of the body is not UTF-8"),
            )
        })?;
        let request = HttpRequest {
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            headers: self.headers(parts),
            body,
        };
        let (of, context) = (self.dialect.of.clone(), context(self.id.to_string()));
        let _reading = log.trace().step("dialect");
        let opened = self
            .run(move || Ok(dialect::open(of, &context, &request)))
            .await?;
        opened.map_err(|why| not_opened(self.guest(), why))
    }

    /// The headers that the dialect wants to see. Those that carry keys are not among them.
    fn headers(&self, parts: &Parts) -> Vec<Header> {
        let service = &self.dialect.service;
        let is_key =
            |name: &String| KEY_HEADERS.contains(&&**name) || service.key_headers.contains(name);
        let access = &self.snapshot.config.access;
        let wanted = service.headers.iter().filter(|name| !is_key(name));
        let sent = wanted.filter_map(|name| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            // Wherever it stands, a key of the service is nobody's business.
            access
                .accepted(value)
                .is_none()
                .then(|| (name.clone(), value.to_owned()))
        });
        sent.collect()
    }

    /// Reads the chat completion that the dialect made, as if a client had sent it: the same bounds, the same fields.
    async fn read(
        &self,
        model: String,
        choices: u32,
        request: &guests::request::Request,
        size: usize,
    ) -> Result<(Arc<Snapshot>, dispatch::Request), Failure> {
        let snapshot = dispatch::settled(&self.service, self.snapshot.clone(), &model).await;
        let request = blocking::run_on(size, || {
            openai::chat_request(as_chat(&model, choices, request), None, &snapshot)
        })?;
        Ok((snapshot, request))
    }

    fn guest(&self) -> &Arc<Guest> {
        &self.dialect.of.guest
    }

    /// Calls the dialect where its guest may run.
    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> Result<T, GuestError> + Send + 'static,
    ) -> Result<T, Failure> {
        run(&self.service, self.guest(), call).await
    }
}

/// The body of the chat completion that a dialect made of a call.
fn as_chat(model: &str, choices: u32, request: &guests::request::Request) -> String {
    let mut body = chat_json::body(request);
    body["model"] = Value::from(model);
    body["n"] = choices.into();
    body.to_string()
}

/// What a call with POST becomes as the body of a chat completion, without being carried out. This may take long.
///
/// # Errors
///
/// Fails if no dialect has the path, if the dialect refuses the call, or if the call needs no model.
pub(super) fn chat_of(snapshot: &Snapshot, path: &str, body: String) -> Result<String, Failure> {
    let Found::Dialect(dialect) = snapshot.dialects.find("POST", path) else {
        let message = format!("no dialect serves POST {}", plain::line(path, 100));
        return Err(Failure::invalid("path", message));
    };
    let http = HttpRequest {
        method: "POST".into(),
        path: path.to_owned(),
        body,
        ..HttpRequest::default()
    };
    let context = context("req_rendered".into());
    let opened = dialect::open(dialect.of.clone(), &context, &http);
    match opened.map_err(|why| not_opened(&dialect.of.guest, why))? {
        Opened::Completion {
            model,
            choices,
            request,
            ..
        } => Ok(as_chat(&model, choices, &request)),
        Opened::Reply(_) | Opened::Models(_) => {
            let message = "the dialect answers this call itself: nothing is told to a process";
            Err(Failure::invalid("request", message.to_owned()))
        }
    }
}

/// Calls a guest where its standing lets it run.
async fn run<T: Send + 'static>(
    service: &Service,
    guest: &Arc<Guest>,
    call: impl FnOnce() -> Result<T, GuestError> + Send + 'static,
) -> Result<T, Failure> {
    let guest = guest.clone();
    let standing = guest.standing();
    let call = move || call().map_err(|error| guest_failure(&guest, &error));
    service.lanes.run(standing, async move { call() }).await
}

/// The models that the service offers to a caller.
fn models(service: &Service, calling: &Calling) -> Vec<OfferedModel> {
    let listed = service.snapshot().models.list().into_iter();
    let listed = listed.filter(|model| calling.may_use(&model.id));
    let offered = listed.map(|model| OfferedModel {
        id: model.id,
        owner: model.backend,
        context_length: model.context_length,
    });
    offered.collect()
}

/// A reply, with its status in the log.
fn replied(reply: HttpResponse, log: &mut RequestLog) -> Response {
    let response = response(reply);
    log.replied(response.status().as_u16());
    response
}

/// Whatever a dialect writes, a browser runs nothing of it: a page of this service's origin could call the admin area.
fn harmless(response: &mut Response) {
    let headers = response.headers_mut();
    let policy = HeaderValue::from_static("default-src 'none'; sandbox");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    let nosniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
}

/// A reply of a dialect's. Headers that are the host's alone are left out.
fn response(reply: HttpResponse) -> Response {
    let status = StatusCode::from_u16(reply.status)
        .ok()
        .filter(|status| status.as_u16() >= 200);
    let mut response = (status.unwrap_or(StatusCode::BAD_GATEWAY), reply.body).into_response();
    // Not what the framework guesses.
    response.headers_mut().remove(header::CONTENT_TYPE);
    add_headers(&mut response, reply.headers);
    harmless(&mut response);
    response
}

/// Adds the headers of a dialect's that it may set: those of content, and names that no browser or proxy acts upon.
fn add_headers(response: &mut Response, headers: Vec<Header>) {
    for (name, value) in headers {
        let is_known = ["content-type", "cache-control", "request-id"].contains(&&*name);
        let begins = |begins: &[&str]| begins.iter().any(|begin| name.starts_with(begin));
        let may_set =
            is_known || (begins(&["x-", "anthropic-", "openai-"]) && !begins(&OF_PROXIES));
        let header = HeaderName::try_from(name)
            .ok()
            .zip(HeaderValue::try_from(value).ok());
        if let Some((name, value)) = header.filter(|_| may_set) {
            response.headers_mut().insert(name, value);
        }
    }
}
