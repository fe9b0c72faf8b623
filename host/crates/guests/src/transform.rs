//! Calls a transform for one choice of a request, on an instance of its own.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::GuestError;
use crate::admit::Guest;
use crate::cases::Tape;
use crate::completion::{ApiError, Context, Decision, Delta, Ending, Outcome, Step};
use crate::contract::v1_0::{self, Calls, Instance, Transform};
use crate::engine::{Effort, State};
use crate::instance::{Configured, NotOpened};
use crate::request::Request;

/// Watches the answer of one choice.
pub struct Filter {
    of: Configured,
    store: Store<State>,
    instance: Instance,
    filter: ResourceAny,
    /// Records the request, if somebody asked for it.
    tape: Option<Tape>,
}

/// Shows a request of `size` bytes to a transform: what it makes of the request, and the filter of its answer.
pub fn open(
    of: &Configured,
    context: &Context,
    request: &Request,
    size: usize,
) -> Result<(Decision, Option<Filter>), NotOpened> {
    let (mut store, instance) = of.ready(context)?;
    let transform = calls(&instance)?;
    let mut tape = of.guest.tape();
    if let Some(tape) = &mut tape {
        tape.begins(of, context, request);
    }
    let open = |store: &mut Store<State>| {
        v1_0::with_request(request, |request| transform.open(store, context, request))
    };
    let engine = &of.guest.engine;
    let opened = engine.call(&mut store, "open", Effort::Request(size), open)?;
    let (decision, filter) = opened.map_err(NotOpened::Refused)??;
    let filter = filter.map(|filter| Filter {
        of: of.clone(),
        store,
        instance,
        filter,
        tape,
    });
    Ok((decision, filter))
}

impl Filter {
    /// The transform.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.of.guest
    }

    /// What becomes of the next pieces.
    pub fn take(&mut self, deltas: &[Delta]) -> Result<Step, GuestError> {
        let size = deltas.iter().map(Delta::size).sum();
        if let Some(tape) = &mut self.tape {
            tape.takes(deltas);
        }
        let (transform, filter) = (calls(&self.instance)?, self.filter);
        let take = |store: &mut Store<State>| transform.take(store, filter, deltas);
        let engine = &self.of.guest.engine;
        engine.call(&mut self.store, "filter.take", Effort::Line(size), take)?
    }

    /// The answer is complete. The inner error fails the request. `size` is how many bytes the answer has.
    pub fn finish(
        mut self,
        outcome: &Outcome,
        size: usize,
    ) -> Result<Result<Ending, ApiError>, GuestError> {
        if let Some(tape) = &mut self.tape {
            tape.finishes(outcome);
        }
        let (transform, filter) = (calls(&self.instance)?, self.filter);
        let finish = |store: &mut Store<State>| transform.finish(store, filter, outcome);
        let engine = &self.of.guest.engine;
        match engine.call(
            &mut self.store,
            "filter.finish",
            Effort::Request(size),
            finish,
        )? {
            Ok(ending) => ending.map(Ok),
            Err(error) => Ok(Err(error)),
        }
    }
}

fn calls(instance: &Instance) -> Result<&Transform, GuestError> {
    match &instance.calls {
        Calls::Transform(transform) => Ok(transform),
        _ => Err(GuestError::Contract("it is no transform".into())),
    }
}
