//! Reads the bodies of requests, within bounds for each and for all together.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::Instant;

use crate::bodies::{BodyMemory, SMALL_BODY, Share};
use crate::config::HttpConfig;
use crate::failure::{Failure, Kind};

/// The memory of a body grows by steps of this size, in bytes.
const RESERVE_STEP: usize = 1 << 20;

/// The lowest rate of a body, in bytes a second. The bytes that have come so far may have taken the time that
/// they take at this rate, plus `client_timeout`.
const RATE_LEAST: u64 = 16 << 10;

/// A body that was read.
pub(super) struct Read {
    pub(super) bytes: Bytes,
    pub(super) share: Share,
}

/// Reads a body of at most `max_body` bytes. A larger body is read and dropped, up to four times `max_body`,
/// because most clients look for an answer only after they have sent everything.
///
/// # Errors
///
/// Fails if it is too large, breaks off or comes too slowly, or if there is no memory for it.
pub(super) async fn read(
    mut body: Body,
    http: &HttpConfig,
    memory: &BodyMemory,
) -> Result<Read, Failure> {
    let limit = http.max_body;
    let (mut read, mut share, mut size) = (BytesMut::new(), Share::default(), 0_usize);
    // Reserving the announced size costs no memory until the bytes come.
    let announced = body
        .size_hint()
        .exact()
        .and_then(|size| usize::try_from(size).ok());
    read.reserve(announced.filter(|size| *size <= limit).unwrap_or(0));
    let mut begun = Instant::now();
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
        if size > SMALL_BODY {
            // The memory grows in steps, and each step may have to wait. That time is not counted against the
            // client.
            let came = Instant::now();
            let wanted = size
                .next_multiple_of(RESERVE_STEP)
                .min(announced.unwrap_or(limit).min(limit));
            memory
                .grow(&mut share, wanted.max(size), http.client_timeout)
                .await?;
            begun += came.elapsed();
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

/// How long the next piece may take: at most `client_timeout`, and at most what the lowest rate leaves of the
/// whole time.
fn patience(begun: Instant, size: usize, http: &HttpConfig) -> Duration {
    let whole = http.client_timeout + Duration::from_secs(size as u64 / RATE_LEAST);
    whole
        .saturating_sub(begun.elapsed())
        .min(http.client_timeout)
}

fn late(http: &HttpConfig) -> Failure {
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

    fn http() -> HttpConfig {
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
        assert_eq!(memory.free(), 0);
        assert_eq!(
            read(body(SMALL_BODY), &http(), &memory)
                .await
                .unwrap()
                .bytes
                .len(),
            SMALL_BODY
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
        assert_eq!(memory.free(), 8 << 20);
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
        assert_eq!(memory.free(), 8 << 20);
    }
}
