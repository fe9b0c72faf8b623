//! HTTP and the wire types of the APIs. No other module knows them. Each API has a folder.

mod access;
mod admin;
mod body;
mod console;
mod dialect;
mod openai;
mod openapi;
mod pages;
mod routes;
mod turned_away;

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use guests::admit::Judges;

use crate::cache;
use crate::dialects::Dialect;
use crate::dispatch::Calling;
use crate::failure::Failure;
use crate::service::Service;
use access::Area;

/// The header with the id of a request. Every log line about the request has the same id.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) use openai::{case_request, chat_request};

/// What guests are judged by.
pub(crate) const JUDGES: Judges = Judges {
    read_request: case_request,
    check_settings: crate::schema_check::check_settings,
};

/// How a request reached this service, known from the socket it came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Through TCP, where web pages can come from.
    Tcp,
    /// Through a Unix socket, whose file's permissions say who may come.
    Unix,
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) transport: Transport,
    /// Its address, where it came through TCP.
    pub(crate) address: Option<IpAddr>,
}

/// Marks the response of a failure whose request was already counted and logged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded;

/// The header that says what the cache did.
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// Says in a response what the cache did, if there is one.
fn tell_cache(response: &mut Response, cached: Option<cache::Outcome>) {
    if let Some(outcome) = cached {
        let name = HeaderValue::from_static(outcome.name());
        response.headers_mut().insert(X_CACHE, name);
    }
}

/// The id of one request.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) Arc<str>);

/// All routes, by area.
pub(crate) fn router(service: Arc<Service>) -> Router {
    let public = Router::new()
        .route("/", get(routes::home))
        .route("/health", get(admin::health::health))
        .route("/openapi.json", get(openapi::describe))
        .route("/console", get(console::enter))
        .route("/console/", get(console::index))
        .route("/console/{name}", get(console::file));
    let inference = Router::new()
        .route("/v1/chat/completions", post(openai::chat::completions))
        .route("/v1/models", get(openai::models::models))
        .route("/v1/models/{*id}", get(openai::models::model))
        .fallback(dialect::call);
    let admin = Router::new()
        .route("/metrics", get(admin::metrics::metrics))
        .route("/admin/events", get(admin::now::events))
        .route("/admin/requests", get(admin::now::requests))
        .route("/admin/guests", get(admin::guests::list))
        .route(
            "/admin/guests/{name}/rollback",
            post(admin::guests::roll_back),
        )
        .route("/admin/guests/{name}/record", post(admin::record::record))
        .route("/admin/plan", get(admin::plan::plans))
        .route("/admin/reload", post(admin::reload::reload))
        .route("/admin/render", post(admin::render::show))
        .route("/admin/run", post(admin::trial::run))
        .route("/admin/usage", get(admin::usage::sums));
    let area = |router: Router<Arc<Service>>, area: Area, render: Render| {
        let state = (service.clone(), area, render);
        let router = router.method_not_allowed_fallback(routes::no_such_method);
        router.layer(middleware::from_fn_with_state(state, guard))
    };
    area(public, Area::Public, openai::error::response)
        .merge(
            area(inference, Area::Inference, openai::error::response).layer(
                middleware::from_fn_with_state(service.clone(), pages::pages),
            ),
        )
        .merge(area(admin, Area::Admin, openai::error::response))
        .layer(middleware::from_fn(identify))
        .with_state(service)
}

/// Makes an API's response for a failure. The number is the status for a usage limit.
type Render = fn(&Failure, u16) -> Response;

/// Gives each request an id.
async fn identify(mut request: Request, next: Next) -> Response {
    let id: Arc<str> = format!("req_{}", uuid::Uuid::new_v4().simple()).into();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Lets a request into an area.
async fn guard(
    State((service, area, render)): State<(Arc<Service>, Area, Render)>,
    Extension(RequestId(id)): Extension<RequestId>,
    mut request: Request,
    next: Next,
) -> Response {
    let dialect = match area {
        Area::Inference => {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            dialect::of(&service, method, uri).await
        }
        Area::Public | Area::Admin => None,
    };
    let snapshot = service.snapshot();
    let key_headers = dialect
        .as_ref()
        .map_or(&[][..], |dialect| &dialect.service.key_headers);
    let mut calling = None;
    let response = match access::admit(&snapshot.config, area, key_headers, &mut request) {
        Ok(()) => {
            calling = request.extensions().get::<Calling>().cloned();
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    };
    let id = RequestId(id);
    let mut response = failure_told(&service, dialect.as_ref(), render, &id, response).await;
    if let (Area::Inference, Some(calling)) = (area, calling) {
        tell_limits(&service, &calling, &mut response);
    }
    response
}

/// Turns a failure into a response in the form of the API that was called, and counts and logs it, unless it is [`Recorded`].
async fn failure_told(
    service: &Service,
    dialect: Option<&Arc<Dialect>>,
    render: Render,
    RequestId(id): &RequestId,
    mut response: Response,
) -> Response {
    let Some(failure) = response.extensions_mut().remove::<Failure>() else {
        return response;
    };
    let is_recorded = response.extensions().get::<Recorded>().is_some();
    let status = service.snapshot().config.http.rate_limit_status;
    let mut told = render(&failure, status);
    if let Some(dialect) = dialect {
        told = dialect::worded(service, dialect, id, &failure, told).await;
    }
    if !is_recorded {
        turned_away::note(id, told.status(), failure.log_code());
    }
    told
}

/// Tells a client what its key has left, in the headers that OpenAI has for it.
fn tell_limits(service: &Service, calling: &Calling, response: &mut Response) {
    let Some(key) = &calling.key else { return };
    for left in service.quotas.left(key, &calling.limits) {
        let told = [
            ("limit", left.limit.to_string()),
            ("remaining", left.remaining.to_string()),
            ("reset", format!("{}s", left.reset.as_secs())),
        ];
        for (what, value) in told {
            let name = HeaderName::try_from(format!("x-ratelimit-{what}-{}", left.what));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
    }
}

/// Puts a handler's failure into the response's extensions. `guard` takes it from there, because it knows the
/// API that was called.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        // If nothing replaces this response, the client must not take it for a success.
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
