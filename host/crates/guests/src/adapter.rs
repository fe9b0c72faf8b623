//! Calls an adapter for one request, on an instance of its own.

use std::sync::Arc;

use basics::plain;
use wasmtime::Store;
use wasmtime::component::ResourceAny;

use super::GuestError;
use super::admit::Guest;
use super::completion::{ApiError, Context, Held, Resumption, Wanted};
use super::contract::v1_0::{self, Adapter, Effects, Problem};
use super::engine::{Effort, State};
use super::request::Request;

/// The longest message of a guest about its configuration, in characters.
const MESSAGE_MAX: usize = 500;

/// One request's instance of an adapter. It holds its guest to its end, whatever is loaded
/// meanwhile.
pub struct AdapterSession {
    guest: Arc<Guest>,
    store: Store<State>,
    adapter: Adapter,
    session: ResourceAny,
}

/// Why an adapter did not open a session.
#[derive(Debug)]
pub enum NotOpened {
    /// It cannot serve this request, and says why.
    Refused(ApiError),
    /// It broke a bound.
    Broken(GuestError),
}

impl From<GuestError> for NotOpened {
    fn from(error: GuestError) -> Self {
        NotOpened::Broken(error)
    }
}

/// A fresh instance that took its configuration; the inner error is what the guest says of the configuration.
pub(crate) fn instantiate(
    guest: &Guest,
) -> Result<Result<(Store<State>, Adapter), String>, GuestError> {
    let mut store = guest.engine.store(&guest.settings);
    let effort = Effort::Request(guest.config.len());
    let adapter = guest
        .engine
        .call(&mut store, effort, |store| guest.pre.instantiate(store))?;
    let taken = guest.engine.call(&mut store, effort, |store| {
        adapter.configure(store, &guest.config)
    })?;
    Ok(match taken {
        Ok(()) => Ok((store, adapter)),
        Err(problems) => Err(listed(&problems)),
    })
}

/// All problems of a configuration as one sentence.
fn listed(problems: &[Problem]) -> String {
    let problem = |problem: &Problem| match problem.key.as_str() {
        "" => problem.message.clone(),
        key => format!("`{key}`: {}", problem.message),
    };
    let all: Vec<String> = problems.iter().map(problem).collect();
    plain::line(&all.join("; "), MESSAGE_MAX)
}

impl Guest {
    /// Makes an instance and drops it: for a benchmark, what a request takes whatever the adapter does.
    ///
    /// # Errors
    ///
    /// Fails if the guest breaks a bound.
    pub fn try_instance(&self) -> Result<(), GuestError> {
        ready(self).map(drop)
    }
}

impl AdapterSession {
    /// Opens a session for a request whose body had `size` bytes.
    pub fn open(
        guest: Arc<Guest>,
        context: &Context,
        request: &Request,
        size: usize,
    ) -> Result<Self, NotOpened> {
        let (mut store, adapter) = ready(&guest)?;
        let open = |store: &mut Store<State>| {
            v1_0::with_request(request, |request| adapter.open(store, context, request))
        };
        let opened = guest.engine.call(&mut store, Effort::Request(size), open)?;
        let session = opened.map_err(NotOpened::Refused)?;
        Ok(AdapterSession {
            guest,
            store,
            adapter,
            session,
        })
    }

    /// Opens a session that only asks what the backend offers, if the adapter has one.
    pub fn probe(guest: Arc<Guest>, context: &Context) -> Result<Option<Self>, GuestError> {
        let (mut store, adapter) = ready(&guest)?;
        let opened = guest.engine.call(&mut store, Effort::Request(0), |store| {
            adapter.probe(store, context)
        })?;
        Ok(opened.map(|session| AdapterSession {
            guest,
            store,
            adapter,
            session,
        }))
    }

    /// The guest that is called.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Names and values of the launch options that the process is to have.
    pub fn launch_options(&mut self) -> Result<Vec<(String, String)>, GuestError> {
        self.call(Effort::Request(0), Adapter::launch_options)
    }

    /// What a process must hold to go on with this request of `request_size` bytes.
    pub fn want(&mut self, request_size: usize) -> Result<Option<Wanted>, GuestError> {
        self.call(Effort::Request(request_size), Adapter::want)
    }

    /// The process is there. `request_size` is how many bytes there may be to write.
    pub fn start(&mut self, request_size: usize) -> Result<Effects, GuestError> {
        self.call(Effort::Request(request_size), Adapter::start)
    }

    /// The process is there, and holds what was wanted.
    pub fn resume(
        &mut self,
        resumption: &Resumption,
        request_size: usize,
    ) -> Result<Effects, GuestError> {
        let effort = Effort::Request(request_size);
        self.call(effort, |adapter, store, session| {
            adapter.resume(store, session, resumption)
        })
    }

    /// What one read of the output gave. While the conversation is still being written, a short line may set
    /// off a long turn: `request_size` bytes may be returned beside what the lines may cause.
    pub fn output(&mut self, lines: &[&str], request_size: usize) -> Result<Effects, GuestError> {
        let size = lines.iter().map(|line| line.len()).sum::<usize>();
        let effort = Effort::Line(size.saturating_add(request_size));
        self.call(effort, |adapter, store, session| {
            adapter.output(store, session, lines)
        })
    }

    /// The process ended.
    pub fn exit(&mut self, status: Option<i32>, stderr: &str) -> Result<Effects, GuestError> {
        let effort = Effort::Request(stderr.len());
        self.call(effort, |adapter, store, session| {
            adapter.exit(store, session, status, stderr)
        })
    }

    /// What the process holds now. `size` is how many bytes were asked and answered.
    pub fn hold(&mut self, size: usize) -> Result<Option<Held>, GuestError> {
        self.call(Effort::Request(size), Adapter::hold)
    }

    fn call<T: Send>(
        &mut self,
        effort: Effort,
        call: impl FnOnce(&Adapter, &mut Store<State>, ResourceAny) -> wasmtime::Result<T> + Send,
    ) -> Result<T, GuestError> {
        let (adapter, session) = (&self.adapter, self.session);
        let call = |store: &mut Store<State>| call(adapter, store, session);
        self.guest.engine.call(&mut self.store, effort, call)
    }
}

/// An instance of a guest that was admitted with the same configuration.
fn ready(guest: &Guest) -> Result<(Store<State>, Adapter), GuestError> {
    instantiate(guest)?.map_err(|message| {
        let what = format!("it refused a configuration that it had taken: {message}");
        GuestError::Contract(what)
    })
}
