//! Makes exports of the contract of an [`Adapter`].

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::bindings::exports::harness::guest::{adapter, guest, probe, reuse};
use crate::{
    ApiError, Context, Description, Effect, Held, LaunchOption, Problem, Question, Request,
    Resumption, Wanted, state,
};

/// One request on one process of a command line. `wit/1.0.0/adapter.wit` says when each function is called.
pub trait Adapter: Sized + 'static {
    /// What [`Adapter::configure`] makes of the configuration.
    type Settings: 'static;

    /// Says what this guest is.
    fn describe() -> Description;

    /// Reads the configuration; [`crate::settings`] does it for a type that serde knows.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    fn configure(config: &str) -> Result<Self::Settings, Vec<Problem>>;

    /// Opens a session for a request.
    ///
    /// # Errors
    ///
    /// Refuses the request.
    fn open(
        settings: &Self::Settings,
        context: Context,
        request: Request,
    ) -> Result<Self, ApiError>;

    /// Opens a session that only asks the command line something.
    fn probe(_settings: &Self::Settings, _context: Context, _question: Question) -> Option<Self> {
        None
    }

    /// The launch options for this request's process.
    fn launch_options(&self) -> Vec<LaunchOption> {
        Vec::new()
    }

    /// There is a process that holds nothing.
    fn start(&mut self) -> Vec<Effect>;

    /// What one read of the process's output gave.
    fn output(&mut self, lines: Vec<String>) -> Vec<Effect>;

    /// The process ended before the session did.
    fn exit(&mut self, status: Option<i32>, stderr_tail: String) -> Vec<Effect>;

    /// What a process must hold to go on with this session.
    fn want(&self) -> Option<Wanted> {
        None
    }

    /// There is a process that holds what was wanted.
    fn resume(&mut self, _resumption: Resumption) -> Vec<Effect> {
        self.start()
    }

    /// Brings the process to rest, although the answer ended before it was. By default it cannot.
    fn interrupt(&mut self) -> Vec<Effect> {
        let why = "this adapter cannot interrupt its command line";
        vec![Effect::Fail(crate::failure(
            crate::ErrorKind::BackendFailed,
            why,
        ))]
    }

    /// What the process holds now, after `finish`.
    fn hold(&self) -> Option<Held> {
        None
    }
}

/// The exports of an adapter; [`crate::export_adapter`] uses it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Exported<A>(PhantomData<A>);

#[doc(hidden)]
#[derive(Debug)]
pub struct Session<A>(RefCell<A>);

impl<A: Adapter> guest::Guest for Exported<A> {
    fn describe() -> Description {
        A::describe()
    }

    fn configure(config: String) -> Result<(), Vec<Problem>> {
        let settings = A::configure(&config)?;
        state::keep(settings);
        Ok(())
    }
}

impl<A: Adapter> adapter::Guest for Exported<A> {
    type Session = Session<A>;
}

impl<A: Adapter> adapter::GuestSession for Session<A> {
    fn open(context: Context, request: Request) -> Result<adapter::Session, ApiError> {
        let opened = state::with(|settings| A::open(settings, context, request));
        let opened = opened.unwrap_or_else(|| {
            let message = "`open` was called before `configure`";
            Err(crate::failure(crate::ErrorKind::BackendFailed, message))
        });
        Ok(adapter::Session::new(Session(RefCell::new(opened?))))
    }

    fn launch_options(&self) -> Vec<LaunchOption> {
        self.0.borrow().launch_options()
    }

    fn start(&self) -> Vec<Effect> {
        self.0.borrow_mut().start()
    }

    fn output(&self, lines: Vec<String>) -> Vec<Effect> {
        self.0.borrow_mut().output(lines)
    }

    fn exit(&self, status: Option<i32>, stderr_tail: String) -> Vec<Effect> {
        self.0.borrow_mut().exit(status, stderr_tail)
    }
}

impl<A: Adapter> probe::Guest for Exported<A> {
    fn open(context: Context, question: Question) -> Option<adapter::Session> {
        let opened = state::with(|settings| A::probe(settings, context, question))??;
        Some(adapter::Session::new(Session(RefCell::new(opened))))
    }
}

impl<A: Adapter> reuse::Guest for Exported<A> {
    fn want(session: adapter::SessionBorrow<'_>) -> Option<Wanted> {
        session.get::<Session<A>>().0.borrow().want()
    }

    fn resume(session: adapter::SessionBorrow<'_>, resumption: Resumption) -> Vec<Effect> {
        let session = session.get::<Session<A>>();
        session.0.borrow_mut().resume(resumption)
    }

    fn interrupt(session: adapter::SessionBorrow<'_>) -> Vec<Effect> {
        session.get::<Session<A>>().0.borrow_mut().interrupt()
    }

    fn hold(session: adapter::SessionBorrow<'_>) -> Option<Held> {
        session.get::<Session<A>>().0.borrow().hold()
    }
}

/// Exports an [`Adapter`], so that its crate becomes a guest.
#[macro_export]
macro_rules! export_adapter {
    ($adapter:ident) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the exports have fixed names")]
        mod exported {
            type Exported = $crate::Exported<super::$adapter>;
            $crate::bindings::export!(Exported with_types_in $crate::bindings);
        }
    };
}
