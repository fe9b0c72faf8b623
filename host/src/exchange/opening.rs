//! An adapter's session, and what it takes to open another one for the same request.

use std::sync::Arc;

use guests::adapter::AdapterSession;
use guests::completion::Context;
use guests::instance::Configured;
use guests::request::Request;

use super::failures::not_opened;
use crate::failure::Failure;

/// A session for a request.
pub(crate) struct Opened {
    pub(crate) session: AdapterSession,
    /// Opens another one, should the process be of no use.
    pub(crate) opening: Opening,
}

/// What it takes to open a session.
pub(crate) struct Opening {
    adapter: Configured,
    context: Context,
    request: Arc<Request>,
    /// Bytes of the request.
    size: usize,
}

impl Opening {
    pub(crate) fn new(
        adapter: Configured,
        context: Context,
        request: Arc<Request>,
        size: usize,
    ) -> Self {
        Opening {
            adapter,
            context,
            request,
            size,
        }
    }

    /// # Errors
    ///
    /// Fails if the adapter refuses the request or breaks a bound.
    pub(super) fn open(&self) -> Result<AdapterSession, Failure> {
        let adapter = self.adapter.clone();
        let session = AdapterSession::open(adapter, &self.context, &self.request, self.size);
        session.map_err(|why| not_opened(&self.adapter.guest, why))
    }

    /// Opens the first session.
    ///
    /// # Errors
    ///
    /// Fails if the adapter refuses the request or breaks a bound.
    pub(crate) fn opened(self) -> Result<Opened, Failure> {
        Ok(Opened {
            session: self.open()?,
            opening: self,
        })
    }
}
