//! Keeps the components that were admitted from files, so that an earlier one can serve again.
//!
//! ```text
//! STATE/guests/FOLDER/NAME/log.jsonl     what happened, a line each
//! STATE/guests/FOLDER/NAME/DIGEST.wasm   a component
//! STATE/guests/FOLDER/NAME/DIGEST.json   what it was admitted with
//! ```
//!
//! If the service finds a bad file when it starts, the last good guest serves. The built-in guest must not
//! replace it in silence, because a guest from a file may have its own prompt format, or may remove secrets from
//! prompts.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::admit::{Guest, digest};
use crate::loader;
use crate::settings::{GuestConfig, GuestUse, Settings};
use basics::{ownership, plain, whole_file};
use serde::{Deserialize, Serialize};

/// How many components of a name are kept.
const KEPT_MAX: usize = 10;

/// A log with more lines than this is shortened.
const LINES_MAX: usize = 1000;

/// The kept components of the guests in one folder. Without a folder of its own, nothing is kept.
pub struct Store {
    folder: Option<PathBuf>,
    /// Where the files are from which guests are admitted.
    guests_dir: PathBuf,
}

/// A component that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// SHA-256, in hexadecimal.
    pub digest: String,
    /// What it says is its version.
    pub version: String,
    /// When it was last admitted, in seconds since the Unix epoch.
    pub admitted_at: u64,
}

/// What serves after a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RolledBack {
    /// The digest of the file until now. None if there was none.
    pub from: Option<String>,
    /// The digest of what serves from now on.
    pub to: String,
    /// Whether that is the built-in guest.
    pub is_built_in: bool,
}

/// Why there is nothing to go back to.
#[derive(Debug, thiserror::Error)]
pub enum NoRollback {
    /// No guest of this name was ever admitted.
    #[error("no guest `{0}` is kept; `claude-harness guest list` names those that are")]
    Unknown(String),
    /// There is nothing before the present one.
    #[error("nothing is kept of `{0}` before the present component")]
    NothingBefore(String),
    /// No component of the name has this digest.
    #[error("no kept component of `{name}` has a digest that begins with `{digest}`")]
    NoSuchDigest {
        /// The guest's name.
        name: String,
        /// What was asked for.
        digest: String,
    },
    /// The files cannot be changed.
    #[error("cannot put the component into place: {0}")]
    Io(#[from] io::Error),
}

/// A line of a log.
#[derive(Deserialize, Serialize)]
struct Line {
    at: u64,
    event: Event,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    version: String,
}

#[derive(Clone, Copy, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Event {
    /// A component was admitted.
    Admitted,
    /// Somebody went back to a component.
    RolledBack,
    /// The file is gone.
    Removed,
}

/// What a guest was admitted with.
#[derive(Deserialize, Serialize)]
struct AdmittedWith {
    uses: Vec<GuestUse>,
}

/// What a log tells.
#[derive(Default)]
struct History {
    /// The components, in the order of their admission. A rollback takes away those behind the one that it goes
    /// back to.
    line: Vec<Kept>,
    /// All components, the latest one last.
    all: Vec<Kept>,
    /// Whether there is a file now.
    is_there: bool,
}

impl Store {
    /// Opens the store of these settings, and makes it if need be. Each `guests_dir` has its own, so that services
    /// with different guests do not share one. A folder that others can change is not used.
    pub fn open(settings: &Settings) -> Self {
        let digest = digest(settings.dir.as_os_str().as_encoded_bytes());
        let base = settings.state_dir.as_ref();
        let folder = base.map(|base| base.join("guests").join(&digest[..16]));
        let folder = folder.filter(|folder| match prepare(folder) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error, "good guests are not kept for the next start");
                false
            }
        });
        Store {
            folder,
            guests_dir: settings.dir.clone(),
        }
    }

    /// The names of which anything is kept.
    pub fn names(&self) -> Vec<String> {
        let entries = self
            .folder
            .iter()
            .filter_map(|folder| fs::read_dir(folder).ok());
        let names = entries.flatten().flatten().map(|entry| entry.file_name());
        let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
        names.sort();
        names
    }

    /// The kept components of a name, the latest first.
    pub fn kept(&self, name: &str) -> Vec<Kept> {
        let mut all = self.history(name).all;
        all.reverse();
        all
    }

    /// Keeps a guest that was admitted from a file.
    pub(super) fn keep(&self, guest: &Guest, component: &[u8]) {
        let Some(folder) = self.of(&guest.name) else {
            return;
        };
        let is_latest = |history: History| {
            let last = history.line.last();
            history.is_there && last.is_some_and(|kept| kept.digest == guest.digest)
        };
        let line = Line {
            at: now(),
            event: Event::Admitted,
            digest: guest.digest.clone(),
            version: guest.version.clone(),
        };
        let kept = write(&folder, guest, component).and_then(|()| {
            // A changed configuration is no new component.
            if is_latest(self.history(&guest.name)) {
                return Ok(());
            }
            append(&folder, &line)?;
            self.tidy(&guest.name)
        });
        if let Err(error) = kept {
            tracing::warn!(guest = %guest.name, %error, "cannot keep a good guest for the next start");
        }
    }

    /// The last good component of this name, with what it was admitted with. None if its file was taken away.
    pub(super) fn last_good(
        &self,
        name: &str,
        now: &GuestConfig,
    ) -> Option<(Vec<u8>, GuestConfig)> {
        let history = self.history(name);
        let last = history.line.last().filter(|_| history.is_there)?;
        let folder = self.of(name)?;
        let component = fs::read(folder.join(format!("{}.wasm", last.digest))).ok()?;
        if digest(&component) != last.digest {
            return None;
        }
        let with = fs::read(folder.join(format!("{}.json", last.digest))).ok()?;
        let AdmittedWith { uses } = serde_json::from_slice(&with).ok()?;
        let settings = GuestConfig {
            uses,
            ..now.clone()
        };
        Some((component, settings))
    }

    /// Takes note that a guest's file was taken away.
    pub(super) fn removed(&self, name: &str) {
        if let Some(folder) = self.of(name).filter(|folder| folder.is_dir()) {
            let line = Line {
                at: now(),
                event: Event::Removed,
                digest: String::new(),
                version: String::new(),
            };
            if let Err(error) = append(&folder, &line) {
                tracing::warn!(guest = %name, %error, "cannot note that a guest's file is gone");
            }
        }
    }

    /// Puts an earlier component of a name into the guests' folder: the one whose digest begins with `wanted`, or the
    /// one before the present one. Before the first one there may be the built-in guest; then the file is removed.
    ///
    /// # Errors
    ///
    /// Fails if there is no such component, or if the files cannot be changed.
    pub fn roll_back(&self, name: &str, wanted: Option<&str>) -> Result<RolledBack, NoRollback> {
        let folder = self.of(name).filter(|folder| folder.is_dir());
        let folder = folder.ok_or_else(|| NoRollback::Unknown(plain::line(name, 80)))?;
        let file = self.guests_dir.join(format!("{name}.wasm"));
        let from = self.in_place(name);
        let built_in = loader::built_in_component(name).map(digest);
        let history = self.history(name);
        let to = match wanted {
            Some(wanted) => {
                let kept = history.all.iter().map(|kept| &kept.digest);
                let mut all = kept.chain(&built_in);
                let found = all.find(|digest| !wanted.is_empty() && digest.starts_with(wanted));
                found.cloned().ok_or_else(|| NoRollback::NoSuchDigest {
                    name: name.to_owned(),
                    digest: plain::line(wanted, 80),
                })?
            }
            None => {
                let earlier = match &from {
                    Some(from) => history.before(Some(from)).or(built_in.clone()),
                    // The built-in guest serves, or none.
                    None => None,
                };
                earlier.ok_or_else(|| NoRollback::NothingBefore(name.to_owned()))?
            }
        };
        let is_built_in = built_in.as_ref() == Some(&to);
        let is_kept = history.all.iter().any(|kept| kept.digest == to);
        if is_built_in && !is_kept {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => self.removed(name),
            }
        } else {
            let component = fs::read(folder.join(format!("{to}.wasm")))?;
            let line = Line {
                at: now(),
                event: Event::RolledBack,
                digest: to.clone(),
                version: String::new(),
            };
            append(&folder, &line)?;
            whole_file::replace(&file, &component)?;
        }
        Ok(RolledBack {
            from,
            to,
            is_built_in,
        })
    }

    /// The digest of the component that is in the guests' folder.
    pub(crate) fn in_place(&self, name: &str) -> Option<String> {
        let file = self.guests_dir.join(format!("{name}.wasm"));
        fs::read(file).ok().map(|bytes| digest(&bytes))
    }

    /// Where the components of a name are.
    fn of(&self, name: &str) -> Option<PathBuf> {
        let is_name = plain::is_word(name) && !name.starts_with('.');
        Some(self.folder.as_ref().filter(|_| is_name)?.join(name))
    }

    fn history(&self, name: &str) -> History {
        let log = self.of(name).map(|folder| folder.join("log.jsonl"));
        let text = log.and_then(|log| fs::read_to_string(log).ok());
        let text = text.unwrap_or_default();
        // A line that was cut off, by a full disk for instance, tells nothing.
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        History::of(lines)
    }

    /// Removes the components that are beyond the bound, and the beginning of a log that has grown long.
    fn tidy(&self, name: &str) -> io::Result<()> {
        let Some(folder) = self.of(name) else {
            return Ok(());
        };
        let history = self.history(name);
        for entry in fs::read_dir(&folder)?.flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let is_kept = history.all.iter().any(|kept| Some(&*kept.digest) == stem);
            if !is_kept && stem != Some("log") {
                fs::remove_file(&path)?;
            }
        }
        let log = folder.join("log.jsonl");
        let text = fs::read_to_string(&log)?;
        let lines: Vec<&str> = text.lines().collect();
        match lines.len() > LINES_MAX {
            true => whole_file::replace(
                &log,
                (lines[lines.len() / 2..].join("\n") + "\n").as_bytes(),
            ),
            false => Ok(()),
        }
    }
}

impl History {
    fn of(lines: impl Iterator<Item = Line>) -> Self {
        let mut history = History::default();
        for line in lines {
            match line.event {
                Event::Removed => history.is_there = false,
                Event::RolledBack => {
                    let mut known = history.line.iter();
                    if let Some(at) = known.rposition(|kept| kept.digest == line.digest) {
                        history.line.truncate(at + 1);
                    }
                }
                Event::Admitted => history.admitted(line),
            }
        }
        history
    }

    fn admitted(&mut self, line: Line) {
        self.is_there = true;
        let kept = Kept {
            digest: line.digest,
            version: line.version,
            admitted_at: line.at,
        };
        if self
            .line
            .last()
            .is_none_or(|last| last.digest != kept.digest)
        {
            self.line.push(kept.clone());
        }
        self.all.retain(|known| known.digest != kept.digest);
        self.all.push(kept);
        let surplus = self.all.len().saturating_sub(KEPT_MAX);
        for old in self.all.drain(..surplus) {
            self.line.retain(|kept| kept.digest != old.digest);
        }
    }

    /// The digest before `present`. If that is not one of the line, because it was never admitted, the last one.
    fn before(&self, present: Option<&str>) -> Option<String> {
        let mut known = self.line.iter();
        match known.rposition(|kept| Some(&*kept.digest) == present) {
            Some(at) => Some(self.line[..at].last()?.digest.clone()),
            None => Some(self.line.last()?.digest.clone()),
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn prepare(folder: &Path) -> io::Result<()> {
    make(folder)?;
    ownership::check(folder).map_err(io::Error::other)
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

fn write(folder: &Path, guest: &Guest, component: &[u8]) -> io::Result<()> {
    make(folder)?;
    let with = AdmittedWith {
        uses: guest.settings.uses.clone(),
    };
    let with = serde_json::to_vec(&with).map_err(io::Error::other)?;
    whole_file::replace(&folder.join(format!("{}.json", guest.digest)), &with)?;
    let file = folder.join(format!("{}.wasm", guest.digest));
    match file.exists() {
        true => Ok(()),
        false => whole_file::replace(&file, component),
    }
}

fn append(folder: &Path, line: &Line) -> io::Result<()> {
    let mut log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(folder.join("log.jsonl"))?;
    let line = serde_json::to_string(line).map_err(io::Error::other)?;
    // One write, so that two programs' lines do not mix. The newline before it ends a line that was cut off.
    log.write_all(format!("\n{line}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(events: &[(Event, &str)]) -> History {
        History::of(events.iter().enumerate().map(|(at, (event, digest))| Line {
            at: at as u64,
            event: *event,
            digest: (*digest).into(),
            version: String::new(),
        }))
    }

    #[test]
    fn a_rollback_goes_back_step_by_step_and_a_new_component_goes_on_from_there() {
        use Event::{Admitted, RolledBack};
        let three = [(Admitted, "a"), (Admitted, "b"), (Admitted, "c")];
        assert_eq!(history(&three).before(Some("c")).as_deref(), Some("b"));
        let back = [&three[..], &[(RolledBack, "b"), (Admitted, "b")]].concat();
        assert_eq!(history(&back).before(Some("b")).as_deref(), Some("a"));
        let on = [&back[..], &[(Admitted, "d")]].concat();
        assert_eq!(history(&on).before(Some("d")).as_deref(), Some("b"));
        assert_eq!(history(&on).before(Some("bad")).as_deref(), Some("d"));
        assert_eq!(history(&three).before(Some("a")), None);
        assert_eq!(history(&on).all.len(), 4);
    }

    #[test]
    fn the_last_ten_are_kept() {
        let names: Vec<String> = (0..15).map(|i| i.to_string()).collect();
        let events: Vec<_> = names
            .iter()
            .map(|name| (Event::Admitted, &**name))
            .collect();
        let history = history(&events);
        assert_eq!(
            (history.all.len(), history.line.len()),
            (KEPT_MAX, KEPT_MAX)
        );
        assert_eq!(history.all[0].digest, "5");
    }

    #[test]
    fn a_file_that_was_taken_away_is_not_the_last_good_one() {
        let gone = [(Event::Admitted, "a"), (Event::Removed, "")];
        assert!(!history(&gone).is_there && history(&gone).all.len() == 1);
    }
}
