//! What becomes of a process after the answer: it is parked, for other requests. If the answer ended before the process
//! was at rest, it is brought to rest first, while the client has its answer already.

use std::time::Duration;

use guests::completion::Effect;
use guests::{Effects, GuestError};
use processes::Output;
use tokio::time::{Instant, timeout_at};

use super::lease::Next;
use super::{Afterlife, Exchange};

/// How long a process may take to come to rest. It took 25 to 60 ms.
const REST_TIMEOUT: Duration = Duration::from_secs(2);

impl Exchange {
    /// Gives the process to the pool after an answer, if another request can use it. First the guest is asked what the
    /// process holds, so this may take as long as a call of the guest.
    pub(crate) fn park(mut self) {
        match self.afterlife {
            Afterlife::None => {}
            Afterlife::ToRest => self.park_after_rest(),
            Afterlife::AtRest => self.give_to_pool(),
        }
    }

    /// The same after an answer that ended before the adapter said so.
    pub(crate) fn park_cut(self) {
        match self.over {
            true => self.park(),
            false => self.park_after_rest(),
        }
    }

    /// Brings the process to rest, and then gives it to the pool. Until then it has its place. What goes wrong ends it.
    fn park_after_rest(mut self) {
        if !self.lease.may_park() || !self.lease.is_settled() {
            return self.lease.end_at_once();
        }
        tokio::spawn(async move {
            match self.come_to_rest().await {
                Ok(true) => {
                    self.lease.is_killed_at_end(false);
                    self.give_to_pool();
                }
                Ok(false) => self.lease.end_at_once(),
                Err(error) => {
                    tracing::debug!(%error, "a process was not brought to rest");
                    self.lease.end_at_once();
                }
            }
        });
    }

    fn give_to_pool(&mut self) {
        let size = self.request.size.saturating_add(self.answered);
        self.lease.park(&mut self.guest, size, &self.request);
    }

    /// Whether the process came to rest in time.
    async fn come_to_rest(&mut self) -> Result<bool, GuestError> {
        let Some(mut effects) = self.guest.interrupt()? else {
            return Ok(false);
        };
        let deadline = Instant::now() + REST_TIMEOUT;
        loop {
            if let Some(is_at_rest) = self.carry_out_rest(effects)? {
                return Ok(is_at_rest);
            }
            // One that never pauses does not get more time.
            if Instant::now() >= deadline {
                return Ok(false);
            }
            effects = match timeout_at(deadline, self.lease.next()).await {
                Ok(Ok(Next::Output(Output::Piece(piece)))) => {
                    self.guest.output(&[&String::from_utf8_lossy(&piece)], 0)?
                }
                _ => return Ok(false),
            };
        }
    }

    /// Whether the process is at rest, once that is clear.
    fn carry_out_rest(&mut self, effects: Effects) -> Result<Option<bool>, GuestError> {
        for effect in effects {
            match effect? {
                Effect::Write(text) => {
                    let line = self.request.backend.seal(text, &[]);
                    let line = line.map_err(|refusal| GuestError::Write(refusal.to_string()))?;
                    self.lease.write(line);
                }
                Effect::Finish(_) => return Ok(Some(true)),
                Effect::Fail(_) | Effect::Unfit(_) | Effect::CloseInput => return Ok(Some(false)),
                // Nobody listens any more.
                Effect::Emit(_) | Effect::Report(_) | Effect::Counted(_) => {}
            }
        }
        Ok(None)
    }
}
