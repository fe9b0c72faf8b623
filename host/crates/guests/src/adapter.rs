//! Calls an adapter for one request, on an instance of its own.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use super::GuestError;
use super::admit::Guest;
use super::completion::{ApiError, Context, Holding, Json};
use super::contract::v0_1::adapter::{Effect, GuestExchange as SessionCalls};
use super::contract::v0_1::{self, AdapterGuest, Effects};
use super::engine::{Effort, State};

/// One request's instance of an adapter. It uses the same guest until its end, even if another one is loaded
/// meanwhile.
pub struct AdapterSession {
    guest: Arc<Guest>,
    store: Store<State>,
    instance: AdapterGuest,
    exchange: ResourceAny,
}

/// Why an adapter did not open an exchange.
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

/// Makes a fresh instance and configures it. The inner error is what the guest says of its configuration.
pub(crate) fn instantiate(
    guest: &Guest,
) -> Result<Result<(Store<State>, AdapterGuest), String>, GuestError> {
    let mut store = guest.engine.store(&guest.settings);
    let effort = Effort::Request(guest.config.len());
    let instance = guest
        .engine
        .call(&mut store, effort, |store| guest.pre.instantiate(store))?;
    let adapter = instance.claude_harness_guest_adapter();
    let taken = guest.engine.call(&mut store, effort, |store| {
        adapter.call_configure(store, &guest.config)
    })?;
    Ok(taken.map(|()| (store, instance)))
}

impl AdapterSession {
    /// Opens an exchange for a request.
    pub fn open(guest: Arc<Guest>, context: &Context, request: &Json) -> Result<Self, NotOpened> {
        let (mut store, instance) = ready(&guest)?;
        let context = v0_1::context(context);
        let adapter = instance.claude_harness_guest_adapter().exchange();
        let opened = guest
            .engine
            .call(&mut store, Effort::Request(request.len()), |store| {
                adapter.call_open(store, &context, request)
            })?;
        let exchange = opened.map_err(|error| NotOpened::Refused(error.into()))?;
        Ok(AdapterSession {
            guest,
            store,
            instance,
            exchange,
        })
    }

    /// Opens an exchange that only asks what the backend offers, if the adapter has one.
    pub fn probe(guest: Arc<Guest>, context: &Context) -> Result<Option<Self>, GuestError> {
        let (mut store, instance) = ready(&guest)?;
        let context = v0_1::context(context);
        let adapter = instance.claude_harness_guest_adapter().exchange();
        let opened = guest.engine.call(&mut store, Effort::Request(0), |store| {
            adapter.call_probe(store, &context)
        })?;
        Ok(opened.map(|exchange| AdapterSession {
            guest,
            store,
            instance,
            exchange,
        }))
    }

    /// The guest that is called.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Names and values for the launch profile's placeholders.
    pub fn placeholders(&mut self) -> Result<Vec<(String, String)>, GuestError> {
        let placeholders = self.call(Effort::Request(0), |adapter, store, exchange| {
            adapter.call_placeholders(store, exchange)
        })?;
        Ok(placeholders
            .into_iter()
            .map(|p| (p.name, p.value))
            .collect())
    }

    /// What a process must hold to go on with this request of `request_size` bytes.
    pub fn history(&mut self, request_size: usize) -> Result<Option<Vec<u8>>, GuestError> {
        let effort = Effort::Request(request_size);
        self.call(effort, |adapter, store, exchange| {
            adapter.call_history(store, exchange)
        })
    }

    /// Tells the guest that its process is there, and holds nothing. The guest may have `request_size` bytes to
    /// write.
    pub fn start(&mut self, request_size: usize) -> Result<Effects, GuestError> {
        let effort = Effort::Request(request_size);
        self.effects(effort, |adapter, store, exchange| {
            adapter.call_start(store, exchange)
        })
    }

    /// Tells the guest that its process is there, and holds the history. `memo` is from the exchange before.
    pub fn resume(&mut self, memo: &str, request_size: usize) -> Result<Effects, GuestError> {
        let effort = Effort::Request(request_size);
        self.effects(effort, |adapter, store, exchange| {
            adapter.call_resume(store, exchange, memo)
        })
    }

    /// Gives the guest a piece of output. While the conversation is still being written, a short line may make
    /// the guest write a long turn. So the call has the bounds of a line that is `request_size` bytes longer.
    pub fn output(&mut self, piece: &[u8], request_size: usize) -> Result<Effects, GuestError> {
        let effort = Effort::Line(piece.len().saturating_add(request_size));
        self.effects(effort, |adapter, store, exchange| {
            adapter.call_output(store, exchange, piece)
        })
    }

    /// Tells the guest that the process ended.
    pub fn exit(&mut self, status: Option<i32>, stderr: &str) -> Result<Effects, GuestError> {
        let effort = Effort::Request(stderr.len());
        self.effects(effort, |adapter, store, exchange| {
            adapter.call_exit(store, exchange, status, stderr)
        })
    }

    /// What the process holds now. `size` is the number of bytes of the request and the answer.
    pub fn holding(&mut self, size: usize) -> Result<Option<Holding>, GuestError> {
        let holding = self.call(Effort::Request(size), |adapter, store, exchange| {
            adapter.call_holding(store, exchange)
        })?;
        Ok(holding.map(Into::into))
    }

    fn effects(
        &mut self,
        effort: Effort,
        call: impl FnOnce(
            SessionCalls<'_>,
            &mut Store<State>,
            ResourceAny,
        ) -> wasmtime::Result<Vec<Effect>>
        + Send,
    ) -> Result<Effects, GuestError> {
        self.call(effort, call).map(Into::into)
    }

    fn call<T: Send>(
        &mut self,
        effort: Effort,
        call: impl FnOnce(SessionCalls<'_>, &mut Store<State>, ResourceAny) -> wasmtime::Result<T>
        + Send,
    ) -> Result<T, GuestError> {
        let adapter = self.instance.claude_harness_guest_adapter().exchange();
        let exchange = self.exchange;
        let call = |store: &mut Store<State>| call(adapter, store, exchange);
        self.guest.engine.call(&mut self.store, effort, call)
    }
}

/// An instance of a guest that was admitted with the same configuration.
fn ready(guest: &Guest) -> Result<(Store<State>, AdapterGuest), GuestError> {
    let taken = instantiate(guest)?;
    taken.map_err(|message| {
        GuestError::Contract(format!(
            "it refused a configuration that it had taken: {}",
            basics::plain::line(&message, 500)
        ))
    })
}
