//! Calls of a dialect.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Instance, ResourceAny};

use super::bindings::exports::harness::guest::dialect;
use super::bindings::harness::guest::types;
use super::{answer, exports, lowered_context};
use crate::completion::{ApiError, Context, Delta, ErrorKind, Outcome};
use crate::engine::State;
use crate::http::{
    Header, HttpFailure, HttpHead, HttpRequest, HttpResponse, OfferedModel, Route, Service,
};
use crate::request::Request;

/// An instance of a dialect.
pub(crate) struct Dialect {
    pub(super) exports: Arc<exports::Dialect>,
    pub(super) instance: Instance,
}

/// What a call of the API is.
pub(crate) enum Opened {
    Completion {
        model: String,
        choices: u32,
        request: Box<Request>,
        call: ResourceAny,
    },
    Reply(HttpResponse),
    Models(ResourceAny),
}

impl Dialect {
    pub(crate) fn serve(&self, store: &mut Store<State>) -> wasmtime::Result<Service> {
        let service = self.exports.serve(store, &self.instance)?;
        let routes = service.routes.into_iter().map(|route| Route {
            method: route.method,
            path: route.path,
        });
        Ok(Service {
            routes: routes.collect(),
            key_headers: service.key_headers,
            headers: service.headers,
        })
    }

    pub(crate) fn render_error(
        &self,
        store: &mut Store<State>,
        failure: &HttpFailure,
    ) -> wasmtime::Result<HttpResponse> {
        let rendered =
            self.exports
                .render_error(store, &self.instance, lowered_failure(failure))?;
        Ok(response(rendered))
    }

    pub(crate) fn fail(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
        failure: &HttpFailure,
    ) -> wasmtime::Result<String> {
        let failure = lowered_failure(failure);
        self.exports.fail(store, &self.instance, call, failure)
    }

    pub(crate) fn keep_alive(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
    ) -> wasmtime::Result<String> {
        self.exports.keep_alive(store, &self.instance, call)
    }

    pub(crate) fn list_models(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
        models: &[OfferedModel],
    ) -> wasmtime::Result<HttpResponse> {
        let models: Vec<_> = models
            .iter()
            .map(|model| dialect::OfferedModel {
                id: &model.id,
                owner: &model.owner,
                context_length: model.context_length,
                extra: None,
            })
            .collect();
        let listed = self
            .exports
            .list_models(store, &self.instance, call, &models)?;
        Ok(response(listed))
    }

    pub(crate) fn open(
        &self,
        store: &mut Store<State>,
        context: &Context,
        http: &HttpRequest,
    ) -> wasmtime::Result<Result<Opened, ApiError>> {
        let headers = http.headers.iter();
        let headers: Vec<_> = headers
            .map(|(name, value)| dialect::HeaderParam { name, value })
            .collect();
        let http = dialect::HttpRequest {
            method: &http.method,
            path: &http.path,
            query: http.query.as_deref(),
            headers: &headers,
            body: &http.body,
            extra: None,
        };
        let opened = self
            .exports
            .open(store, &self.instance, lowered_context(context), http)?;
        Ok(match opened {
            Err(error) => Err(error.into()),
            Ok(dialect::Opened::Reply(reply)) => Ok(Opened::Reply(response(reply))),
            Ok(dialect::Opened::Models(listing)) => Ok(Opened::Models(listing.call)),
            Ok(dialect::Opened::Completion(completion)) => Ok(Opened::Completion {
                model: completion.model,
                choices: completion.choices,
                request: Box::new(completion.request.into()),
                call: completion.call,
            }),
        })
    }

    pub(crate) fn begin(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
    ) -> wasmtime::Result<Option<HttpHead>> {
        let head = self.exports.begin(store, &self.instance, call)?;
        Ok(head.map(|head| HttpHead {
            status: head.status,
            content_type: head.content_type,
            headers: headers(head.headers),
        }))
    }

    pub(crate) fn take(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
        choice: u32,
        deltas: &[Delta],
    ) -> wasmtime::Result<String> {
        let values = answer::values(deltas);
        let deltas: Vec<_> = deltas
            .iter()
            .zip(&values)
            .map(|(delta, value)| answer::lowered_delta(delta, value))
            .collect();
        self.exports
            .take(store, &self.instance, call, choice, &deltas)
    }

    pub(crate) fn end_choice(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
        choice: u32,
        outcome: &Outcome,
    ) -> wasmtime::Result<String> {
        let outcome = answer::lowered_outcome(outcome);
        self.exports
            .end_choice(store, &self.instance, call, choice, outcome)
    }

    pub(crate) fn finish(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
    ) -> wasmtime::Result<String> {
        self.exports.finish(store, &self.instance, call)
    }
}

fn response(response: dialect::HttpResponse) -> HttpResponse {
    HttpResponse {
        status: response.status,
        headers: headers(response.headers),
        body: response.body,
    }
}

fn headers(headers: Vec<dialect::HeaderResult>) -> Vec<Header> {
    let headers = headers.into_iter();
    headers.map(|header| (header.name, header.value)).collect()
}

fn lowered_failure(failure: &HttpFailure) -> dialect::Failure<'_> {
    use types::ErrorKind as Theirs;
    dialect::Failure {
        status: failure.status,
        kind: match failure.kind {
            ErrorKind::InvalidRequest => Theirs::InvalidRequest,
            ErrorKind::UnsupportedParameter => Theirs::UnsupportedParameter,
            ErrorKind::ContextLength => Theirs::ContextLength,
            ErrorKind::Authentication => Theirs::Authentication,
            ErrorKind::Permission => Theirs::Permission,
            ErrorKind::ModelNotFound => Theirs::ModelNotFound,
            ErrorKind::RateLimit => Theirs::RateLimit,
            ErrorKind::Overloaded => Theirs::Overloaded,
            ErrorKind::Timeout => Theirs::Timeout,
            ErrorKind::BackendFailed => Theirs::BackendFailed,
            ErrorKind::ToolChoiceNotHonoured => Theirs::ToolChoiceNotHonoured,
            ErrorKind::SchemaNotMet => Theirs::SchemaNotMet,
            ErrorKind::InvalidJson => Theirs::InvalidJson,
            ErrorKind::Refused => Theirs::Refused,
        },
        code: failure.code.as_deref(),
        message: &failure.message,
        param: failure.param.as_deref(),
        retry_at: failure.retry_at,
        extra: None,
    }
}
