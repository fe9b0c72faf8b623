//! Sockets that were opened for this service before it started: systemd's socket activation.
//!
//! They outlive the service, so clients that connect while it restarts wait instead of being
//! refused.

use std::io;
use std::net;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net as unix;

use listenfd::ListenFd;

use crate::config::Listen;

/// Sockets that listen already, each with its address.
#[derive(Default)]
pub struct Inherited(Vec<(Listen, Socket)>);

/// A socket that listens already.
pub(super) enum Socket {
    Tcp(net::TcpListener),
    Unix(unix::UnixListener),
}

impl Inherited {
    /// Takes the sockets that `LISTEN_FDS` tells of. To be called once, before there are threads:
    /// it also takes the variables out of the environment.
    ///
    /// # Errors
    ///
    /// Fails if one of them is neither a TCP nor a Unix socket.
    pub fn take() -> io::Result<Self> {
        let mut given = ListenFd::from_env();
        let mut sockets = Vec::new();
        for at in 0..given.len() {
            let socket = match given.take_tcp_listener(at) {
                Ok(Some(tcp)) => (Listen::Tcp(tcp.local_addr()?), Socket::Tcp(tcp)),
                Ok(None) => continue,
                Err(_) => match given.take_unix_listener(at)? {
                    Some(unix) => (unix_address(&unix)?, Socket::Unix(unix)),
                    None => continue,
                },
            };
            sockets.push(socket);
        }
        Ok(Inherited(sockets))
    }

    /// Their addresses, as the configuration names them.
    pub fn addresses(&self) -> Vec<String> {
        let addresses = self.0.iter().map(|(address, _)| address.to_string());
        addresses.collect()
    }

    /// The socket that listens on this address, if there is one.
    pub(super) fn claim(&mut self, address: &Listen) -> Option<Socket> {
        let at = self.0.iter().position(|(known, _)| known == address)?;
        Some(self.0.swap_remove(at).1)
    }
}

fn unix_address(socket: &unix::UnixListener) -> io::Result<Listen> {
    let address = socket.local_addr()?;
    let path = address.as_pathname();
    let path = path.ok_or_else(|| io::Error::other("a Unix socket without a path was given"))?;
    // Whoever can open it needs no key.
    if std::fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
        let message = format!(
            "{} can be opened by other users: set `SocketMode=0600` in the socket's unit",
            path.display()
        );
        return Err(io::Error::other(message));
    }
    Ok(Listen::Unix(path.to_owned()))
}
