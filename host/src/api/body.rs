//! Reads the bodies of requests, within bounds for each and for all together.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::Http;
use crate::failure::{Failure, Kind};

/// What a request's body may take while it is served, as a multiple of its size: the text itself, what is
/// being looked into, the guest's copies, and the line for the command line, in which a letter of two
/// bytes takes six.
const COST: usize = 8;

/// Bodies of this many bytes wait for nothing: a conversation of ordinary length is never held up by
/// pictures of others.
const SMALL: usize = 64 << 10;

/// The memory of a body whose size nobody announced grows by steps of this size, in bytes.
const STEP: usize = 1 << 20;

/// Memory is counted in pieces of this many bytes.
const UNIT: usize = 1 << 10;

/// How slowly a body may come after the first `client_timeout`, in bytes a second, all in all.
const RATE_LEAST: u64 = 16 << 10;

/// Memory for the bodies of all requests.
#[derive(Clone)]
pub(crate) struct BodyMemory {
    free: Arc<Semaphore>,
    /// All of it, in units.
    whole: usize,
}

/// A body's share of the memory, free again when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Share {
    held: Option<OwnedSemaphorePermit>,
}

/// A body that was read.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    pub(super) share: Share,
}

impl BodyMemory {
    /// Memory of so many bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        let whole = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        BodyMemory {
            free: Arc::new(Semaphore::new(whole)),
            whole,
        }
    }

    /// Has `share` be enough for a body of `size` bytes; waits in turn until there is so much.
    async fn grow(&self, share: &mut Share, size: usize, http: &Http) -> Result<(), Failure> {
        if size <= SMALL {
            return Ok(());
        }
        // The largest body is let in, if alone, however little memory there is.
        let wanted = (size.saturating_mul(COST) / UNIT).min(self.whole);
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
        match tokio::time::timeout(http.client_timeout, waits).await {
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

/// Reads a body of at most `max_body` bytes. What goes beyond is read on for a while and dropped,
/// because most clients only look for an answer after they have sent everything.
///
/// # Errors
///
/// Fails if it is too large, breaks off or comes too slowly, or if there is no memory for it.
pub(super) async fn read(
    mut body: Body,
    http: &Http,
    memory: &BodyMemory,
) -> Result<Read, Failure> {
    let limit = http.max_body;
    let begun = Instant::now();
    let (mut read, mut share, mut size) = (BytesMut::new(), Share::default(), 0_usize);
    // A client that says how much it sends waits once for all of it.
    let announced = body
        .size_hint()
        .exact()
        .and_then(|size| usize::try_from(size).ok());
    let announced = announced.filter(|size| *size <= limit).unwrap_or(0);
    memory.grow(&mut share, announced, http).await?;
    read.reserve(announced);
    while let Some(frame) = tokio::time::timeout(patience(begun, size, http), body.frame())
        .await
        .map_err(|_| late(http))?
    {
        let frame = frame
            .map_err(|e| Failure::new(Kind::InvalidRequest, format!("the body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        size = size.saturating_add(data.len());
        if size > limit {
            (read, share) = (BytesMut::new(), Share::default());
            if size > limit.saturating_mul(4) {
                break;
            }
            continue;
        }
        if size > SMALL.max(announced) {
            // By steps: each one may have to wait.
            memory
                .grow(&mut share, size.next_multiple_of(STEP).min(limit), http)
                .await?;
        }
        read.extend_from_slice(&data);
    }
    if size > limit {
        let message = format!("the body is larger than {limit} bytes (`max_body`)");
        return Err(Failure::new(Kind::BodyTooLarge, message));
    }
    Ok(Read {
        bytes: read.freeze(),
        share,
    })
}

/// How long the next piece may take: the client's pause, and its whole time at the lowest rate.
fn patience(begun: Instant, size: usize, http: &Http) -> Duration {
    let whole = http.client_timeout + Duration::from_secs(size as u64 / RATE_LEAST);
    whole
        .saturating_sub(begun.elapsed())
        .min(http.client_timeout)
}

fn late(http: &Http) -> Failure {
    let (pause, rate) = (http.client_timeout, RATE_LEAST >> 10);
    Failure::new(
        Kind::InvalidRequest,
        format!(
            "the body came too slowly: nothing for {pause:?} (`client_timeout`), or less than {rate} KiB a second after that time"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn http() -> Http {
        let text = "max_body = \"1MiB\"\nclient_timeout = \"1s\"";
        Config::parse(text, None, &Overrides::default())
            .unwrap()
            .http
    }

    #[tokio::test]
    async fn bodies_wait_in_turn_and_small_ones_do_not() {
        let memory = BodyMemory::new(8 << 20);
        let body = |size: usize| Body::from(vec![b'x'; size]);
        let first = read(body(1 << 20), &http(), &memory).await.unwrap();
        assert_eq!(memory.free.available_permits(), 0);
        assert_eq!(
            read(body(SMALL), &http(), &memory)
                .await
                .unwrap()
                .bytes
                .len(),
            SMALL
        );
        let waits = tokio::spawn({
            let memory = memory.clone();
            async move {
                read(body(1 << 20), &http(), &memory)
                    .await
                    .map(|read| read.bytes.len())
            }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(waits.await.unwrap().unwrap(), 1 << 20);
        assert_eq!(memory.free.available_permits(), 8 << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_too_long_is_told_to_come_back() {
        let memory = BodyMemory::new(1 << 20);
        let _first = read(Body::from(vec![0; 1 << 20]), &http(), &memory)
            .await
            .unwrap();
        let second = read(Body::from(vec![0; 1 << 20]), &http(), &memory).await;
        assert_eq!(
            second.err().map(|failure| failure.kind),
            Some(Kind::Overloaded)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let drops = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(900)).await;
            Some((
                Ok::<_, std::convert::Infallible>(Bytes::from_static(b"x")),
                (),
            ))
        });
        let failure = read(Body::from_stream(drops), &http(), &BodyMemory::new(1 << 20)).await;
        assert!(failure.err().unwrap().message.contains("too slowly"));
    }

    #[tokio::test]
    async fn what_is_too_large_takes_no_memory() {
        let memory = BodyMemory::new(8 << 20);
        let failure = read(Body::from(vec![0; 2 << 20]), &http(), &memory)
            .await
            .err()
            .unwrap();
        assert_eq!(failure.kind, Kind::BodyTooLarge);
        assert_eq!(memory.free.available_permits(), 8 << 10);
    }
}
