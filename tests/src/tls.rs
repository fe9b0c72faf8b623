//! Servers on loopback that speak TLS, with a certificate of their own.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Chooses the cryptography of encrypted connections. If one was chosen before, that one stays.
pub(crate) fn choose() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Accepts connections as this host. Its certificate, which nobody but itself has signed, is written to a file.
pub fn acceptor(host: &str, certificate: &Path) -> Result<TlsAcceptor> {
    choose();
    let own = rcgen::generate_simple_self_signed([host.to_owned()])?;
    std::fs::write(certificate, own.cert.pem())?;
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key.into())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Leads encrypted connections to the server at `target`. Returns the port at which it takes them; it lives as long as the
/// runtime.
pub async fn in_front_of(target: String, acceptor: TlsAcceptor) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                let mut client = acceptor.accept(socket).await?;
                let mut server = TcpStream::connect(target).await?;
                copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    Ok(port)
}
