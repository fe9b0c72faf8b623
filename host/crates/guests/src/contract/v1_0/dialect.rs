//! Calls of a dialect.

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use super::exports::dialect;
use super::{answer, lowered_context};
use crate::completion::{ApiError, Context, Delta, Outcome};
use crate::engine::State;
use crate::http::{Header, HttpHead, HttpRequest, HttpResponse};
use crate::request::Request;

/// An instance of a dialect.
pub(crate) struct Dialect(pub(super) dialect::Guest);

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
        let opened = self.0.call_open(store, lowered_context(context), http)?;
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
        let head = self.0.call().call_begin(store, call)?;
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
        self.0.call().call_take(store, call, choice, &deltas)
    }

    pub(crate) fn end_choice(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
        choice: u32,
        outcome: &Outcome,
    ) -> wasmtime::Result<String> {
        let outcome = answer::lowered_outcome(outcome);
        self.0.call().call_end_choice(store, call, choice, outcome)
    }

    pub(crate) fn finish(
        &self,
        store: &mut Store<State>,
        call: ResourceAny,
    ) -> wasmtime::Result<String> {
        self.0.call().call_finish(store, call)
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
