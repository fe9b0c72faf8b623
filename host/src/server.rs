//! A service's life: listen, serve until a signal, drain, leave nothing behind.

mod connection;
mod listener;

use std::convert::Infallible;
use std::future::Future;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tower::ServiceExt;

use crate::api::{self, Door};
use crate::config::{Config, Listen};
use crate::readiness;
use crate::service::Service;
use crate::shutdown::{Signals, Wish};
use connection::Connection;
use listener::{Listener, Socket};

/// How long a client may take to send the head of a request, or to send another one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// Connections at once; further ones wait to be taken.
const CONNECTIONS_MAX: usize = 2048;

/// How often an address that this machine did not have at the start is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// How long processes have to go once their requests are gone.
const LAST_ENDINGS: Duration = Duration::from_secs(3);

/// Runs a service until a signal ends it.
///
/// # Errors
///
/// Fails if an address cannot be listened on, or if the service cannot start.
pub async fn run(config: Config, metrics: PrometheusHandle) -> Result<()> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let (listeners, absent) = listener::bind_all(&config.listen).await?;
    let service = Service::start(config, metrics)?;
    let server = Server {
        router: api::router(service.clone()),
        graceful: GracefulShutdown::new(),
        patience: service.config.http.client_timeout,
    };
    for listener in &listeners {
        eprintln!("listening on {}", listener.url());
    }
    let mut connections = JoinSet::new();
    server
        .accept_until(
            listeners,
            absent,
            &mut connections,
            asked_to_stop(&service, &mut signals),
        )
        .await;
    service.drain();
    let grace = service.config.shutdown_grace;
    tracing::info!(?grace, "draining; another signal ends it at once");
    tokio::select! {
        () = server.graceful.shutdown() => {}
        () = tokio::time::sleep(grace) => tracing::warn!("requests in flight are cut off"),
        () = signals.stop() => tracing::warn!("a second signal: requests in flight are cut off"),
    }
    connections.shutdown().await;
    service.monitor.stop();
    let _ = tokio::time::timeout(LAST_ENDINGS, service.processes.drained()).await;
    Ok(())
}

async fn asked_to_stop(service: &Service, signals: &mut Signals) {
    loop {
        let wish = signals.next().await;
        if wish == Wish::Stop {
            return;
        }
        // A compile may take long: it must not keep the service from being stopped.
        tokio::select! {
            _ = service.guests.reload() => {}
            () = signals.stop() => return,
        }
    }
}

struct Server {
    router: Router,
    graceful: GracefulShutdown,
    /// How long a client may take to take what is sent to it.
    patience: Duration,
}

impl Server {
    /// Takes connections until `stop`, and listens on `absent` addresses once they are there.
    async fn accept_until(
        &self,
        mut listeners: Vec<Listener>,
        mut absent: Vec<Listen>,
        connections: &mut JoinSet<()>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        let mut retry = tokio::time::interval(BIND_AGAIN);
        loop {
            tokio::select! {
                () = &mut stop => return,
                socket = listener::accept(&mut listeners), if connections.len() < CONNECTIONS_MAX => match socket {
                    Socket::Tcp(stream) => self.serve(stream, Door::Tcp, connections),
                    Socket::Unix(stream) => self.serve(stream, Door::Unix, connections),
                },
                Some(_) = connections.join_next() => {}
                _ = retry.tick(), if !absent.is_empty() => listener::bind_absent(&mut listeners, &mut absent).await,
            }
        }
    }

    fn serve<S>(&self, stream: S, door: Door, connections: &mut JoinSet<()>)
    where
        S: AsyncRead + AsyncWrite + AsFd + Unpin + Send + 'static,
    {
        // hyper does not look for the end of a connection while there is something to be read.
        let other_end = match stream
            .as_fd()
            .try_clone_to_owned()
            .and_then(readiness::watch)
        {
            Ok(other_end) => other_end,
            Err(error) => return tracing::warn!(%error, "cannot take a connection"),
        };
        let router = self.router.clone();
        let respond = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(door);
            let router = router.clone();
            async move {
                let answered = router.oneshot(request.map(axum::body::Body::new)).await;
                answered.map_err(|never: Infallible| match never {})
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(
                TokioIo::new(Connection::new(stream, self.patience)),
                respond,
            );
        let connection = self.graceful.watch(connection);
        connections.spawn(async move {
            tokio::select! {
                biased;
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "a connection broke off");
                },
                () = readiness::hung_up(&other_end) => {}
            }
        });
    }
}
