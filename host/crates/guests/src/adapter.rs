//! Calls an adapter for one request, on an instance of its own.

use std::sync::Arc;

use serde_json::{Value, json};
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use crate::GuestError;
use crate::admit::Guest;
use crate::cases::Tape;
use crate::completion::{Context, Held, Resumption, Wanted};
use crate::contract::v1_0::{self, Adapter, Calls, Effects, Instance};
use crate::engine::{Effort, State};
use crate::instance::{Configured, NotOpened};
use crate::report::Question;
use crate::request::Request;

/// One request's instance of an adapter. It holds its guest to its end, whatever is loaded
/// meanwhile.
pub struct AdapterSession {
    of: Configured,
    store: Store<State>,
    instance: Instance,
    session: ResourceAny,
    /// Bytes of output that it was given.
    read: usize,
    /// Records the request, if somebody asked for it.
    tape: Option<Tape>,
}

impl AdapterSession {
    /// Opens a session for a request of `size` bytes.
    pub fn open(
        of: Configured,
        context: &Context,
        request: &Request,
        size: usize,
    ) -> Result<Self, NotOpened> {
        let (mut store, instance) = of.ready(context)?;
        let adapter = calls(&instance)?;
        let mut tape = of.guest.tape();
        if let Some(tape) = &mut tape {
            tape.begins(&of, context, request);
        }
        let open = |store: &mut Store<State>| {
            v1_0::with_request(request, |request| adapter.open(store, context, request))
        };
        let engine = &of.guest.engine;
        let opened = engine.call(&mut store, "session.open", Effort::Request(size), open)?;
        let session = opened.map_err(NotOpened::Refused)?;
        Ok(AdapterSession {
            of,
            store,
            instance,
            session,
            read: 0,
            tape,
        })
    }

    /// Opens a session that only asks the command line something, if the adapter can.
    pub fn probe(
        of: Configured,
        context: &Context,
        question: Question,
    ) -> Result<Option<Self>, GuestError> {
        let (mut store, instance) = of.ready(context)?;
        let adapter = calls(&instance)?;
        let probe = |store: &mut Store<State>| adapter.probe(store, context, question);
        let engine = &of.guest.engine;
        let opened = engine.call(&mut store, "probe.open", Effort::Request(0), probe)?;
        Ok(opened.map(|session| AdapterSession {
            of,
            store,
            instance,
            session,
            read: 0,
            tape: None,
        }))
    }

    /// The guest that is called.
    pub fn guest(&self) -> &Arc<Guest> {
        &self.of.guest
    }

    /// Names and values of the launch options that the process is to have.
    pub fn launch_options(&mut self) -> Result<Vec<(String, String)>, GuestError> {
        self.note(|| json!({"call": "launch-options"}));
        self.call(
            "session.launch-options",
            Effort::Request(0),
            Adapter::launch_options,
        )
    }

    /// What a process must hold to go on with this request of `request_size` bytes.
    pub fn want(&mut self, request_size: usize) -> Result<Option<Wanted>, GuestError> {
        self.note(|| json!({"call": "want"}));
        self.call("reuse.want", Effort::Request(request_size), Adapter::want)
    }

    /// The process is there. `request_size` is how many bytes there may be to write.
    pub fn start(&mut self, request_size: usize) -> Result<Effects, GuestError> {
        self.note(|| json!({"call": "start"}));
        self.call(
            "session.start",
            Effort::Request(request_size),
            Adapter::start,
        )
    }

    /// The process is there, and holds what was wanted.
    pub fn resume(
        &mut self,
        resumption: &Resumption,
        request_size: usize,
    ) -> Result<Effects, GuestError> {
        if let Some(tape) = &mut self.tape {
            tape.resumes(resumption);
        }
        let effort = Effort::Request(request_size);
        self.call("reuse.resume", effort, |adapter, store, session| {
            adapter.resume(store, session, resumption)
        })
    }

    /// What one read of the output gave. While the conversation is still being written, a short line may set
    /// off a long turn: `request_size` bytes may be returned beside what the lines may cause.
    pub fn output(&mut self, lines: &[&str], request_size: usize) -> Result<Effects, GuestError> {
        let size = lines.iter().map(|line| line.len()).sum::<usize>();
        self.read = self.read.saturating_add(size);
        let effort = Effort::Line(size.saturating_add(request_size));
        self.note(|| json!({"call": "output", "lines": lines}));
        self.call("session.output", effort, |adapter, store, session| {
            adapter.output(store, session, lines)
        })
    }

    /// The process ended.
    pub fn exit(&mut self, status: Option<i32>, stderr: &str) -> Result<Effects, GuestError> {
        // It may have kept all that it read, to make something of it now.
        let effort = Effort::Request(self.read.saturating_add(stderr.len()));
        self.note(|| json!({"call": "exit", "status": status, "stderr": stderr}));
        self.call("session.exit", effort, |adapter, store, session| {
            adapter.exit(store, session, status, stderr)
        })
    }

    /// What brings the process to rest, after an answer that ended before it was. None if there is no use in that.
    pub fn interrupt(&mut self) -> Result<Option<Effects>, GuestError> {
        self.note(|| json!({"call": "interrupt"}));
        self.call("reuse.interrupt", Effort::Request(0), Adapter::interrupt)
    }

    /// What the process holds now. `size` is how many bytes were asked and answered.
    pub fn hold(&mut self, size: usize) -> Result<Option<Held>, GuestError> {
        self.note(|| json!({"call": "hold"}));
        self.call("reuse.hold", Effort::Request(size), Adapter::hold)
    }

    fn note(&mut self, call: impl FnOnce() -> Value) {
        if let Some(tape) = &mut self.tape {
            tape.note(call());
        }
    }

    fn call<T: Send>(
        &mut self,
        function: &'static str,
        effort: Effort,
        call: impl FnOnce(&Adapter, &mut Store<State>, ResourceAny) -> wasmtime::Result<T> + Send,
    ) -> Result<T, GuestError> {
        let (adapter, session) = (calls(&self.instance)?, self.session);
        let call = |store: &mut Store<State>| call(adapter, store, session);
        self.of
            .guest
            .engine
            .call(&mut self.store, function, effort, call)
    }
}

fn calls(instance: &Instance) -> Result<&Adapter, GuestError> {
    match &instance.calls {
        Calls::Adapter(adapter) => Ok(adapter),
        _ => Err(GuestError::Contract("it is no adapter".into())),
    }
}
