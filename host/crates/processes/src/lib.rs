//! A supervisor: starts processes, and leaves nothing of them behind. It knows neither HTTP nor guests, nor
//! what the programs are.
//!
//! Each process leads a process group of its own, has a private empty working directory, and a
//! scrubbed environment. Dropping a [`Process`] ends its whole group and reaps it; the
//! [`warden`] does the same if this service is killed.

mod command;
mod ending;
mod framing;
mod orphans;
mod proc;
mod process;
pub mod warden;
mod workdirs;

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::process::Command;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use orphans::{Adopted, Marks};
use process::Endings;
use warden::Warden;
use workdirs::Workdirs;

pub use command::CommandLine;
pub use framing::Framing;
pub use orphans::Helper;
pub use proc::cpu_time;
pub use process::{Hold, Output, Process};

/// How long a process has after SIGTERM before its group is killed. Long enough to write down
/// a login that was just renewed (the CLI was seen to end within 80 to 550 ms).
const TERM_GRACE: Duration = Duration::from_millis(600);

/// How many directories of ended processes are removed at once: one that takes long does not hold up the others.
const REMOVALS: usize = 4;

/// Starts processes and ends them.
pub struct Processes {
    warden: Warden,
    workdirs: Workdirs,
    marks: Marks,
    adopted: Adopted,
    endings: Endings,
    slots: Slots,
}

/// Slots for all processes together.
struct Slots {
    free: Arc<Semaphore>,
    count: Mutex<SlotCount>,
}

/// How many slots exist (`there`), and how many the configuration allows (`wanted`). After the limit was
/// lowered, a slot in use is removed only when it is free again.
struct SlotCount {
    there: usize,
    wanted: usize,
}

/// A process's slot. It is free again when nothing is left of the process.
pub type Slot = OwnedSemaphorePermit;

/// How a process's output is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// How it is cut into pieces.
    pub framing: Framing,
    /// The longest line, in bytes.
    pub max_line: usize,
}

impl Slots {
    fn count(&self) -> MutexGuard<'_, SlotCount> {
        self.count.lock()
    }

    /// Applies the configured limit to free slots. Returns how many busy slots still exceed it.
    fn settle(&self) -> usize {
        let mut count = self.count();
        if count.wanted > count.there {
            self.free.add_permits(count.wanted - count.there);
            count.there = count.wanted;
        } else {
            count.there -= self.free.forget_permits(count.there - count.wanted);
        }
        count.there - count.wanted
    }

    /// Hands out a slot that became free, or discards it if there are more than the limit.
    fn hand_out(&self, slot: Slot) -> Option<Slot> {
        let mut count = self.count();
        if count.there <= count.wanted {
            return Some(slot);
        }
        slot.forget();
        count.there -= 1;
        None
    }
}

/// A process that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program did not start.
    #[error("cannot start `{}`: {source}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no place for it to run in.
    #[error("cannot make a working directory: {0}")]
    Workdir(io::Error),
    /// It did not end in time.
    #[error("`{}` did not answer within {limit:?}", program.display())]
    Silent {
        /// The program.
        program: PathBuf,
        /// How long it had.
        limit: Duration,
    },
}

impl Processes {
    /// Starts the warden, and makes the folder for working directories. `slots` is how many processes there may
    /// be at once. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Fails if this program cannot be started again as the warden, or if the folder cannot be made.
    pub fn new(slots: usize) -> io::Result<Self> {
        let workdirs = Workdirs::new()?;
        let marks = Marks::new()?;
        Ok(Processes {
            warden: Warden::start(&workdirs.root(), marks.service())?,
            workdirs,
            adopted: Adopted::begin(),
            marks,
            endings: Endings {
                tasks: TaskTracker::new(),
                runtime: Handle::current(),
                removals: Arc::new(Semaphore::new(REMOVALS)),
            },
            slots: Slots {
                free: Arc::new(Semaphore::new(slots)),
                count: Mutex::new(SlotCount {
                    there: slots,
                    wanted: slots,
                }),
            },
        })
    }

    /// Changes how many processes there may be. Those that run go on.
    pub fn limit(&self, slots: usize) {
        self.slots.count().wanted = slots;
        self.slots.settle();
    }

    /// How many processes exceed the limit, without those whose end has begun.
    pub fn surplus(&self) -> usize {
        // Counted first, so that a process that ends meanwhile makes the result smaller, not larger.
        let ending = self.endings();
        self.slots.settle().saturating_sub(ending)
    }

    /// How many processes are ending.
    pub fn endings(&self) -> usize {
        self.endings.tasks.len()
    }

    /// A slot for another process, if one is free.
    pub fn try_slot(&self) -> Option<Slot> {
        loop {
            let slot = self.slots.free.clone().try_acquire_owned().ok()?;
            if let Some(slot) = self.slots.hand_out(slot) {
                return Some(slot);
            }
        }
    }

    /// A slot for another process, as soon as one is free. A slot beyond a lowered limit is discarded, and the
    /// caller waits again.
    pub async fn slot(&self) -> Option<Slot> {
        loop {
            let slot = self.slots.free.clone().acquire_owned().await.ok()?;
            if let Some(slot) = self.slots.hand_out(slot) {
                return Some(slot);
            }
        }
    }

    /// Starts a process. `until_gone` is dropped when nothing is left of it.
    ///
    /// # Errors
    ///
    /// Fails if the program does not start, or if there is no working directory for it.
    pub fn spawn(
        &self,
        line: &CommandLine,
        reading: Reading,
        until_gone: impl Send + 'static,
    ) -> Result<Process, SpawnError> {
        let error = |source| SpawnError::Program {
            program: line.program.clone(),
            source,
        };
        let _runtime = self.endings.runtime.enter();
        let workdir = self.workdirs.lease().map_err(SpawnError::Workdir)?;
        let mark = self.marks.another();
        let mut command = command(line);
        if !line.env.iter().any(|(name, _)| name == "TMPDIR") {
            // Newer versions of Claude Code put a socket there, and leave it when they are killed.
            command.env("TMPDIR", workdir.path());
        }
        let child = command
            .current_dir(workdir.path())
            .env(orphans::VARIABLE, mark.value())
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(error)?;
        let keep = Box::new((workdir, mark, until_gone));
        Process::new(child, reading, &self.warden, &self.endings, keep).map_err(error)
    }

    /// Runs `start` on the runtime in which this value was made, even if a thread of another runtime asks.
    pub async fn on_runtime(
        &self,
        start: impl Future<Output = Result<Process, SpawnError>> + Send + 'static,
    ) -> Result<Process, SpawnError> {
        let started = self.endings.runtime.spawn(start).await;
        started.unwrap_or_else(|_| {
            Err(SpawnError::Workdir(io::Error::other(
                "the runtime has ended",
            )))
        })
    }

    /// Runs a command that reads `input` and prints at most 64 KiB. Returns what it printed, and whether it
    /// succeeded.
    ///
    /// # Errors
    ///
    /// Fails if the command does not start, or has not ended after `limit`.
    pub async fn ask(
        &self,
        line: &CommandLine,
        input: Vec<u8>,
        limit: Duration,
    ) -> Result<(Vec<u8>, bool), SpawnError> {
        /// The most that is read of an answer, in bytes.
        const ANSWER_MAX: usize = 64 << 10;
        let reading = Reading {
            framing: Framing::Bytes,
            max_line: ANSWER_MAX,
        };
        let mut process = self.spawn(line, reading, ())?;
        process.write(input);
        process.close_input();
        let mut answer = Vec::new();
        let asked = async {
            loop {
                match process.next().await {
                    Output::Piece(piece) if answer.len() + piece.len() <= ANSWER_MAX => {
                        answer.extend(piece)
                    }
                    Output::Piece(_) | Output::TooLong => return false,
                    Output::Exited(status) => return status == Some(0),
                }
            }
        };
        match tokio::time::timeout(limit, asked).await {
            Ok(success) => Ok((answer, success)),
            Err(_) => Err(SpawnError::Silent {
                program: line.program.clone(),
                limit,
            }),
        }
    }

    /// Replaces the warden if it is gone. Also ends orphans: programs that were left behind by
    /// processes of this service that have ended, or by other services that were killed.
    /// The search runs on another thread.
    pub fn look_after(&self) {
        self.warden.look_after();
        let (marks, warden) = (self.marks.clone(), self.warden.clone());
        let adopted = self.adopted.clone();
        tokio::task::spawn_blocking(move || marks.end_strays(&warden, &adopted));
    }

    /// Waits until all processes that are ending are gone.
    pub async fn drained(&self) {
        self.endings.tasks.close();
        self.endings.tasks.wait().await;
        let (marks, warden) = (self.marks.clone(), self.warden.clone());
        let adopted = self.adopted.clone();
        // Children of the ended processes may have left the process groups: end these, too.
        let _ = tokio::task::spawn_blocking(move || {
            orphans::end_all(marks.service());
            adopted.end(|| warden.children());
        })
        .await;
    }
}

fn command(line: &CommandLine) -> Command {
    let mut command = Command::new(&line.program);
    command
        .args(&line.args)
        .env_clear()
        .envs(line.env.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}
