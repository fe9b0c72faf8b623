//! Sockets that the service listens on.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use basics::ownership;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::inherited::{self, Inherited};
use crate::config::Listen;

/// A socket that is listened on.
pub(super) struct Listener {
    address: Listen,
    socket: Bound,
    /// It was given to this service, and is there for the next one too.
    is_inherited: bool,
    _file: Option<SocketFile>,
}

enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection.
pub(super) enum Socket {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// The file of a Unix socket; it goes with its listener.
struct SocketFile(PathBuf);

/// The sockets that are listened on, and the addresses that could not be had yet.
pub(super) struct Listeners {
    bound: Vec<Listener>,
    absent: Vec<Listen>,
}

impl Listeners {
    /// Listens on all addresses. For an address of an inherited socket, that socket is used. If this machine
    /// does not have an address yet, such as the bridge of a container engine that starts later, it is tried
    /// again later, provided that some other address can be listened on.
    ///
    /// # Errors
    ///
    /// Names the first address that cannot be listened on for any other reason.
    pub(super) async fn bind(
        addresses: &[Listen],
        mut inherited: Inherited,
    ) -> anyhow::Result<Self> {
        let (mut bound, mut absent) = (Vec::new(), Vec::new());
        for address in addresses {
            let listener = match inherited.claim(address) {
                Some(socket) => Listener::inherited(address, socket),
                None => Listener::bind(address).await,
            };
            match listener {
                Ok(listener) => bound.push(listener),
                Err(error)
                    if error.kind() == io::ErrorKind::AddrNotAvailable && addresses.len() > 1 =>
                {
                    tracing::warn!(%address, "this machine does not have this address yet; trying again later");
                    absent.push(address.clone());
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    let who = holder(address).await;
                    anyhow::bail!("cannot listen on {address}: {who}");
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot listen on {address}"));
                }
            }
        }
        if bound.is_empty() {
            anyhow::bail!("cannot listen: this machine has none of the addresses in `listen`");
        }
        Ok(Listeners { bound, absent })
    }

    /// What to call each of them.
    pub(super) fn urls(&self) -> Vec<String> {
        self.bound.iter().map(Listener::url).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.bound.len()
    }

    /// Whether some address could not be had yet.
    pub(super) fn lack_some(&self) -> bool {
        !self.absent.is_empty()
    }

    /// Tries those again that could not be had.
    pub(super) async fn bind_absent(&mut self) {
        for address in std::mem::take(&mut self.absent) {
            match Listener::bind(&address).await {
                Ok(listener) => {
                    eprintln!("listening on {}", listener.url());
                    self.bound.push(listener);
                }
                Err(_) => self.absent.push(address),
            }
        }
    }

    /// Listens on these addresses from now on, and on no others. Connections that are there go on.
    pub(super) async fn change(&mut self, addresses: &[Listen]) {
        let known = |address: &&Listen| self.bound.iter().any(|l| l.address == **address);
        let missing: Vec<Listen> = addresses.iter().filter(|a| !known(a)).cloned().collect();
        for address in missing.iter().filter(|a| !self.absent.contains(a)) {
            tracing::info!(%address, "another address to listen on");
        }
        self.absent = missing;
        self.bind_absent().await;
        // Sockets that are no longer wanted are closed only now, so that the service listens at every moment.
        // They may have blocked new addresses, so these are tried once more.
        self.bound
            .retain(|listener| addresses.contains(&listener.address));
        self.bind_absent().await;
        for address in &self.absent {
            tracing::warn!(%address, "cannot listen on this address; trying again later");
        }
    }

    /// Closes this service's copies of the inherited sockets. A client that connects to them now waits for the
    /// next service.
    pub(super) fn leave_inherited(&mut self) {
        self.bound.retain(|listener| !listener.is_inherited);
    }

    /// Waits for the next connection to a listener that has room, and returns it with that listener's address.
    /// Waits for ever if there is no listener.
    pub(super) async fn accept(&self, has_room: impl Fn(&Listen) -> bool) -> (Listen, Socket) {
        loop {
            let accepted = poll_fn(|context| {
                let mut open = self
                    .bound
                    .iter()
                    .filter(|listener| has_room(&listener.address));
                let ready = open.find_map(|listener| match listener.poll_accept(context) {
                    Poll::Ready(accepted) => Some((listener.address.clone(), accepted)),
                    Poll::Pending => None,
                });
                ready.map_or(Poll::Pending, Poll::Ready)
            });
            let (address, accepted) = accepted.await;
            match accepted {
                Ok(socket) => {
                    if let Socket::Tcp(stream, _) = &socket {
                        // Without it a short stream waits 40 ms for an acknowledgement (Nagle).
                        let _ = stream.set_nodelay(true);
                    }
                    return (address, socket);
                }
                // Out of descriptors, most likely: others will be closed.
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }
}

impl Listener {
    async fn bind(address: &Listen) -> io::Result<Self> {
        let (socket, file) = match address {
            Listen::Tcp(tcp) => (Bound::Tcp(TcpListener::bind(tcp).await?), None),
            Listen::Unix(path) => {
                if let Some(Err(what)) = path.parent().map(ownership::check_shared) {
                    tracing::warn!(
                        "others can put another socket in the place of {}: {what}",
                        path.display()
                    );
                }
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)?;
                let file = SocketFile(path.clone());
                // Who may connect is who may write the file: its owner.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                (Bound::Unix(listener), Some(file))
            }
        };
        Ok(Listener {
            address: address.clone(),
            socket,
            is_inherited: false,
            _file: file,
        })
    }

    fn inherited(address: &Listen, socket: inherited::Socket) -> io::Result<Self> {
        let socket = match socket {
            inherited::Socket::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                Bound::Tcp(TcpListener::from_std(tcp)?)
            }
            inherited::Socket::Unix(unix) => {
                unix.set_nonblocking(true)?;
                Bound::Unix(UnixListener::from_std(unix)?)
            }
        };
        Ok(Listener {
            address: address.clone(),
            socket,
            is_inherited: true,
            _file: None,
        })
    }

    /// What to call it, with the port that the system chose if it was left to it.
    fn url(&self) -> String {
        match &self.socket {
            Bound::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(error) => format!("an address that is not known: {error}"),
            },
            Bound::Unix(_) => self.address.to_string(),
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        match &self.socket {
            Bound::Tcp(listener) => listener
                .poll_accept(context)
                .map_ok(|(stream, peer)| Socket::Tcp(stream, peer)),
            Bound::Unix(listener) => listener
                .poll_accept(context)
                .map_ok(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

/// Who listens on an address that is taken, and what to do about it.
async fn holder(address: &Listen) -> String {
    const OTHERWISE: &str = "`--listen 127.0.0.1:0` takes a port that is free, and `listen` in the configuration names another one";
    let version = match address {
        Listen::Tcp(tcp) => {
            let asked = tokio::time::timeout(HOLDER_TIMEOUT, version_at(*tcp));
            asked.await.ok().flatten()
        }
        Listen::Unix(_) => None,
    };
    match version {
        Some(version) => format!(
            "another claude-harness ({version}) listens there already: `systemctl --user status claude-harness` shows it if it is a service; {OTHERWISE}"
        ),
        None => format!("another program listens there; {OTHERWISE}"),
    }
}

/// How long the program at a taken address may take to say what it is.
const HOLDER_TIMEOUT: Duration = Duration::from_secs(2);

/// The version of the claude-harness at an address; None if it is another program.
async fn version_at(address: SocketAddr) -> Option<String> {
    /// More than any state has, in bytes.
    const ANSWER_MAX: u64 = 1 << 20;
    let mut stream = TcpStream::connect(address).await.ok()?;
    let ask = b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n";
    stream.write_all(ask).await.ok()?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_MAX)
        .read_to_end(&mut answer)
        .await
        .ok()?;
    let answer = String::from_utf8_lossy(&answer);
    let state: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    let ours = state["backends"].is_object() && state["guests"].is_object();
    let version = state["version"]
        .as_str()
        .filter(|version| basics::plain::is_word(version));
    version.filter(|_| ours).map(str::to_owned)
}

/// Removes the socket file of a service that is gone; one that answers is left alone.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
