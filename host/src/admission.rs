//! Lets as many requests through as a backend takes at once, and a bounded queue wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The door of one backend: first come, first served.
pub(crate) struct Admission {
    places: Arc<Semaphore>,
    queue: usize,
    timeout: Duration,
    waiting: AtomicUsize,
}

/// Places at a backend, free again when this is dropped.
pub(crate) type Permit = OwnedSemaphorePermit;

/// Why a request was not let through.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Shed {
    /// As many wait as may.
    #[error("{0} requests are waiting already")]
    QueueFull(usize),
    /// It waited as long as it may.
    #[error("no place became free within {0:?}")]
    Waited(Duration),
}

impl Admission {
    pub(crate) fn new(places: usize, queue: usize, timeout: Duration) -> Self {
        Admission {
            places: Arc::new(Semaphore::new(places)),
            queue,
            timeout,
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for so many places at once, at most as many as there are. A caller that stops waiting
    /// frees its place in the queue.
    pub(crate) async fn enter(&self, count: u32) -> Result<Permit, Shed> {
        if let Ok(permit) = self.places.clone().try_acquire_many_owned(count) {
            return Ok(permit);
        }
        let _waiting = self.wait_in_line()?;
        let entered = self.places.clone().acquire_many_owned(count);
        match tokio::time::timeout(self.timeout, entered).await {
            Ok(Ok(permit)) => Ok(permit),
            // The semaphore is never closed, so this is the time that ran out.
            Ok(Err(_)) | Err(_) => Err(Shed::Waited(self.timeout)),
        }
    }

    /// Places that are free now.
    pub(crate) fn free(&self) -> usize {
        self.places.available_permits()
    }

    /// Requests that wait now.
    pub(crate) fn queued(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn wait_in_line(&self) -> Result<InLine<'_>, Shed> {
        let line = InLine(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) < self.queue {
            Ok(line)
        } else {
            Err(Shed::QueueFull(self.queue))
        }
    }
}

struct InLine<'a>(&'a AtomicUsize);

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_enters_one_waits_and_the_third_is_shed() {
        let door = Arc::new(Admission::new(1, 1, Duration::from_secs(5)));
        let first = door.enter(1).await.unwrap();
        let waiting = tokio::spawn({
            let door = door.clone();
            async move { door.enter(1).await }
        });
        tokio::task::yield_now().await;
        assert!(matches!(door.enter(1).await, Err(Shed::QueueFull(1))));
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        drop(second);
        drop(door.enter(1).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_waits_longer_than_allowed() {
        let door = Admission::new(1, 1, Duration::from_millis(1));
        let _first = door.enter(1).await.unwrap();
        assert!(matches!(door.enter(1).await, Err(Shed::Waited(_))));
    }

    #[tokio::test]
    async fn whoever_leaves_the_queue_frees_its_place() {
        let door = Admission::new(1, 1, Duration::from_secs(5));
        let _first = door.enter(1).await.unwrap();
        for _ in 0..3 {
            let waits = tokio::time::timeout(Duration::from_millis(1), door.enter(1)).await;
            assert!(waits.is_err(), "it was let through or shed");
        }
    }
}
