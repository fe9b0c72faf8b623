//! A watchdog: ends what the service leaves behind if it is killed.
//!
//! The warden is a small process of the same program. The service tells it of each process
//! group through a pipe; when the pipe closes, because the service has ended in whatever way, the
//! warden ends the groups that are still there.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal};

use super::{orphans, workdirs};

/// The hidden subcommand that runs a warden.
pub const SUBCOMMAND: &str = "warden";

/// How long groups have after SIGTERM before they are killed.
const TERM_GRACE: Duration = Duration::from_millis(400);

/// The service's side of the connection to its warden.
#[derive(Clone)]
pub(super) struct Warden(Arc<Mutex<Connection>>);

struct Connection {
    child: Child,
    pipe: ChildStdin,
    groups: BTreeSet<i32>,
    /// Removed at the end: what lies in it is of no use to anybody else.
    folder: PathBuf,
    /// The service that the marks of all processes name.
    service: String,
    /// Starts a warden.
    launch: fn() -> io::Result<(Child, ChildStdin)>,
}

/// A process group that the warden watches, until it is told that nothing is left of it.
pub(super) struct Registration {
    warden: Arc<Mutex<Connection>>,
    group: i32,
}

impl Warden {
    /// Starts a warden that at the end also ends what bears a mark of `service`, and removes
    /// `folder`.
    pub(super) fn start(folder: &Path, service: &str) -> io::Result<Self> {
        let (child, pipe) = launch()?;
        let mut connection = Connection {
            child,
            pipe,
            groups: BTreeSet::new(),
            folder: folder.to_owned(),
            service: service.to_owned(),
            launch,
        };
        let all = connection.all();
        connection.pipe.write_all(all.as_bytes())?;
        Ok(Warden(Arc::new(Mutex::new(connection))))
    }

    /// Replaces the warden if it is gone.
    pub(super) fn look_after(&self) {
        self.0.lock().send("");
    }

    /// The service's own children: the leaders of the process groups, and the warden itself.
    pub(super) fn children(&self) -> BTreeSet<i32> {
        let connection = self.0.lock();
        let warden = connection.child.id().cast_signed();
        connection.groups.iter().copied().chain([warden]).collect()
    }

    pub(super) fn register(&self, leader: Pid) -> Registration {
        let group = leader.as_raw_nonzero().get();
        let mut connection = self.0.lock();
        connection.groups.insert(group);
        connection.send(&format!("+{group}"));
        Registration {
            warden: self.0.clone(),
            group,
        }
    }
}

impl Registration {
    /// Tells the warden that nothing is left of the group. A registration that is dropped
    /// instead stays with the warden, which ends the group when this service is gone.
    pub(super) fn release(self) {
        let mut connection = self.warden.lock();
        connection.groups.remove(&self.group);
        connection.send(&format!("-{}", self.group));
    }
}

impl Connection {
    /// Tells the warden something. If the warden is gone or does not read, a new one is started and told
    /// everything. Writing never blocks: a warden that somebody stopped must not stop the service.
    fn send(&mut self, line: &str) {
        let told = self.pipe.write_all(format!("{line}\n").as_bytes());
        if told.is_ok() {
            return;
        }
        // The old warden is killed first: otherwise it would end all groups when its pipe closes.
        let _ = self.child.kill();
        let _ = self.child.wait();
        match (self.launch)() {
            Ok((child, pipe)) => {
                (self.child, self.pipe) = (child, pipe);
                let _ = self.pipe.write_all(self.all().as_bytes());
                tracing::warn!("the warden was gone or stuck, started another one");
            }
            Err(error) => tracing::error!(%error, "cannot start a warden"),
        }
    }

    /// Everything that a warden must know.
    fn all(&self) -> String {
        let groups = self.groups.iter().map(|group| format!("+{group}\n"));
        let folder = format!("{}\n", self.folder.display());
        let service = format!("#{}\n", self.service);
        groups.chain([folder, service]).collect()
    }
}

fn launch() -> io::Result<(Child, ChildStdin)> {
    let mut command = Command::new(basics::program::own());
    command
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    start(&mut command)
}

/// Starts a program, with a pipe to it that never blocks this side.
fn start(command: &mut Command) -> io::Result<(Child, ChildStdin)> {
    let mut child = command.stdin(Stdio::piped()).spawn()?;
    let pipe = child
        .stdin
        .take()
        .ok_or_else(|| io::Error::other("the warden has no pipe"))?;
    rustix::fs::fcntl_setfl(&pipe, rustix::fs::OFlags::NONBLOCK)?;
    Ok((child, pipe))
}

/// The warden's own life: watches until standard input closes, and then ends what is left.
pub fn run() {
    let mut groups = BTreeSet::new();
    let (mut folder, mut service) = (None, None);
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let number = line.get(1..).unwrap_or_default().parse::<i32>();
        match (line.as_bytes().first(), number) {
            (Some(b'/'), _) => folder = Some(PathBuf::from(line)),
            (Some(b'#'), _) => service = line.get(1..).map(str::to_owned),
            (Some(b'+'), Ok(group)) => drop(groups.insert(group)),
            (Some(b'-'), Ok(group)) => drop(groups.remove(&group)),
            _ => {}
        }
    }
    end(groups.into_iter().filter_map(Pid::from_raw).collect());
    if let Some(service) = service {
        // What left its group.
        orphans::end_all(&service);
    }
    if let Some(folder) = folder {
        // The service removes it itself where it ends in peace.
        workdirs::remove_abandoned(&folder);
    }
}

fn end(groups: Vec<Pid>) {
    if groups.is_empty() {
        return;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        for group in &groups {
            let _ = rustix::process::kill_process_group(*group, signal);
        }
        if signal == Signal::TERM {
            thread::sleep(TERM_GRACE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A warden that does not listen.
    fn deaf() -> io::Result<(Child, ChildStdin)> {
        start(Command::new("sleep").arg("1000"))
    }

    #[test]
    fn a_warden_that_does_not_listen_is_replaced_and_holds_nobody_up() {
        let (child, pipe) = deaf().unwrap();
        let first = child.id();
        let mut connection = Connection {
            child,
            pipe,
            groups: BTreeSet::from([5]),
            folder: "/none".into(),
            service: "none".into(),
            launch: deaf,
        };
        // A pipe holds 64 KiB.
        for number in 0..20_000 {
            connection.send(&format!("+{number}"));
        }
        assert_ne!(connection.child.id(), first);
        connection.child.kill().unwrap();
        connection.child.wait().unwrap();
    }
}
