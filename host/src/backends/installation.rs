//! The program of a backend as it is installed. Command lines update themselves, so another file may take its place at
//! any time.
//!
//! ```text
//! adopted ──► another file is there ──► a trial ──► adopted: a new revision, and the pool moves over
//!                                           └─────► refused: what runs serves on, until the next trial
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use basics::file_stamp::FileStamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How long a refusal counts. Short, because its reason may lie in something that passes, such as a busy machine.
const REFUSAL_TTL: Duration = Duration::from_secs(20);

/// A program, and whether the file that is there now may be started.
#[derive(Debug)]
pub(crate) struct Installation {
    state: Mutex<State>,
    /// A number for the way in which processes are started: the configuration and the file.
    revision: AtomicU64,
    judged: watch::Sender<()>,
    /// Wakes whoever makes the trials.
    attention: Arc<Notify>,
}

/// There is one for each program.
impl PartialEq for Installation {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Installation {}

#[derive(Debug, Default)]
struct State {
    adopted: Option<FileStamp>,
    refused: Option<Refused>,
}

#[derive(Debug)]
struct Refused {
    file: FileStamp,
    why: String,
    at: Instant,
}

/// Whether the file that is there may be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the one that was adopted. So is none at all: then the start itself says what is wrong.
    Adopted,
    /// It took the place of that one, and was not tried yet.
    Untried(FileStamp),
    /// It was tried, and this speaks against it.
    Refused(String),
}

impl Installation {
    /// `attention` wakes whoever makes the trials.
    pub(crate) fn new(attention: Arc<Notify>) -> Self {
        Installation {
            attention,
            state: Mutex::default(),
            revision: AtomicU64::new(next_revision()),
            judged: watch::Sender::new(()),
        }
    }

    /// A number for the way in which processes are started. Processes with another one are not used again.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Looks at the file. The first one that is seen is adopted.
    pub(crate) fn standing(&self, program: &Path) -> Standing {
        let Some(file) = FileStamp::of(program) else {
            return Standing::Adopted;
        };
        let mut state = self.state.lock();
        if *state.adopted.get_or_insert(file) == file {
            return Standing::Adopted;
        }
        match &state.refused {
            Some(refused) if refused.file == file && refused.at.elapsed() < REFUSAL_TTL => {
                Standing::Refused(refused.why.clone())
            }
            _ => Standing::Untried(file),
        }
    }

    /// What speaks against the file that took the place of the adopted one, as far as it was tried.
    pub(crate) fn objection(&self) -> Option<String> {
        let state = self.state.lock();
        state.refused.as_ref().map(|refused| refused.why.clone())
    }

    /// Takes note of a trial of this file.
    pub(crate) fn judge(&self, file: FileStamp, objection: Option<String>) {
        let mut state = self.state.lock();
        match objection {
            None => {
                state.adopted = Some(file);
                state.refused = None;
                self.revision.store(next_revision(), Ordering::Relaxed);
            }
            Some(why) => {
                let at = Instant::now();
                state.refused = Some(Refused { file, why, at });
            }
        }
        drop(state);
        self.judged.send_replace(());
    }

    /// Whether the file that is there may be started. Asks for a trial if it was not tried yet.
    pub(crate) fn is_ready(&self, program: &Path) -> bool {
        let standing = self.standing(program);
        if let Standing::Untried(_) = standing {
            self.attention.notify_one();
        }
        standing == Standing::Adopted
    }

    /// Waits until the file that is there was tried, but not for longer than `patience`.
    pub(super) async fn settled(&self, program: &Path, patience: Duration) -> Standing {
        let mut judged = self.judged.subscribe();
        let deadline = Instant::now() + patience;
        loop {
            let standing = self.standing(program);
            let Standing::Untried(_) = standing else {
                return standing;
            };
            self.attention.notify_one();
            let next = tokio::time::timeout_at(deadline, judged.changed());
            if !matches!(next.await, Ok(Ok(()))) {
                return standing;
            }
        }
    }
}

fn next_revision() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn program(dir: &tempfile::TempDir, text: &str) -> PathBuf {
        // As an installer does it: another file takes the place of the one before.
        let (new, path) = (dir.path().join("new"), dir.path().join("program"));
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }

    #[tokio::test(start_paused = true)]
    async fn another_file_is_tried_before_it_is_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let installation = Installation::new(Arc::default());
        let path = program(&dir, "one");
        assert_eq!(
            installation.standing(&dir.path().join("none")),
            Standing::Adopted
        );
        assert_eq!(installation.standing(&path), Standing::Adopted);
        let first = installation.revision();
        program(&dir, "another");
        let Standing::Untried(file) = installation.standing(&path) else {
            panic!("it is not noticed");
        };
        installation.judge(file, Some("it is bad".into()));
        assert_eq!(
            installation.standing(&path),
            Standing::Refused("it is bad".into())
        );
        assert_eq!(installation.revision(), first);
        tokio::time::advance(REFUSAL_TTL).await;
        assert_eq!(installation.standing(&path), Standing::Untried(file));
        installation.judge(file, None);
        assert_eq!(installation.standing(&path), Standing::Adopted);
        assert_eq!(installation.objection(), None);
        assert_ne!(installation.revision(), first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_the_trial_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let installation = Installation::new(Arc::default());
        let path = program(&dir, "one");
        let patience = Duration::from_secs(5);
        assert_eq!(
            installation.settled(&path, patience).await,
            Standing::Adopted
        );
        program(&dir, "another");
        let standing = installation.settled(&path, patience).await;
        let Standing::Untried(file) = standing else {
            panic!("{standing:?}");
        };
        let (settled, ()) = tokio::join!(installation.settled(&path, patience), async {
            tokio::task::yield_now().await;
            installation.judge(file, None);
        });
        assert_eq!(settled, Standing::Adopted);
    }
}
