//! Sockets that the service listens on.

use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};

use anyhow::Context as _;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::Listen;

/// A socket that is listened on.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A connection.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The file of a Unix socket; it goes with its listener.
pub(super) struct SocketFile(PathBuf);

/// Binds all addresses. One that this machine does not have, such as the bridge of a container
/// engine that starts later, is returned for another attempt, if there is one that it has.
///
/// # Errors
///
/// Names the first address that cannot be listened on for any other reason.
pub(super) async fn bind_all(addresses: &[Listen]) -> anyhow::Result<(Vec<Listener>, Vec<Listen>)> {
    let (mut listeners, mut absent) = (Vec::new(), Vec::new());
    for address in addresses {
        match Listener::bind(address).await {
            Ok(listener) => listeners.push(listener),
            Err(error)
                if error.kind() == io::ErrorKind::AddrNotAvailable && addresses.len() > 1 =>
            {
                tracing::warn!(%address, "this machine does not have this address yet; trying again later");
                absent.push(address.clone());
            }
            Err(error) => return Err(error).with_context(|| format!("cannot listen on {address}")),
        }
    }
    if listeners.is_empty() {
        anyhow::bail!("cannot listen: this machine has none of the addresses in `listen`");
    }
    Ok((listeners, absent))
}

/// Tries those again that were absent.
pub(super) async fn bind_absent(listeners: &mut Vec<Listener>, absent: &mut Vec<Listen>) {
    for address in std::mem::take(absent) {
        match Listener::bind(&address).await {
            Ok(listener) => {
                eprintln!("listening on {}", listener.url());
                listeners.push(listener);
            }
            Err(_) => absent.push(address),
        }
    }
}

impl Listener {
    async fn bind(address: &Listen) -> io::Result<Self> {
        match address {
            Listen::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            Listen::Unix(path) => {
                remove_stale(path).await?;
                let listener = UnixListener::bind(path)?;
                // Who may connect is who may write the file: its owner.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                Ok(Listener::Unix(listener, SocketFile(path.clone())))
            }
        }
    }

    /// What to call it, with the port that the system chose if it was left to it.
    pub(super) fn url(&self) -> String {
        match self {
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("http://{address}"),
                Err(error) => format!("an address that is not known: {error}"),
            },
            Listener::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }

    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        match self {
            Listener::Tcp(listener) => listener
                .poll_accept(context)
                .map_ok(|(stream, _)| Socket::Tcp(stream)),
            Listener::Unix(listener, _) => listener
                .poll_accept(context)
                .map_ok(|(stream, _)| Socket::Unix(stream)),
        }
    }
}

/// The next connection to any of the listeners.
pub(super) async fn accept(listeners: &mut [Listener]) -> Socket {
    loop {
        let accepted = poll_fn(|context| {
            let ready = listeners
                .iter()
                .find_map(|listener| match listener.poll_accept(context) {
                    Poll::Ready(accepted) => Some(accepted),
                    Poll::Pending => None,
                });
            ready.map_or(Poll::Pending, Poll::Ready)
        });
        match accepted.await {
            Ok(Socket::Tcp(stream)) => {
                // Without it a short stream waits 40 ms for an acknowledgement (Nagle).
                let _ = stream.set_nodelay(true);
                return Socket::Tcp(stream);
            }
            Ok(socket) => return socket,
            // Out of descriptors, most likely: others will be closed.
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
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
