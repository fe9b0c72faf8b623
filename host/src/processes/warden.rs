//! Ends what the service leaves behind if it is killed.
//!
//! The warden is a small process of the same program. The service tells it of each process
//! group through a pipe; when the pipe closes, because the service is gone however it went, the
//! warden ends the groups that are still there.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

/// The hidden subcommand that runs a warden.
pub const SUBCOMMAND: &str = "warden";

/// How long groups have after SIGTERM before they are killed.
const TERM_GRACE: Duration = Duration::from_millis(400);

/// The service's end.
pub(super) struct Warden(Arc<Mutex<Post>>);

struct Post {
    child: Child,
    pipe: ChildStdin,
    groups: BTreeSet<i32>,
}

/// A process group that the warden watches, until this is dropped.
pub(super) struct Registration {
    warden: Arc<Mutex<Post>>,
    group: i32,
}

impl Warden {
    pub(super) fn start() -> io::Result<Self> {
        let (child, pipe) = launch()?;
        let groups = BTreeSet::new();
        Ok(Warden(Arc::new(Mutex::new(Post {
            child,
            pipe,
            groups,
        }))))
    }

    pub(super) fn register(&self, leader: Pid) -> Registration {
        let group = leader.as_raw_nonzero().get();
        let mut post = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        post.groups.insert(group);
        post.tell('+', group);
        Registration {
            warden: self.0.clone(),
            group,
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut post = self.warden.lock().unwrap_or_else(PoisonError::into_inner);
        post.groups.remove(&self.group);
        post.tell('-', self.group);
    }
}

impl Post {
    /// Tells the warden; if it is gone, a new one takes over all groups.
    fn tell(&mut self, sign: char, group: i32) {
        if writeln!(self.pipe, "{sign}{group}").is_ok() {
            return;
        }
        let _ = self.child.wait();
        match launch() {
            Ok((child, pipe)) => {
                (self.child, self.pipe) = (child, pipe);
                let all: String = self
                    .groups
                    .iter()
                    .map(|group| format!("+{group}\n"))
                    .collect();
                let _ = self.pipe.write_all(all.as_bytes());
                tracing::warn!("the warden was gone, started another one");
            }
            Err(error) => tracing::error!(%error, "cannot start a warden"),
        }
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        // The pipe closes behind this, and the warden ends by itself.
        for group in std::mem::take(&mut self.groups) {
            let _ = writeln!(self.pipe, "+{group}");
        }
    }
}

fn launch() -> io::Result<(Child, ChildStdin)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pipe = child
        .stdin
        .take()
        .ok_or_else(|| io::Error::other("the warden has no pipe"))?;
    Ok((child, pipe))
}

/// The warden's own life: watches until standard input closes, and then ends what is left.
pub fn run() {
    let mut groups = BTreeSet::new();
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(number) = line.get(1..).unwrap_or_default().parse::<i32>() else {
            continue;
        };
        match line.as_bytes()[0] {
            b'+' => groups.insert(number),
            _ => groups.remove(&number),
        };
    }
    let groups: Vec<Pid> = groups.into_iter().filter_map(Pid::from_raw).collect();
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
