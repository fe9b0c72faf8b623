//! Makes exports of the contract of a [`Dialect`].

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::dialect_bindings::exports::harness::guest::{dialect, guest};
use crate::{
    ApiError, Context, Delta, Description, ErrorKind, Outcome, Problem, Request, failure, state,
};

pub use dialect::{
    Failure, Header, HttpHead, HttpRequest, HttpResponse, OfferedModel, Route, Service,
};

/// One call of another HTTP API, which becomes a chat completion. `wit/1.0.0/dialect.wit` says when each function is
/// called.
pub trait Dialect: Sized + 'static {
    /// What [`Dialect::configure`] makes of the configuration.
    type Settings: 'static;

    /// Says what this guest is.
    fn describe() -> Description;

    /// Reads the configuration; [`crate::settings`] does it for a type that serde knows.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    fn configure(config: &str) -> Result<Self::Settings, Vec<Problem>>;

    /// Says which routes it serves.
    fn serve(settings: &Self::Settings) -> Service;

    /// Reads a call.
    ///
    /// # Errors
    ///
    /// Refuses the call; the error goes to [`Dialect::render_error`].
    fn open(
        settings: &Self::Settings,
        context: Context,
        http: HttpRequest,
    ) -> Result<OpenedCall<Self>, ApiError>;

    /// Writes an error in the form of this API.
    fn render_error(failure: Failure) -> HttpResponse;

    /// The answer begins to come. None if the client gets it in one piece.
    fn begin(&mut self) -> Option<HttpHead> {
        None
    }

    /// The next pieces of a choice, and what the client reads of them.
    fn take(&mut self, choice: u32, deltas: Vec<Delta>) -> String;

    /// One choice is complete.
    fn end_choice(&mut self, _choice: u32, _outcome: Outcome) -> String {
        String::new()
    }

    /// All is complete: the last piece of the body, or the whole body.
    fn finish(&mut self) -> String;

    /// The request failed after `begin`: the last piece of the body.
    fn fail(&mut self, failure: Failure) -> String;

    /// What is sent to keep the connection alive.
    fn keep_alive(&self) -> String {
        String::new()
    }

    /// The list of models in the form of this API.
    fn list_models(&mut self, _models: Vec<OfferedModel>) -> HttpResponse {
        Self::render_error(Failure {
            status: 400,
            kind: ErrorKind::InvalidRequest,
            code: None,
            message: "this API has no list of models".into(),
            param: None,
            retry_at: None,
            extra: None,
        })
    }
}

/// What a call of the API is.
#[derive(Debug)]
pub enum OpenedCall<T> {
    /// A chat completion.
    Completion {
        /// The model's name, as the client wrote it.
        model: String,
        /// How many answers.
        choices: u32,
        /// The request.
        request: Box<Request>,
        /// The call on its way.
        call: T,
    },
    /// A call that the dialect answers by itself.
    Reply(HttpResponse),
    /// A call that needs the list of models.
    Models(T),
}

/// The exports of a dialect; [`crate::export_dialect`] uses it.
#[doc(hidden)]
#[derive(Debug)]
pub struct ExportedDialect<T>(PhantomData<T>);

#[doc(hidden)]
#[derive(Debug)]
pub struct Call<T>(RefCell<T>);

impl<T: Dialect> guest::Guest for ExportedDialect<T> {
    fn describe() -> guest::Description {
        let told = T::describe();
        guest::Description {
            name: told.name,
            version: told.version,
            summary: told.summary,
            config_schema: told.config_schema,
            honours: told.honours,
            extra: told.extra,
        }
    }

    fn configure(config: String) -> Result<(), Vec<guest::Problem>> {
        let settings = T::configure(&config).map_err(|problems| {
            let problems = problems.into_iter();
            let problem = |Problem { key, message }| guest::Problem { key, message };
            problems.map(problem).collect::<Vec<_>>()
        })?;
        state::keep(settings);
        Ok(())
    }
}

impl<T: Dialect> dialect::Guest for ExportedDialect<T> {
    type Call = Call<T>;

    fn serve() -> Service {
        state::with(T::serve).unwrap_or_else(|| Service {
            routes: Vec::new(),
            key_headers: Vec::new(),
            headers: Vec::new(),
            extra: None,
        })
    }

    fn open(context: Context, http: HttpRequest) -> Result<dialect::Opened, ApiError> {
        let opened = state::with(|settings| T::open(settings, context, http));
        let opened = opened.unwrap_or_else(|| {
            let message = "`open` was called before `configure`";
            Err(failure(ErrorKind::BackendFailed, message))
        })?;
        let call = |call| dialect::Call::new(Call(RefCell::new(call)));
        Ok(match opened {
            OpenedCall::Completion {
                model,
                choices,
                request,
                call: opened,
            } => dialect::Opened::Completion(dialect::Completion {
                model,
                choices,
                request: *request,
                call: call(opened),
            }),
            OpenedCall::Reply(reply) => dialect::Opened::Reply(reply),
            OpenedCall::Models(opened) => {
                dialect::Opened::Models(dialect::Listing { call: call(opened) })
            }
        })
    }

    fn render_error(failure: Failure) -> HttpResponse {
        T::render_error(failure)
    }
}

impl<T: Dialect> dialect::GuestCall for Call<T> {
    fn begin(&self) -> Option<HttpHead> {
        self.0.borrow_mut().begin()
    }

    fn take(&self, choice: u32, deltas: Vec<Delta>) -> String {
        self.0.borrow_mut().take(choice, deltas)
    }

    fn end_choice(&self, choice: u32, outcome: Outcome) -> String {
        self.0.borrow_mut().end_choice(choice, outcome)
    }

    fn finish(&self) -> String {
        self.0.borrow_mut().finish()
    }

    fn fail(&self, failure: Failure) -> String {
        self.0.borrow_mut().fail(failure)
    }

    fn keep_alive(&self) -> String {
        self.0.borrow().keep_alive()
    }

    fn list_models(&self, models: Vec<OfferedModel>) -> HttpResponse {
        self.0.borrow_mut().list_models(models)
    }
}

/// Exports a [`Dialect`], so that its crate becomes a guest.
#[macro_export]
macro_rules! export_dialect {
    ($dialect:ident) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the exports have fixed names")]
        mod exported {
            type Exported = $crate::ExportedDialect<super::$dialect>;
            $crate::dialect_bindings::export!(Exported with_types_in $crate::dialect_bindings);
        }
    };
}
