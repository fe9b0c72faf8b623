//! Finds processes by a mark in their environment, which their children inherit: those that moved
//! out of their process group, and those of a service that was killed together with its warden.

use std::collections::BTreeSet;
use std::io;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use super::proc::{self, Stat};
use super::warden::Warden;

/// The variable that marks every process of a service and its children.
pub(super) const VARIABLE: &str = "CLAUDE_HARNESS_PROCESS";

/// Separates the parts of a mark.
const BETWEEN: char = '#';

/// How long strays have after SIGTERM before they are killed.
const TERM_GRACE: Duration = Duration::from_millis(400);

/// What marks the processes of one service.
#[derive(Clone)]
pub(super) struct Marks(Arc<Shared>);

struct Shared {
    /// The service, as [`name_of`] has it.
    service: String,
    next: AtomicU64,
    /// The numbers of processes that are there.
    live: Mutex<BTreeSet<u64>>,
}

/// A process's mark; once it is dropped, whatever still bears it is a stray.
pub(super) struct Mark {
    marks: Marks,
    number: u64,
}

/// A mark as it was found.
struct Found {
    pid: Pid,
    service: String,
    number: u64,
}

impl Marks {
    /// Fails if the system does not tell of this process.
    pub(super) fn new() -> io::Result<Self> {
        let this = std::process::id().cast_signed();
        let unknown = || io::Error::other("the system does not tell of this process");
        Ok(Marks(Arc::new(Shared {
            service: name_of(this).ok_or_else(unknown)?,
            next: AtomicU64::new(1),
            live: Mutex::default(),
        })))
    }

    /// The service that all of them name.
    pub(super) fn service(&self) -> &str {
        &self.0.service
    }

    /// A mark for another process.
    pub(super) fn another(&self) -> Mark {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.live(|live| live.insert(number));
        Mark {
            marks: self.clone(),
            number,
        }
    }

    fn live<T>(&self, look: impl FnOnce(&mut BTreeSet<u64>) -> T) -> T {
        look(&mut self.0.live.lock())
    }

    /// Ends what this service's processes left behind when they ended, and what was left behind by
    /// services that no longer run. May take half a second.
    pub(super) fn end_strays(&self, warden: &Warden, adopted: &Adopted) {
        adopted.end(|| warden.children());
        end(|found| match found.service == self.0.service {
            true => !self.live(|live| live.contains(&found.number)),
            false => !is_running(&found.service),
        });
    }
}

impl Mark {
    /// What to set [`VARIABLE`] to.
    pub(super) fn value(&self) -> String {
        format!("{}{BETWEEN}{}", self.marks.0.service, self.number)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.marks.live(|live| live.remove(&self.number));
    }
}

/// Processes that this one adopts: its children that it did not start.
#[derive(Clone)]
pub(super) struct Adopted {
    /// The children that this process already had when the program began: it may have been started
    /// by `exec` in a process that had children.
    before: Arc<BTreeSet<(i32, u64)>>,
}

/// How long a child must have been a stray before it is ended: one that is just being started is neither
/// known nor marked for some microseconds.
const SEEN_TWICE: Duration = Duration::from_millis(200);

impl Adopted {
    /// Asks the kernel to make this process the parent of its descendants whose own parents have ended. So they
    /// are found even without a mark. If this process is the first one of a container (process id
    /// 1), it also becomes the parent of processes that others started. In that case, only
    /// processes with a mark are ended. Other systems than Linux have no such thing: there, too, only those are.
    pub(super) fn begin() -> Self {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            tracing::warn!(%error, "processes that leave their group and forget their mark cannot be found");
        }
        Adopted {
            before: Arc::new(children().collect()),
        }
    }

    /// Ends the children that are neither `own` ones nor helpers, bear no mark, and were not there before.
    /// Takes a fifth of a second if there are any.
    pub(super) fn end(&self, own: impl Fn() -> BTreeSet<i32>) {
        if std::process::id() == 1 || !cfg!(target_os = "linux") {
            return;
        }
        let first = self.strays(&own);
        if first.is_empty() {
            return;
        }
        thread::sleep(SEEN_TWICE);
        for (pid, began) in self.strays(&own) {
            let Some(stray) = Pid::from_raw(pid).filter(|_| first.contains(&(pid, began))) else {
                continue;
            };
            tracing::info!(pid, "a process that lost its parent is ended");
            let _ = kill_process(stray, Signal::KILL);
            // If it takes longer to go, the next round finds it.
            thread::sleep(Duration::from_millis(5));
            let _ = rustix::process::waitpid(Some(stray), rustix::process::WaitOptions::NOHANG);
        }
    }

    fn strays(&self, own: impl Fn() -> BTreeSet<i32>) -> BTreeSet<(i32, u64)> {
        // The children are listed before `own` and the helpers are read. A process that is started after that
        // is not in the list; one that was started just before has had time to become known.
        let children: Vec<_> = children().collect();
        let (own, helpers) = (own(), helpers(|helpers| helpers.clone()));
        let this_program = proc::program(std::process::id().cast_signed());
        let is_stray = |child: &(i32, u64)| {
            let pid = &child.0;
            let other = proc::program(*pid);
            let is_known =
                own.contains(pid) || helpers.contains(pid) || self.before.contains(child);
            !is_known && mark_of(*pid).is_none() && (other.is_none() || other != this_program)
        };
        children.into_iter().filter(is_stray).collect()
    }
}

/// This process's children: their ids, and when they began.
fn children() -> impl Iterator<Item = (i32, u64)> {
    let this = std::process::id().cast_signed();
    proc::all().filter_map(move |pid| {
        let stat = Stat::of(pid).filter(|stat| stat.parent == this)?;
        Some((pid, stat.began))
    })
}

/// Children that this program starts beside the command lines, such as its compilers.
fn helpers<T>(look: impl FnOnce(&mut BTreeSet<i32>) -> T) -> T {
    static HELPERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
    look(&mut HELPERS.lock())
}

/// A child that is no stray, until this is dropped.
pub struct Helper(i32);

impl Helper {
    /// Starts a helper.
    pub fn spawn(command: &mut Command) -> io::Result<(Child, Helper)> {
        // Under the lock, so that nobody sees it before it is known.
        helpers(|helpers| {
            let child = command.spawn()?;
            let pid = child.id().cast_signed();
            helpers.insert(pid);
            Ok((child, Helper(pid)))
        })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        helpers(|helpers| helpers.remove(&self.0));
    }
}

/// Ends every process that bears a mark of this service.
pub(super) fn end_all(service: &str) {
    end(|found| found.service == service);
}

/// Ends the marked processes that are `unwanted`: SIGTERM first, then SIGKILL.
fn end(unwanted: impl Fn(&Found) -> bool) {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut found = marked();
        found.retain(&unwanted);
        if found.is_empty() {
            return;
        }
        for stray in &found {
            tracing::info!(
                pid = stray.pid.as_raw_nonzero(),
                ?signal,
                "a process was left behind"
            );
            let _ = kill_process(stray.pid, signal);
        }
        if signal == Signal::TERM {
            thread::sleep(TERM_GRACE);
        }
    }
}

/// All processes of this user that bear a mark. A mark names its service by a process id, which must mean the same to
/// both.
fn marked() -> Vec<Found> {
    let found = proc::all().filter_map(|pid| {
        proc::is_here(pid).then_some(())?;
        let value = mark_of(pid)?;
        let (service, number) = value.rsplit_once(BETWEEN)?;
        Some(Found {
            pid: Pid::from_raw(pid)?,
            service: service.to_owned(),
            number: number.parse().ok()?,
        })
    });
    found.collect()
}

/// The mark in a process's environment, if it has one.
fn mark_of(pid: i32) -> Option<String> {
    let value = proc::environment(pid)?.into_iter().find_map(|variable| {
        let value = variable.strip_prefix(VARIABLE.as_bytes())?;
        Some(value.strip_prefix(b"=")?.to_vec())
    })?;
    String::from_utf8(value).ok()
}

/// A name for a process that no other one has until the machine starts anew: its id, and when it
/// began. None if it has ended.
fn name_of(pid: i32) -> Option<String> {
    let Stat {
        has_ended, began, ..
    } = Stat::of(pid)?;
    (!has_ended).then(|| format!("{pid}.{began}"))
}

/// Whether the service of this name is there.
fn is_running(service: &str) -> bool {
    let pid = service
        .split_once('.')
        .and_then(|(pid, _)| pid.parse().ok());
    pid.and_then(name_of).is_some_and(|name| name == service)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_known_by_its_id_and_its_beginning() {
        let marks = Marks::new().unwrap();
        assert!(is_running(marks.service()));
        let (pid, began) = marks.service().split_once('.').unwrap();
        assert!(began.parse::<u64>().unwrap() > 0);
        assert!(!is_running(&format!("{pid}.1")) && !is_running("x"));
    }

    #[test]
    fn a_mark_is_live_until_it_is_dropped() {
        let marks = Marks::new().unwrap();
        let (first, second) = (marks.another(), marks.another());
        assert_ne!(first.value(), second.value());
        drop(first);
        assert_eq!(marks.live(|live| live.clone()), BTreeSet::from([2]));
    }
}
