//! Memory for the bodies of all requests together.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::failure::{Failure, Kind};

/// Memory that a request's body may take while it is served, as a multiple of its size. It pays for the text
/// itself, the part that is being checked, the guest's copies, and the line for the command line, where a
/// letter of two bytes takes six.
const COST_FACTOR: usize = 8;

/// Bodies of up to this many bytes are not counted: a conversation of ordinary length never waits for other
/// clients' pictures.
pub(crate) const SMALL_BODY: usize = 64 << 10;

/// Bytes that one permit of the semaphore stands for.
const PERMIT_SIZE: usize = 1 << 10;

/// Memory for the bodies of all requests.
#[derive(Clone)]
pub(crate) struct BodyMemory {
    free: Arc<Semaphore>,
    /// All of it, in permits.
    whole: usize,
}

/// A body's share of the memory, free again when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    held: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    /// Memory of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let whole = (bytes / PERMIT_SIZE).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        BodyMemory {
            free: Arc::new(Semaphore::new(whole)),
            whole,
        }
    }

    /// Grows `share` until it is enough for a body of `size` bytes. Waits in turn for free memory, for at most
    /// `patience`.
    ///
    /// # Errors
    ///
    /// Fails if it had to wait for longer.
    pub(crate) async fn grow(
        &self,
        share: &mut Share,
        size: usize,
        patience: Duration,
    ) -> Result<(), Failure> {
        if size <= SMALL_BODY {
            return Ok(());
        }
        // The largest body is let in, if alone, however little memory there is.
        let wanted = (size.saturating_mul(COST_FACTOR) / PERMIT_SIZE).min(self.whole);
        let has = share
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let Some(more) = u32::try_from(wanted.saturating_sub(has))
            .ok()
            .filter(|more| *more > 0)
        else {
            return Ok(());
        };
        let waits = self.free.clone().acquire_many_owned(more);
        match tokio::time::timeout(patience, waits).await {
            Ok(Ok(permit)) => {
                match &mut share.held {
                    Some(held) => held.merge(permit),
                    none => *none = Some(permit),
                }
                Ok(())
            }
            _ => {
                let message = "the bodies of other requests take all memory that there is for them (`max_body_memory`): try again in a moment";
                Err(Failure::new(Kind::Overloaded, message).logged())
            }
        }
    }
}

#[cfg(test)]
impl BodyMemory {
    /// What is free, in bytes.
    pub(crate) fn free(&self) -> usize {
        self.free.available_permits() * PERMIT_SIZE
    }
}
