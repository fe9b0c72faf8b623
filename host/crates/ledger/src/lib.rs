//! The ledger: when each request came, who sent it, how it ended, how long it took and what it cost. It is one SQLite file,
//! and holds nothing of what was asked or answered.
//!
//! A thread of its own writes it, in batches. A request only puts its entry into a queue, and never waits. Whatever is wrong with
//! the disk or the file, requests are served on; entries wait in memory for a while, and are then dropped and counted.

mod queries;
mod store;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use parking_lot::Mutex;

pub use queries::{By, Sum, sums};
use writer::Message;

/// How many entries may wait for the writer. At a thousand requests a second that is eight seconds of them.
const QUEUE_MAX: usize = 8192;

/// Where the ledger is, and how much of it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file. It is made if it is not there.
    pub path: PathBuf,
    /// How long single requests are kept. The sums of each day stay.
    pub keep: Duration,
    /// The size in bytes above which the oldest requests go.
    pub max_size: u64,
}

/// What one request took.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// When it came, in milliseconds since the Unix epoch.
    pub at: u64,
    /// Its id, as the client was told it.
    pub request: Arc<str>,
    /// The API that was called: `chat`, or the dialect that speaks it.
    pub api: String,
    /// The name of the caller's key.
    pub key: Option<Arc<str>>,
    /// The model by the name that clients use. Empty if there is none of the name that was asked for.
    pub model: String,
    /// The backend that served it.
    pub backend: String,
    /// Where its process came from, such as `warm` or `new`.
    pub origin: &'static str,
    /// The generation of the guests that served it.
    pub generation: u64,
    /// Whether it was streamed.
    pub stream: bool,
    /// The status of the answer.
    pub status: u16,
    /// The machine code of its failure. Empty if it was answered.
    pub code: String,
    /// The tokens that it took, where somebody counted or estimated them.
    pub tokens: Option<Tokens>,
    /// What the backend says it cost, in millionths of a US dollar.
    pub cost_micro_usd: Option<u64>,
    /// From its arrival to the first piece of the answer, in milliseconds.
    pub first_token_ms: Option<u64>,
    /// From its arrival to its end, in milliseconds.
    pub total_ms: u64,
}

/// The tokens of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// All input tokens.
    pub prompt: u64,
    /// All output tokens.
    pub completion: u64,
    /// Input tokens that were read from a cache.
    pub cached: u64,
    /// Output tokens spent on reasoning.
    pub reasoning: u64,
}

/// Why a ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// There is no file.
    #[error("there is no ledger at {}: it begins with the first request that is served", .0.display())]
    Missing(PathBuf),
    /// A later version of this program has written it.
    #[error(
        "{} was written by a later version of this program (its format is {found}, this version knows {known}): install that version, or set another `path` in [ledger]",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        found: i64,
        /// The latest version that this program knows.
        known: i64,
    },
    /// It is a database of another program.
    #[error("{} belongs to another program: set another `path` in [ledger]", .0.display())]
    Foreign(PathBuf),
    /// Its folder cannot be made.
    #[error("cannot make the folder of {}: {source}", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No such day.
    #[error("`{0}` is no day: write it as 2026-11-29")]
    Day(String),
    /// SQLite says no.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What it says.
        source: rusqlite::Error,
    },
}

/// The ledger of a running service. When the last of it is dropped, what waits is written.
#[derive(Debug)]
pub struct Ledger {
    messages: SyncSender<Message>,
    state: Arc<State>,
}

/// What the writer tells.
#[derive(Debug, Default)]
struct State {
    is_on: AtomicBool,
    lost: AtomicU64,
    problem: Mutex<Option<String>>,
}

impl Ledger {
    /// Begins to keep a ledger, or none without settings.
    ///
    /// # Errors
    ///
    /// Fails if there is no thread for it.
    pub fn start(settings: Option<Settings>) -> std::io::Result<Ledger> {
        let (messages, receiver) = mpsc::sync_channel(QUEUE_MAX);
        let state = Arc::new(State::default());
        let ledger = Ledger {
            messages,
            state: state.clone(),
        };
        ledger.change(settings);
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || writer::run(&receiver, &state))?;
        Ok(ledger)
    }

    /// Goes on with other settings. What waits is written with those before.
    pub fn change(&self, settings: Option<Settings>) {
        self.state
            .is_on
            .store(settings.is_some(), Ordering::Relaxed);
        let _ = self.messages.send(Message::Change(settings));
    }

    /// Notes a request. This never waits; if the writer cannot follow, the entry is lost and counted.
    pub fn record(&self, entry: &Arc<Entry>) {
        if !self.state.is_on.load(Ordering::Relaxed) {
            return;
        }
        let message = Message::Entry(entry.clone());
        if self.messages.try_send(message).is_err() {
            self.state.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has everything written that was noted. False if it cannot be written now, or if that took longer than `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, written) = mpsc::sync_channel(1);
        let asked = self.messages.try_send(Message::Flush(done));
        asked.is_ok() && written.recv_timeout(patience) == Ok(true)
    }

    /// Why nothing is written at the moment.
    pub fn problem(&self) -> Option<String> {
        self.state.problem.lock().clone()
    }

    /// How many entries were lost since the start.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}
