//! Answers that are given again: a request that equals one that was answered a short time ago gets the same answer, without
//! a process. Requests that equal one that is being answered share its answer.
//!
//! With the cache, an answer is recorded, and whoever asked reads the recording. It grows as long as somebody reads it, at
//! the pace of the fastest.

mod charge;
mod events;
mod key;
mod recording;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;

use crate::config::CacheConfig;
use crate::failure::Failure;
use crate::telemetry::names;

pub(crate) use charge::Charge;
pub(crate) use key::{Key, Question};
use recording::Recording;
pub(crate) use recording::{Answer, Batch, Origin, Reader};

/// Where the log says that an answer came from, if it was kept.
const KEPT: &str = "cache";

/// Where the log says that an answer came from, if another request caused it.
const SHARED: &str = "shared";

/// The cache as it is configured now, if it is.
#[derive(Default)]
pub(crate) struct Caches(Mutex<Option<Arc<Cache>>>);

/// Answers that are kept, and those that are being recorded.
pub(crate) struct Cache {
    settings: CacheConfig,
    kept: moka::sync::Cache<Key, Arc<Recording>>,
    running: Mutex<HashMap<Key, Weak<Recording>>>,
}

/// What the cache did for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The answer was there, or another request caused it.
    Hit,
    /// This request caused the answer.
    Miss,
    /// The request was not looked up.
    Bypass,
}

impl Outcome {
    /// Its name in the metrics and in the header `x-cache`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Hit => "hit",
            Outcome::Miss => "miss",
            Outcome::Bypass => "bypass",
        }
    }
}

impl Caches {
    /// The cache with these settings. Other settings than before begin an empty one.
    pub(crate) fn with(&self, settings: Option<&CacheConfig>) -> Option<Arc<Cache>> {
        let mut current = self.0.lock();
        if current.as_ref().map(|cache| &cache.settings) != settings {
            *current = settings.map(|settings| Arc::new(Cache::new(settings.clone())));
        }
        current.clone()
    }
}

impl Cache {
    fn new(settings: CacheConfig) -> Self {
        let kept = moka::sync::Cache::builder()
            .max_capacity(settings.size)
            .weigher(|_: &Key, recording: &Arc<Recording>| recording.weight())
            .time_to_live(settings.ttl)
            .build();
        Cache {
            settings,
            kept,
            running: Mutex::default(),
        }
    }

    /// Whether callers with different keys may get each other's answers.
    pub(crate) fn is_across_keys(&self) -> bool {
        self.settings.across_keys
    }

    /// How many bytes it holds, about.
    pub(crate) fn size(&self) -> u64 {
        // What was added or has expired is counted late otherwise.
        self.kept.run_pending_tasks();
        self.kept.weighted_size()
    }

    /// The answer to a question: the one that is kept, the one that is under way, or else the one that `begin` begins.
    /// Returns it with its origin and what the cache did.
    ///
    /// # Errors
    ///
    /// Fails if the answer could not begin.
    pub(crate) async fn answer<F>(
        self: &Arc<Self>,
        key: Key,
        begin: impl FnOnce() -> F,
    ) -> Result<(Reader, Origin, Outcome), Failure>
    where
        F: Future<Output = Result<Answer, Failure>> + Send + 'static,
    {
        if let Some(kept) = self.kept.get(&key) {
            return Ok((Reader::new(kept), at_once(KEPT), Outcome::Hit));
        }
        let (recording, is_mine) = self.running(key, begin);
        let reader = Reader::new(recording);
        let origin = reader.begun().await?;
        Ok(match is_mine {
            true => (reader, origin, Outcome::Miss),
            false => (reader, at_once(SHARED), Outcome::Hit),
        })
    }

    /// The recording of a question that is under way. If there is none, it begins.
    fn running<F>(self: &Arc<Self>, key: Key, begin: impl FnOnce() -> F) -> (Arc<Recording>, bool)
    where
        F: Future<Output = Result<Answer, Failure>> + Send + 'static,
    {
        let mut running = self.running.lock();
        if let Some(known) = running.get(&key).and_then(Weak::upgrade) {
            return (known, false);
        }
        // Those that nobody wanted to read to the end.
        running.retain(|_, known| known.strong_count() > 0);
        let new = Arc::new(Recording::new(self.clone(), key, begin().boxed()));
        running.insert(key, Arc::downgrade(&new));
        (new, true)
    }

    /// Keeps an answer that is complete.
    fn keep(&self, key: Key, recording: Arc<Recording>) {
        self.kept.insert(key, recording);
    }

    /// Nobody joins this recording any more. Another one may have taken its place already.
    fn ended(&self, key: Key, recording: &Arc<Recording>) {
        let mut running = self.running.lock();
        let is_own = |known: &Weak<Recording>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(recording));
        if running.get(&key).is_some_and(is_own) {
            running.remove(&key);
        }
    }
}

/// The origin of an answer that needs no process of its own.
fn at_once(name: &'static str) -> Origin {
    let waited = Duration::ZERO;
    Origin { name, waited }
}

/// Counts what the cache did.
pub(crate) fn count(outcome: Outcome) {
    metrics::counter!(names::CACHE_REQUESTS, "result" => outcome.name()).increment(1);
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::stream::{self, BoxStream};
    use futures_util::{FutureExt, StreamExt};
    use guests::completion::{self, Delta, FinishReason};
    use tokio::sync::oneshot;

    use super::*;
    use crate::exchange::Event;

    fn cache() -> Arc<Cache> {
        Arc::new(Cache::new(CacheConfig {
            size: 1 << 20,
            ttl: Duration::from_secs(60),
            across_keys: false,
        }))
    }

    async fn ask(cache: &Arc<Cache>, batches: BoxStream<'static, Batch>) -> (Reader, Outcome) {
        let origin = at_once("new");
        let begin = || async move { Ok(Answer { origin, batches }) };
        let asked = cache.answer(Key::default(), begin).await;
        let (reader, _, outcome) = asked.ok().unwrap();
        (reader, outcome)
    }

    fn text(text: &str) -> Batch {
        Batch {
            events: [Event::Delta(Delta::Content(text.into()))].into(),
            is_reusable: false,
        }
    }

    fn end() -> Batch {
        Batch {
            events: [Event::Finish(completion::Outcome {
                finish_reason: FinishReason::Stop,
                usage: None,
            })]
            .into(),
            is_reusable: true,
        }
    }

    fn is_text(event: &Event, wanted: &str) -> bool {
        matches!(event, Event::Delta(Delta::Content(text)) if text == wanted)
    }

    async fn next(reader: &mut Reader) -> Event {
        let next = tokio::time::timeout(Duration::from_secs(1), reader.next());
        next.await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_leaves_while_it_waits_leaves_the_answer_to_the_others() {
        let (cache, (said, told)) = (cache(), oneshot::channel());
        let first = stream::once(async { text("one") });
        let second = stream::once(async { told.await.unwrap_or_else(|_| text("?")) });
        let (mut one, did) = ask(&cache, first.chain(second).boxed()).await;
        let (mut other, shared) = ask(&cache, stream::empty().boxed()).await;
        assert_eq!((did, shared), (Outcome::Miss, Outcome::Hit));
        assert!(is_text(&next(&mut one).await, "one"));
        assert!(one.next().now_or_never().is_none());
        drop(one);
        assert!(is_text(&next(&mut other).await, "one"));
        assert!(said.send(text("two")).is_ok());
        assert!(is_text(&next(&mut other).await, "two"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_leaves_before_the_beginning_leaves_it_to_the_others() {
        let (cache, (said, told)) = (cache(), oneshot::channel());
        let begin = async || {
            let (origin, batches) = (at_once("new"), told.await.unwrap());
            Ok(Answer { origin, batches })
        };
        let mut one = Box::pin(cache.answer(Key::default(), begin));
        assert!((&mut one).now_or_never().is_none());
        let mut other = Box::pin(ask(&cache, stream::empty().boxed()));
        assert!((&mut other).now_or_never().is_none());
        drop(one);
        assert!(said.send(stream::iter([text("one")]).boxed()).is_ok());
        let (mut reader, did) = other.await;
        assert_eq!(did, Outcome::Hit);
        assert!(is_text(&next(&mut reader).await, "one"));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_an_end_has_failed_and_is_not_kept() {
        let cache = cache();
        let (mut reader, _) = ask(&cache, stream::iter([text("one")]).boxed()).await;
        assert!(is_text(&next(&mut reader).await, "one"));
        for _ in 0..2 {
            assert!(matches!(next(&mut reader).await, Event::Fail(_)));
        }
        let (_, did) = ask(&cache, stream::empty().boxed()).await;
        assert_eq!(did, Outcome::Miss);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_panicked_has_failed_for_all_its_readers() {
        let cache = cache();
        let panics = stream::once(async { panic!("on purpose") });
        let (mut one, _) = ask(&cache, panics.boxed()).await;
        let (mut other, _) = ask(&cache, stream::empty().boxed()).await;
        let caught = AssertUnwindSafe(one.next()).catch_unwind().await;
        assert!(caught.is_err());
        assert!(matches!(next(&mut other).await, Event::Fail(_)));
        let (_, did) = ask(&cache, stream::empty().boxed()).await;
        assert_eq!(did, Outcome::Miss);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_counts_with_all_of_its_text() {
        let cache = cache();
        let batches = stream::iter([text(&"x".repeat(100_000)), end()]);
        let (mut reader, _) = ask(&cache, batches.boxed()).await;
        while let Event::Delta(_) = next(&mut reader).await {}
        assert!(cache.size() > 100_000, "{}", cache.size());
        let (_, did) = ask(&cache, stream::empty().boxed()).await;
        assert_eq!(did, Outcome::Hit);
    }
}
