//! One process, from its start to its end.

use std::collections::VecDeque;
use std::future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::ending::{Ending, exit_status, has_ended, is_stopped};
use super::framing::{Frame, FrameReader};
use super::warden::{Registration, Warden};
use super::{Reading, TERM_GRACE, proc};

/// How much of the end of stderr is kept, in bytes.
const STDERR_TAIL: usize = 8 << 10;

/// How long output is awaited after the process itself ended: its children may hold the pipe.
const LINGER_TIMEOUT: Duration = Duration::from_millis(200);

/// How long a process may run after it has closed its output. Then its group is killed, since it can say
/// nothing more.
const MUTE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a silent process, which was idle before its request, is checked for SIGSTOP.
const STOPPED_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A running process. Dropping it ends its whole group.
pub struct Process {
    pid: Pid,
    ending: Ending,
    stdin: Option<ChildStdin>,
    to_write: VecDeque<Bytes>,
    close_when_written: bool,
    stdout: FrameReader<ChildStdout>,
    stdout_open: bool,
    stderr: Option<ChildStderr>,
    stderr_tail: BytesMut,
    has_ended: bool,
    /// When to kill a process that has closed its output and does not end.
    mute_until: Option<Instant>,
    /// When to stop waiting for more of the output of a process that has ended.
    linger_until: Option<Instant>,
    /// The signal to the group when this is dropped.
    last_signal: Signal,
    remains: Option<Remains>,
}

/// How processes end, whatever thread drops them.
#[derive(Clone)]
pub(super) struct Endings {
    /// Those that are not gone yet.
    pub(super) tasks: TaskTracker,
    /// The runtime that watches the pipes of processes and waits for processes to end.
    pub(super) runtime: Handle,
    /// How many of their directories are removed at once, so that many ends take few threads.
    pub(super) removals: Arc<Semaphore>,
}

/// What is left to do when a process is no longer wanted.
struct Remains {
    child: Child,
    registration: Registration,
    endings: Endings,
    /// What lives as long as the process: its working directory and its slot.
    keep: Box<dyn Send>,
    /// What the current request holds, such as its permit.
    hold: Option<Hold>,
}

/// Something that is held until a process that serves a request has left nothing behind.
pub type Hold = Box<dyn Send + Sync>;

/// What a process did.
#[derive(Debug)]
pub enum Output {
    /// A line without its newline, or bytes as they were read.
    Piece(Bytes),
    /// A line of output is longer than allowed.
    TooLong,
    /// It ended, with a status unless a signal ended it.
    Exited(Option<i32>),
}

impl AsMut<Process> for Process {
    fn as_mut(&mut self) -> &mut Process {
        self
    }
}

impl Process {
    pub(super) fn new(
        mut child: Child,
        reading: Reading,
        warden: &Warden,
        endings: &Endings,
        keep: Box<dyn Send>,
    ) -> io::Result<Self> {
        let gone = || io::Error::other("the process has no pipes");
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .ok_or_else(gone)?;
        let registration = warden.register(pid);
        Ok(Process {
            pid,
            ending: Ending::of(pid)?,
            stdin: child.stdin.take(),
            to_write: VecDeque::new(),
            close_when_written: false,
            stdout: FrameReader::new(child.stdout.take().ok_or_else(gone)?, reading),
            stdout_open: true,
            stderr: child.stderr.take(),
            stderr_tail: BytesMut::new(),
            has_ended: false,
            mute_until: None,
            linger_until: None,
            last_signal: Signal::TERM,
            remains: Some(Remains {
                child,
                registration,
                endings: endings.clone(),
                keep,
                hold: None,
            }),
        })
    }

    /// Gives it what a request holds, such as its permit. That is released when nothing is left of the process.
    pub fn serve(&mut self, hold: Option<Hold>) {
        if let Some(remains) = &mut self.remains {
            remains.hold = hold;
        }
    }

    /// Takes back what the last request held: the process serves none any more.
    pub fn rest(&mut self) -> Option<Hold> {
        self.remains.as_mut()?.hold.take()
    }

    /// Whether it runs, was not stopped, and has taken all that was written to it.
    pub fn is_sound(&self) -> bool {
        self.to_write.is_empty()
            && self.stdin.is_some()
            && !has_ended(self.pid)
            && !is_stopped(self.pid)
    }

    /// Drops output that nobody has read. False if the process cannot be used again: it prints without end, its
    /// output stops within a line, or it has closed its output.
    pub fn drop_output(&mut self) -> bool {
        self.stdout.skip()
    }

    /// Memory that it holds, in bytes.
    pub fn resident(&self) -> Option<u64> {
        proc::resident(self.id())
    }

    /// The process's id, for the log.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Queues bytes for standard input. They are written while [`Process::next`] is awaited.
    pub fn write(&mut self, bytes: Vec<u8>) {
        if self.stdin.is_some() && !self.close_when_written && !bytes.is_empty() {
            self.to_write.push_back(bytes.into());
        }
    }

    /// Closes standard input once all that was queued is written.
    pub fn close_input(&mut self) {
        self.close_when_written = true;
        if self.to_write.is_empty() {
            self.stdin = None;
        }
    }

    /// Kills the group at once, without SIGTERM first: after SIGTERM the program might go on with work that
    /// nobody wants.
    pub fn end_at_once(&mut self) {
        self.last_signal = Signal::KILL;
        signal_group(self.pid, Signal::KILL);
    }

    /// Whether it is killed when it is dropped, without a SIGTERM and before its input is closed. For a process that would
    /// take the end of its input for an answer, and go on with work that nobody wants.
    pub fn is_killed_at_end(&mut self, is_killed: bool) {
        self.last_signal = match is_killed {
            true => Signal::KILL,
            false => Signal::TERM,
        };
    }

    /// The last of what the process wrote to standard error.
    pub fn stderr_tail(&self) -> String {
        String::from_utf8_lossy(&self.stderr_tail).trim().to_owned()
    }

    /// Like [`Process::next`], for a process that was idle before. A process that somebody has stopped
    /// (SIGSTOP) counts as ended, after a second of silence.
    pub async fn next_unless_stopped(&mut self) -> Output {
        loop {
            let pid = self.pid;
            tokio::select! {
                output = self.next() => return output,
                () = tokio::time::sleep(STOPPED_POLL_INTERVAL) => if is_stopped(pid) {
                    return Output::Exited(None);
                }
            }
        }
    }

    /// Another piece of what was read already. None if more must be read, or a line is too long.
    pub fn buffered(&mut self) -> Option<Bytes> {
        match self.stdout.buffered()? {
            Frame::Whole(piece) => Some(piece),
            Frame::TooLong | Frame::End => None,
        }
    }

    /// What the process does next. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Output {
        if self.has_ended && self.linger_until.is_none() {
            self.linger_until = Some(Instant::now() + LINGER_TIMEOUT);
        }
        loop {
            if let Some(piece) = self.stdout.buffered() {
                return self.output(piece);
            }
            let linger = self.linger_until;
            tokio::select! {
                biased;
                piece = self.stdout.next(), if self.stdout_open => match piece {
                    Ok(Frame::End) | Err(_) => {
                        self.stdout_open = false;
                        self.mute_until = Some(Instant::now() + MUTE_TIMEOUT);
                    }
                    Ok(piece) => return self.output(piece),
                },
                written = write_some(&mut self.stdin, &mut self.to_write) => self.written(written),
                () = read_tail(&mut self.stderr, &mut self.stderr_tail) => {}
                () = self.ending.came(), if !self.has_ended => {
                    self.has_ended = true;
                    self.linger_until = Some(Instant::now() + LINGER_TIMEOUT);
                }
                () = sleep_until(linger) => self.stdout_open = false,
                () = sleep_until(self.mute_until) => {
                    self.mute_until = None;
                    signal_group(self.pid, Signal::KILL);
                }
            }
            if self.has_ended && !self.stdout_open {
                return Output::Exited(exit_status(self.pid));
            }
        }
    }

    /// Turns a frame into output. Output has come, so the wait for more begins anew.
    fn output(&mut self, piece: Frame) -> Output {
        self.linger_until = None;
        match piece {
            Frame::Whole(bytes) => Output::Piece(bytes),
            Frame::TooLong | Frame::End => Output::TooLong,
        }
    }

    fn written(&mut self, result: io::Result<()>) {
        // The process no longer reads its input. Its end will show why, so nothing is reported here.
        if result.is_err() {
            self.to_write.clear();
            self.stdin = None;
        } else if self.to_write.is_empty() && self.close_when_written {
            self.stdin = None;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(remains) = self.remains.take() else {
            return;
        };
        let pid = self.pid;
        signal_group(pid, self.last_signal);
        self.stdin = None;
        // If the runtime ends before this task, the child is dropped and so killed. Its group is still
        // registered with the warden, which ends the rest.
        let Endings { tasks, runtime, .. } = remains.endings.clone();
        tasks.spawn_on(remains.end(pid), &runtime);
    }
}

impl Remains {
    /// Waits for the end, within bounds, and leaves nothing behind.
    async fn end(mut self, pid: Pid) {
        let deadline = Instant::now() + TERM_GRACE;
        while !has_ended(pid) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Until the leader is reaped, its id cannot be anybody else's group.
        signal_group(pid, Signal::KILL);
        if let Err(error) = self.child.wait().await {
            tracing::warn!(pid = pid.as_raw_nonzero(), %error, "cannot reap a process");
        }
        self.registration.release();
        // Removing its directory may wait for the disk, so no thread that serves does it.
        let turn = self.endings.removals.acquire().await;
        let keep = self.keep;
        let _ = tokio::task::spawn_blocking(move || drop(keep)).await;
        drop(turn);
        drop(self.hold);
    }
}

/// Writes a part of what is queued; pends while there is nothing to write.
async fn write_some(stdin: &mut Option<ChildStdin>, queue: &mut VecDeque<Bytes>) -> io::Result<()> {
    let (Some(pipe), Some(bytes)) = (stdin, queue.front_mut()) else {
        return future::pending().await;
    };
    let count = pipe.write(bytes).await?;
    bytes.advance(count);
    if bytes.is_empty() {
        queue.pop_front();
    }
    Ok(())
}

/// Reads standard error and keeps its end; pends when it is closed.
async fn read_tail(stderr: &mut Option<ChildStderr>, tail: &mut BytesMut) {
    let Some(pipe) = stderr else {
        return future::pending().await;
    };
    tail.reserve(STDERR_TAIL);
    match pipe.read_buf(tail).await {
        Ok(0) | Err(_) => *stderr = None,
        Ok(_) => tail.advance(tail.len().saturating_sub(STDERR_TAIL)),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => future::pending().await,
    }
}

fn signal_group(pid: Pid, signal: Signal) {
    // The group may be gone already, which is what is wanted.
    let _ = rustix::process::kill_process_group(pid, signal);
}
