//! Stands for `https://api.anthropic.com` on loopback: a proxy that a command line is told to use, and behind which the
//! fake API answers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::fake_api::FakeApi;
use crate::tls;

/// The only host that it stands for.
const HOST: &str = "api.anthropic.com";

/// A running proxy; it lives as long as the runtime.
pub struct Proxy {
    /// For `HTTPS_PROXY`.
    pub url: String,
    /// The file with its certificate, for `NODE_EXTRA_CA_CERTS`.
    pub certificate: PathBuf,
}

impl Proxy {
    /// Starts on a port of the system's choice. The certificate is written into `folder`.
    pub async fn start(api: &FakeApi, folder: &Path) -> Result<Self> {
        let certificate = folder.join("api.pem");
        let acceptor = tls::acceptor(HOST, &certificate)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let target = api.url().trim_start_matches("http://").to_owned();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, target) = (acceptor.clone(), target.clone());
                tokio::spawn(async move { lead_on(socket, &acceptor, &target).await });
            }
        });
        Ok(Proxy { url, certificate })
    }
}

/// Leads one connection to the fake API. For any other host it is closed.
async fn lead_on(socket: TcpStream, acceptor: &TlsAcceptor, target: &str) -> Result<()> {
    let mut socket = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = socket.read_line(&mut head).await?;
        anyhow::ensure!(read > 0, "the client went");
    }
    let wanted = format!("CONNECT {HOST}:443 ");
    anyhow::ensure!(head.starts_with(&wanted), "it asks for another host");
    let established = b"HTTP/1.1 200 Connection established\r\n\r\n";
    socket.write_all(established).await?;
    let mut client = acceptor.accept(socket).await.context("no TLS")?;
    let mut api = TcpStream::connect(target).await?;
    copy_bidirectional(&mut client, &mut api).await?;
    Ok(())
}
