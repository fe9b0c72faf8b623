//! What a key with limits may still use: requests a minute, requests at once, and tokens a day.
//!
//! Rates and requests at once begin anew with the service. The tokens of a day are kept in a small file, so that a
//! restart gives nobody a second day.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use basics::whole_file;
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use guests::completion::Usage;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::config::KeyLimits;
use crate::failure::{Failure, Kind, unix_now};

/// The file in `state_dir`.
const FILE: &str = "key-usage.json";

/// How often the tokens of the day are written, if there are more of them.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// A day, in seconds. Days are those of UTC.
const DAY: u64 = 24 * 60 * 60;

/// How long a client waits for a place that another of its requests has.
const BUSY_WAIT: Duration = Duration::from_secs(1);

type Rate = RateLimiter<NotKeyed, InMemoryState, DefaultClock, StateInformationMiddleware>;

/// What all keys have used.
pub(crate) struct Quotas {
    accounts: Mutex<Accounts>,
    file: Option<PathBuf>,
}

#[derive(Default)]
struct Accounts {
    by_name: BTreeMap<Arc<str>, Account>,
    day: u64,
    /// Whether there is something that was not written.
    is_dirty: bool,
}

/// What one key has used.
#[derive(Default)]
struct Account {
    rate: Option<(u32, Rate)>,
    /// How many requests the rate still lets through at once, as it was last known.
    requests_left: u32,
    in_flight: usize,
    tokens_today: u64,
}

/// What is kept of a day.
#[derive(Default, Deserialize, Serialize)]
struct Kept {
    /// Days since 1 January 1970.
    day: u64,
    tokens: BTreeMap<String, u64>,
}

/// A request of a key that is on its way. When this is dropped, its place is free.
pub(crate) struct Ticket {
    quotas: Arc<Quotas>,
    name: Arc<str>,
}

/// What a client is told of a key's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// What is counted: `requests` or `tokens`.
    pub(crate) what: &'static str,
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Until all of it is there again.
    pub(crate) reset: Duration,
}

impl Quotas {
    /// With what was kept in `state_dir` of today.
    pub(crate) fn open(state_dir: Option<&Path>) -> Arc<Self> {
        let file = state_dir.map(|folder| folder.join(FILE));
        let kept = file.as_deref().map(read).unwrap_or_default();
        let mut accounts = Accounts {
            day: today(),
            ..Accounts::default()
        };
        if kept.day == accounts.day {
            for (name, tokens) in kept.tokens {
                accounts.account(&name.into()).tokens_today = tokens;
            }
        }
        Arc::new(Quotas {
            accounts: Mutex::new(accounts),
            file,
        })
    }

    /// Lets a request of a key begin.
    ///
    /// # Errors
    ///
    /// Says which limit of the key is reached, and when there is room again.
    pub(crate) fn admit(
        self: &Arc<Self>,
        name: &Arc<str>,
        limits: &KeyLimits,
    ) -> Result<Ticket, Failure> {
        let mut accounts = self.accounts.lock();
        accounts.turn(today());
        let account = accounts.account(name);
        account.check(name, limits)?;
        account.in_flight += 1;
        Ok(Ticket {
            quotas: self.clone(),
            name: name.clone(),
        })
    }

    /// What a key has left, for the headers of an answer.
    pub(crate) fn left(&self, name: &Arc<str>, limits: &KeyLimits) -> Vec<Left> {
        let mut accounts = self.accounts.lock();
        accounts.turn(today());
        let account = accounts.account(name);
        let requests = limits.requests_per_minute.map(|limit| {
            let limit = limit.get();
            let remaining = match &account.rate {
                Some((of, _)) if *of == limit => account.requests_left,
                _ => limit,
            };
            let used = limit.saturating_sub(remaining);
            Left {
                what: "requests",
                limit: limit.into(),
                remaining: remaining.into(),
                reset: Duration::from_secs(60) * used / limit,
            }
        });
        let tokens = limits.tokens_per_day.map(|limit| Left {
            what: "tokens",
            limit,
            remaining: limit.saturating_sub(account.tokens_today),
            reset: until_tomorrow(),
        });
        requests.into_iter().chain(tokens).collect()
    }

    /// Writes the tokens of the day now and then, for ever.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut interval = tokio::time::interval(WRITE_INTERVAL);
        loop {
            interval.tick().await;
            let quotas = self.clone();
            // A disk that is slow must not hold up requests.
            let _ = tokio::task::spawn_blocking(move || quotas.write()).await;
        }
    }

    /// Writes the tokens of the day, if there are more of them. If that fails, a restart forgets them.
    pub(crate) fn write(&self) {
        let Some(file) = &self.file else { return };
        let kept = {
            let mut accounts = self.accounts.lock();
            if !std::mem::take(&mut accounts.is_dirty) {
                return;
            }
            let spent = accounts.by_name.iter();
            let spent = spent.filter(|(_, account)| account.tokens_today > 0);
            Kept {
                day: accounts.day,
                tokens: spent
                    .map(|(name, account)| (name.to_string(), account.tokens_today))
                    .collect(),
            }
        };
        if let Err(error) = write(file, &kept) {
            let file = file.display();
            tracing::warn!(%error, "what keys have used today cannot be kept in {file}: a restart forgets it");
        }
    }
}

impl Accounts {
    fn account(&mut self, name: &Arc<str>) -> &mut Account {
        self.by_name.entry(name.clone()).or_default()
    }

    /// A new day begins with nothing used.
    fn turn(&mut self, today: u64) {
        if self.day != today {
            self.day = today;
            self.by_name
                .values_mut()
                .for_each(|account| account.tokens_today = 0);
        }
    }
}

impl Account {
    fn check(&mut self, name: &str, limits: &KeyLimits) -> Result<(), Failure> {
        if let Some(most) = limits.tokens_per_day
            && self.tokens_today >= most
        {
            let message = format!(
                "the key `{name}` has used its {most} tokens of today (`tokens_per_day`); the next day begins at midnight UTC"
            );
            let mut failure =
                Failure::new(Kind::RateLimit, message).with_retry_after(until_tomorrow());
            // OpenAI's word for an allowance that is used up: its clients do not try again by themselves.
            failure.code = Some("insufficient_quota");
            return Err(failure);
        }
        if let Some(most) = limits.max_concurrent
            && self.in_flight >= most
        {
            let message = format!(
                "the key `{name}` has {most} requests on their way already, which is all it may have at once (`max_concurrent`)"
            );
            return Err(Failure::new(Kind::RateLimit, message).with_retry_after(BUSY_WAIT));
        }
        match limits.requests_per_minute {
            Some(limit) => self.check_rate(name, limit),
            None => Ok(()),
        }
    }

    fn check_rate(&mut self, name: &str, limit: NonZeroU32) -> Result<(), Failure> {
        let rate = match &mut self.rate {
            Some((of, rate)) if *of == limit.get() => rate,
            // The configuration has changed.
            other => {
                let rate = RateLimiter::direct(Quota::per_minute(limit));
                &mut other.insert((limit.get(), rate.with_middleware())).1
            }
        };
        match rate.check() {
            Ok(left) => {
                self.requests_left = left.remaining_burst_capacity();
                Ok(())
            }
            Err(not_until) => {
                self.requests_left = 0;
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let message = format!(
                    "the key `{name}` may send {limit} requests a minute (`requests_per_minute`): try again in {:.1} s",
                    wait.as_secs_f64()
                );
                Err(Failure::new(Kind::RateLimit, message).with_retry_after(wait))
            }
        }
    }
}

impl Ticket {
    /// Counts the tokens of the answer.
    pub(crate) fn spend(&self, usage: &Usage) {
        let tokens = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        let mut accounts = self.quotas.accounts.lock();
        accounts.turn(today());
        let account = accounts.account(&self.name);
        account.tokens_today = account.tokens_today.saturating_add(tokens);
        accounts.is_dirty = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut accounts = self.quotas.accounts.lock();
        let account = accounts.account(&self.name);
        account.in_flight = account.in_flight.saturating_sub(1);
    }
}

/// What was kept; nothing if that cannot be read.
fn read(file: &Path) -> Kept {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Kept::default(),
        Err(error) => {
            let file = file.display();
            tracing::warn!(%error, "cannot read {file}: today's tokens of all keys begin at 0");
            return Kept::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        let file = file.display();
        tracing::warn!(%error, "{file} is not understood: today's tokens of all keys begin at 0");
        Kept::default()
    })
}

/// Whoever reads the file sees all of the old one or all of the new one.
fn write(file: &Path, kept: &Kept) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    whole_file::replace(file, &serde_json::to_vec(kept)?)
}

/// Days since 1 January 1970.
fn today() -> u64 {
    unix_now() / DAY
}

fn until_tomorrow() -> Duration {
    Duration::from_secs(DAY - unix_now() % DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> KeyLimits {
        KeyLimits::default()
    }

    fn usage(prompt_tokens: u64, completion_tokens: u64) -> Usage {
        Usage {
            prompt_tokens,
            completion_tokens,
            ..Usage::default()
        }
    }

    fn refusal(quotas: &Arc<Quotas>, name: &Arc<str>, limits: &KeyLimits) -> String {
        let failure = quotas.admit(name, limits).err().unwrap();
        assert_eq!(failure.kind, Kind::RateLimit);
        assert!(failure.retry_after.is_some_and(|wait| !wait.is_zero()));
        failure.message
    }

    #[test]
    fn so_many_requests_a_minute_are_let_through_and_no_more() {
        let (quotas, name) = (Quotas::open(None), Arc::from("n8n"));
        let limits = KeyLimits {
            requests_per_minute: NonZeroU32::new(3),
            ..limits()
        };
        for left in [2, 1, 0] {
            assert!(quotas.admit(&name, &limits).is_ok());
            assert_eq!(quotas.left(&name, &limits)[0].remaining, left);
        }
        let told = refusal(&quotas, &name, &limits);
        assert!(
            told.contains("`n8n` may send 3 requests a minute"),
            "{told}"
        );
        let left = quotas.left(&name, &limits)[0];
        assert_eq!((left.what, left.limit, left.remaining), ("requests", 3, 0));
        // Another key has requests of its own, and another limit begins anew.
        assert!(quotas.admit(&Arc::from("other"), &limits).is_ok());
        let wider = KeyLimits {
            requests_per_minute: NonZeroU32::new(4),
            ..limits
        };
        assert!(quotas.admit(&name, &wider).is_ok());
    }

    #[test]
    fn a_place_is_free_again_when_its_request_ends() {
        let (quotas, name) = (Quotas::open(None), Arc::from("n8n"));
        let limits = KeyLimits {
            max_concurrent: Some(1),
            ..limits()
        };
        let first = quotas.admit(&name, &limits).unwrap();
        assert!(refusal(&quotas, &name, &limits).contains("`max_concurrent`"));
        drop(first);
        assert!(quotas.admit(&name, &limits).is_ok());
    }

    #[test]
    fn the_tokens_of_a_day_outlive_the_service_and_end_with_the_day() {
        let folder = tempfile::tempdir().unwrap();
        let (quotas, name) = (Quotas::open(Some(folder.path())), Arc::from("n8n"));
        let limits = KeyLimits {
            tokens_per_day: Some(100),
            ..limits()
        };
        // The request that goes beyond the limit is the last one.
        quotas.admit(&name, &limits).unwrap().spend(&usage(60, 30));
        assert_eq!(quotas.left(&name, &limits)[0].remaining, 10);
        quotas.admit(&name, &limits).unwrap().spend(&usage(60, 30));
        assert!(refusal(&quotas, &name, &limits).contains("`tokens_per_day`"));
        quotas.write();
        let later = Quotas::open(Some(folder.path()));
        assert!(refusal(&later, &name, &limits).contains("`tokens_per_day`"));
        later.accounts.lock().day -= 1;
        assert!(later.admit(&name, &limits).is_ok());
    }

    #[test]
    fn a_file_that_is_not_understood_costs_nobody_the_service() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let (quotas, name) = (Quotas::open(Some(folder.path())), Arc::from("n8n"));
        quotas.admit(&name, &limits()).unwrap().spend(&usage(1, 1));
        quotas.write();
        assert_eq!(read(&folder.path().join(FILE)).tokens["n8n"], 2);
    }
}
