//! A service's life: listen, serve until a signal, drain, leave nothing behind.

mod listener;

use std::convert::Infallible;
use std::future::Future;
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
use crate::config::Config;
use crate::service::Service;
use crate::shutdown::{Signals, Wish};
use listener::{Listener, Socket};

/// How long a client may take to send the head of a request, or to send another one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// How long processes have to go once their requests are gone.
const LAST_ENDINGS: Duration = Duration::from_secs(3);

/// Runs a service until a signal ends it.
///
/// # Errors
///
/// Fails if an address cannot be listened on, or if the service cannot start.
pub async fn run(config: Config, metrics: PrometheusHandle) -> Result<()> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let mut listeners = Vec::new();
    for address in &config.listen {
        let listener = Listener::bind(address).await;
        listeners.push(listener.with_context(|| format!("cannot listen on {address}"))?);
    }
    let service = Service::start(config, metrics)?;
    let server = Server {
        router: api::router(service.clone()),
        graceful: GracefulShutdown::new(),
    };
    for listener in &listeners {
        eprintln!("listening on {}", listener.url());
    }
    let mut connections = JoinSet::new();
    server
        .accept_until(
            listeners,
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
    let _ = tokio::time::timeout(LAST_ENDINGS, service.processes.drained()).await;
    Ok(())
}

async fn asked_to_stop(service: &Service, signals: &mut Signals) {
    while signals.next().await == Wish::Reload {
        service.guests.reload().await;
    }
}

struct Server {
    router: Router,
    graceful: GracefulShutdown,
}

impl Server {
    /// Takes connections until `stop`.
    async fn accept_until(
        &self,
        mut listeners: Vec<Listener>,
        connections: &mut JoinSet<()>,
        stop: impl Future<Output = ()>,
    ) {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                socket = listener::accept(&mut listeners) => match socket {
                    Socket::Tcp(stream) => self.serve(stream, Door::Tcp, connections),
                    Socket::Unix(stream) => self.serve(stream, Door::Unix, connections),
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    fn serve<S>(&self, stream: S, door: Door, connections: &mut JoinSet<()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
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
            .serve_connection(TokioIo::new(stream), respond);
        let connection = self.graceful.watch(connection);
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke off");
            }
        });
    }
}
