//! Answers that are given again: a request that equals one that was answered a short time ago gets the same answer, without
//! a process. Requests that equal one that is being answered share its answer.
//!
//! With the cache, the answer to a request is recorded by a task of its own, and whoever asked reads the recording. The
//! task ends when nobody reads any more.

mod key;
mod recording;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Weak};

use guests::completion::FinishReason;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::config::CacheConfig;
use crate::exchange::Event;
use crate::failure::{Failure, Kind};
use crate::telemetry::names;

pub(crate) use key::{Key, Question};
pub(crate) use recording::{Charge, Reader};
use recording::{Recording, Writer};

/// Where the log says that an answer came from, if it was kept.
const KEPT: &str = "cache";

/// Where the log says that an answer came from, if another request caused it.
const SHARED: &str = "shared";

/// The longest answer that is recorded, in bytes: as long as one in one piece may be.
const ANSWER_MAX: usize = 64 << 20;

/// The cache as it is configured now, if it is.
#[derive(Default)]
pub(crate) struct Caches(Mutex<Option<Arc<Cache>>>);

/// Answers that are kept, and those that are being recorded.
pub(crate) struct Cache {
    settings: CacheConfig,
    kept: moka::sync::Cache<Key, Arc<Recording>>,
    running: Mutex<HashMap<Key, Weak<Running>>>,
}

/// An answer that is being recorded. It goes on as long as somebody reads it.
struct Running {
    recording: Arc<Recording>,
    _task: AbortOnDropHandle<()>,
}

/// An answer that is being given, as the cache records it.
pub(crate) trait Source: Send {
    /// Where the answer comes from, for the log.
    fn origin(&self) -> &'static str;

    /// What comes next. None behind the end.
    fn next(&mut self) -> impl Future<Output = Option<Event>> + Send;

    /// Whether the whole answer is what the client relies on.
    fn fits(&mut self, reason: FinishReason) -> impl Future<Output = bool> + Send;
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
        self.kept.weighted_size()
    }

    /// The answer to a question: the one that is kept, the one that is under way, or else the one that `begin` begins.
    /// Returns it with its origin and what the cache did.
    ///
    /// # Errors
    ///
    /// Fails if the answer could not begin.
    pub(crate) async fn answer<F, S>(
        self: &Arc<Self>,
        key: Key,
        begin: impl FnOnce() -> F,
    ) -> Result<(Reader, &'static str, Outcome), Failure>
    where
        F: Future<Output = Result<S, Failure>> + Send + 'static,
        S: Source + 'static,
    {
        if let Some(kept) = self.kept.get(&key) {
            return Ok((Reader::new(kept, None), KEPT, Outcome::Hit));
        }
        let (running, is_mine) = self.running(key, begin);
        let recording = running.recording.clone();
        let mut reader = Reader::new(recording, Some(running));
        let origin = reader.begun().await?;
        Ok(match is_mine {
            true => (reader, origin, Outcome::Miss),
            false => (reader, SHARED, Outcome::Hit),
        })
    }

    /// The recording of a question that is under way. If there is none, it begins.
    fn running<F, S>(self: &Arc<Self>, key: Key, begin: impl FnOnce() -> F) -> (Arc<Running>, bool)
    where
        F: Future<Output = Result<S, Failure>> + Send + 'static,
        S: Source + 'static,
    {
        let mut running = self.running.lock();
        if let Some(known) = running.get(&key).and_then(Weak::upgrade) {
            return (known, false);
        }
        // Those that nobody wanted to read to the end.
        running.retain(|_, known| known.strong_count() > 0);
        let recording = Arc::new(Recording::default());
        let task = record(self.clone(), key, recording.clone(), begin());
        let new = Arc::new(Running {
            recording,
            _task: AbortOnDropHandle::new(tokio::spawn(task)),
        });
        running.insert(key, Arc::downgrade(&new));
        (new, true)
    }

    /// Nobody joins this recording any more. Another one may have taken its place already.
    fn ended(&self, key: Key, recording: &Arc<Recording>) {
        let mut running = self.running.lock();
        let is_own = |known: &Weak<Running>| {
            let known = known.upgrade();
            known.is_none_or(|known| Arc::ptr_eq(&known.recording, recording))
        };
        if running.get(&key).is_some_and(is_own) {
            running.remove(&key);
        }
    }
}

/// Records an answer, and keeps it if it is complete.
async fn record<S: Source>(
    cache: Arc<Cache>,
    key: Key,
    recording: Arc<Recording>,
    begin: impl Future<Output = Result<S, Failure>>,
) {
    let writer = Writer::of(&recording);
    // Before the end is read, so that nobody joins who comes after it.
    let is_over = || cache.ended(key, &recording);
    let mut source = match begin.await {
        Ok(source) => source,
        Err(failure) => {
            is_over();
            return writer.begin(Err(failure));
        }
    };
    writer.begin(Ok(source.origin()));
    while let Some(event) = source.next().await {
        if let Event::Finish(outcome) = &event {
            let reason = outcome.finish_reason;
            if reason == FinishReason::Stop && source.fits(reason).await {
                cache.kept.insert(key, recording.clone());
            }
        }
        if !matches!(event, Event::Delta(_)) {
            is_over();
        }
        let size = writer.push(event);
        if size > ANSWER_MAX {
            is_over();
            let message = format!("the answer is longer than {ANSWER_MAX} bytes");
            writer.push(Event::Fail(Failure::new(Kind::Backend, message)));
            return;
        }
        writer.wait_for_readers(size).await;
    }
}

/// Counts what the cache did.
pub(crate) fn count(outcome: Outcome) {
    metrics::counter!(names::CACHE_REQUESTS, "result" => outcome.name()).increment(1);
}
