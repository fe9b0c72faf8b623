//! Calls a dialect for one call of its API, on an instance of its own.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::GuestError;
use crate::admit::Guest;
use crate::completion::{Context, Delta, Outcome};
use crate::contract::v1_0::{self, Calls, Instance};
use crate::engine::{Effort, State};
use crate::http::{HttpFailure, HttpHead, HttpRequest, HttpResponse, OfferedModel, Service};
use crate::instance::{Configured, NotOpened};
use crate::request::Request;

/// A call of the API on its way.
pub struct DialectCall {
    of: Configured,
    store: Store<State>,
    instance: Instance,
    call: ResourceAny,
    /// Bytes of the call's body, which an answer may repeat.
    request_size: usize,
    /// Bytes of the answer so far, which its end may repeat.
    answered: usize,
}

/// What a call of the API is.
pub enum Opened {
    /// A chat completion.
    Completion {
        /// The model's name, as the client wrote it.
        model: String,
        /// How many answers.
        choices: u32,
        /// The request.
        request: Box<Request>,
        /// The call on its way.
        call: Box<DialectCall>,
    },
    /// A call that the dialect answers by itself.
    Reply(HttpResponse),
    /// A call that needs the list of models.
    Models(Box<DialectCall>),
}

/// Asks a dialect which routes it serves.
pub fn serve(of: &Configured, context: &Context) -> Result<Service, GuestError> {
    let (mut store, instance) = of.ready(context)?;
    let dialect = calls(&instance)?;
    let serve = |store: &mut Store<State>| dialect.serve(store);
    let engine = &of.guest.engine;
    engine.call(&mut store, "serve", Effort::Request(0), serve)
}

/// Has a dialect write an error in the form of its API.
pub fn render_error(
    of: &Configured,
    context: &Context,
    failure: &HttpFailure,
) -> Result<HttpResponse, GuestError> {
    let (mut store, instance) = of.ready(context)?;
    let dialect = calls(&instance)?;
    let render = |store: &mut Store<State>| dialect.render_error(store, failure);
    let engine = &of.guest.engine;
    engine.call(&mut store, "render-error", Effort::Request(0), render)
}

/// Has a dialect read a call.
pub fn open(of: Configured, context: &Context, http: &HttpRequest) -> Result<Opened, NotOpened> {
    let (mut store, instance) = of.ready(context)?;
    let dialect = calls(&instance)?;
    let open = |store: &mut Store<State>| dialect.open(store, context, http);
    let engine = &of.guest.engine;
    let opened = engine.call(&mut store, "open", Effort::Request(http.body.len()), open)?;
    let on_its_way = |call| {
        Box::new(DialectCall {
            of: of.clone(),
            store,
            instance,
            call,
            request_size: http.body.len(),
            answered: 0,
        })
    };
    Ok(match opened.map_err(NotOpened::Refused)? {
        v1_0::Opened::Reply(reply) => Opened::Reply(reply),
        v1_0::Opened::Models(call) => Opened::Models(on_its_way(call)),
        v1_0::Opened::Completion {
            model,
            choices,
            request,
            call,
        } => Opened::Completion {
            model,
            choices,
            request,
            call: on_its_way(call),
        },
    })
}

impl DialectCall {
    /// The head of an answer that comes piece by piece. None if the client gets it in one piece.
    pub fn begin(&mut self) -> Result<Option<HttpHead>, GuestError> {
        let room = self.room();
        let (dialect, call) = (calls(&self.instance)?, self.call);
        let engine = &self.of.guest.engine;
        // It may word what repeats fields of the call.
        let effort = Effort::Request(room);
        engine.call(&mut self.store, "call.begin", effort, |store| {
            dialect.begin(store, call)
        })
    }

    /// What the client reads of the next pieces of a choice.
    pub fn take(&mut self, choice: u32, deltas: &[Delta]) -> Result<String, GuestError> {
        let size: usize = deltas.iter().map(Delta::size).sum();
        self.answered = self.answered.saturating_add(size);
        // The first piece may repeat fields of the call, and the end of a part its whole text, several times.
        let effort = Effort::Piece {
            size,
            room: self.room(),
        };
        let (dialect, call) = (calls(&self.instance)?, self.call);
        let take = |store: &mut Store<State>| dialect.take(store, call, choice, deltas);
        let engine = &self.of.guest.engine;
        engine.call(&mut self.store, "call.take", effort, take)
    }

    /// What the client reads at the end of a choice.
    pub fn end_choice(&mut self, choice: u32, outcome: &Outcome) -> Result<String, GuestError> {
        let (dialect, call) = (calls(&self.instance)?, self.call);
        let end = |store: &mut Store<State>| dialect.end_choice(store, call, choice, outcome);
        let engine = &self.of.guest.engine;
        engine.call(&mut self.store, "call.end-choice", Effort::Line(0), end)
    }

    /// The last piece of the body of an answer that failed on its way.
    pub fn fail(mut self, failure: &HttpFailure) -> Result<String, GuestError> {
        let (dialect, call) = (calls(&self.instance)?, self.call);
        // What was written so far may be repeated.
        let size = self.room();
        let fail = |store: &mut Store<State>| dialect.fail(store, call, failure);
        let engine = &self.of.guest.engine;
        engine.call(&mut self.store, "call.fail", Effort::Request(size), fail)
    }

    /// What is sent while nothing else comes.
    pub fn keep_alive(&mut self) -> Result<String, GuestError> {
        let (dialect, call) = (calls(&self.instance)?, self.call);
        let keep = |store: &mut Store<State>| dialect.keep_alive(store, call);
        let engine = &self.of.guest.engine;
        engine.call(&mut self.store, "call.keep-alive", Effort::Line(0), keep)
    }

    /// The list of models in the form of the API.
    pub fn list_models(mut self, models: &[OfferedModel]) -> Result<HttpResponse, GuestError> {
        let (dialect, call) = (calls(&self.instance)?, self.call);
        let size = models.len() * 256;
        let list = |store: &mut Store<State>| dialect.list_models(store, call, models);
        let engine = &self.of.guest.engine;
        engine.call(
            &mut self.store,
            "call.list-models",
            Effort::Request(size),
            list,
        )
    }

    /// Bytes of the call's body.
    pub fn request_size(&self) -> usize {
        self.request_size
    }

    /// How many bytes a call may be about: it may return twice as many, and some more.
    fn room(&self) -> usize {
        let repeated = self.answered.saturating_mul(2);
        self.request_size.saturating_mul(2).saturating_add(repeated)
    }

    /// The guest that is called.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.of.guest
    }

    /// The last piece of the body, or the whole body, of an answer of `size` bytes.
    pub fn finish(mut self, size: usize) -> Result<String, GuestError> {
        let size = size.saturating_add(self.room());
        let (dialect, call) = (calls(&self.instance)?, self.call);
        let finish = |store: &mut Store<State>| dialect.finish(store, call);
        let engine = &self.of.guest.engine;
        engine.call(
            &mut self.store,
            "call.finish",
            Effort::Request(size),
            finish,
        )
    }
}

fn calls(instance: &Instance) -> Result<&v1_0::Dialect, GuestError> {
    match &instance.calls {
        Calls::Dialect(dialect) => Ok(dialect),
        _ => Err(GuestError::Contract("it is no dialect".into())),
    }
}
