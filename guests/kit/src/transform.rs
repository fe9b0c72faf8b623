//! Makes exports of the contract of a [`Transform`].

use std::cell::RefCell;
use std::marker::PhantomData;

use crate::transform_bindings::exports::harness::guest::{guest, transform};
use crate::{ApiError, Context, Delta, Description, FinishReason, Outcome, Problem, Request};
use crate::{ErrorKind, failure};

/// One choice of a request on its way to the adapter, and its answer on its way back.
/// `wit/1.0.0/transform.wit` says when each function is called.
pub trait Transform: Sized + 'static {
    /// What [`Transform::configure`] makes of the configuration.
    type Settings: 'static;

    /// Says what this guest is.
    fn describe() -> Description;

    /// Reads the configuration; [`crate::settings`] does it for a type that serde knows.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    fn configure(config: &str) -> Result<Self::Settings, Vec<Problem>>;

    /// Looks at a request.
    ///
    /// # Errors
    ///
    /// Refuses the request.
    fn open(
        settings: &Self::Settings,
        context: Context,
        request: Request,
    ) -> Result<Opened<Self>, ApiError>;

    /// The next pieces of the answer, which came together.
    fn take(&mut self, deltas: Vec<Delta>) -> Step {
        Step::Forward(deltas)
    }

    /// The answer is complete.
    ///
    /// # Errors
    ///
    /// Fails the request.
    fn finish(&mut self, outcome: Outcome) -> Result<Ending, ApiError> {
        Ok(ending(outcome.finish_reason))
    }
}

/// A request that a transform has seen.
#[derive(Debug)]
pub struct Opened<T> {
    /// What becomes of it.
    pub decision: Decision,
    /// Watches the answer. None if the answer passes untouched.
    pub filter: Option<T>,
}

pub use transform::{Decision, Ending, Reply, Step};

/// The end of an answer, with no more pieces.
pub fn ending(finish_reason: FinishReason) -> Ending {
    Ending {
        deltas: Vec::new(),
        finish_reason,
        extra: None,
    }
}

/// The exports of a transform; [`crate::export_transform`] uses it.
#[doc(hidden)]
#[derive(Debug)]
pub struct ExportedTransform<T>(PhantomData<T>);

#[doc(hidden)]
#[derive(Debug)]
pub struct Filter<T>(RefCell<T>);

impl<T: Transform> guest::Guest for ExportedTransform<T> {
    fn describe() -> guest::Description {
        let Description {
            name,
            version,
            summary,
            config_schema,
            honours,
            extra,
        } = T::describe();
        guest::Description {
            name,
            version,
            summary,
            config_schema,
            honours,
            extra,
        }
    }

    fn configure(config: String) -> Result<(), Vec<guest::Problem>> {
        let settings = T::configure(&config).map_err(|problems| {
            let problems = problems.into_iter();
            let problem = |Problem { key, message }| guest::Problem { key, message };
            problems.map(problem).collect::<Vec<_>>()
        })?;
        crate::state::keep(settings);
        Ok(())
    }
}

impl<T: Transform> transform::Guest for ExportedTransform<T> {
    type Filter = Filter<T>;

    fn open(context: Context, request: Request) -> Result<transform::Opened, ApiError> {
        let opened = crate::state::with(|settings| T::open(settings, context, request));
        let opened = opened.unwrap_or_else(|| {
            let message = "`open` was called before `configure`";
            Err(failure(ErrorKind::BackendFailed, message))
        })?;
        let filter = opened.filter;
        Ok(transform::Opened {
            decision: opened.decision,
            filter: filter.map(|filter| transform::Filter::new(Filter(RefCell::new(filter)))),
        })
    }
}

impl<T: Transform> transform::GuestFilter for Filter<T> {
    fn take(&self, deltas: Vec<Delta>) -> Step {
        self.0.borrow_mut().take(deltas)
    }

    fn finish(&self, outcome: Outcome) -> Result<Ending, ApiError> {
        self.0.borrow_mut().finish(outcome)
    }
}

/// Exports a [`Transform`], so that its crate becomes a guest.
#[macro_export]
macro_rules! export_transform {
    ($transform:ident) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the exports have fixed names")]
        mod exported {
            type Exported = $crate::ExportedTransform<super::$transform>;
            $crate::transform_bindings::export!(
                Exported with_types_in $crate::transform_bindings
            );
        }
    };
}
