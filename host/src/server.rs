//! A service's life: listen, serve until a signal, drain, leave nothing behind.

mod busy_body;
mod inherited;
mod listener;
mod places;

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use basics::readiness;
use futures_util::future::Either;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::task::AbortOnDropHandle;
use tower::ServiceExt;

use crate::api::{self, Peer, Transport};
use crate::config::Config;
use crate::service::Service;
use crate::shutdown::{Intent, Signals};
use crate::systemd;
use crate::telemetry::names;
use busy_body::BusyBody;
pub use inherited::Inherited;
use listener::{Listeners, Socket};
use places::{Place, Places};

/// How long a client may take to send the head of a request, or to begin another one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 64 << 10;

/// How often an address that this machine did not have at the start is tried again.
const BIND_RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The pause between a signal to stop and the moment when requests are refused and idle connections closed.
/// Without it, a client that has just connected would see its connection closed with no answer.
const STOP_DELAY: Duration = Duration::from_millis(500);

/// How long the service waits for processes to end after all requests have ended.
const ENDINGS_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the service waits for the last requests to be written into the ledger.
const LEDGER_PATIENCE: Duration = Duration::from_secs(2);

/// Runs a service until a signal ends it, on sockets of its own or on those that were given to it.
///
/// # Errors
///
/// Fails if an address cannot be listened on, or if the service cannot start.
pub async fn run(config: Config, inherited: Inherited, metrics: PrometheusHandle) -> Result<()> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let mut listeners = Listeners::bind(&config.listen, inherited).await?;
    let service = Service::start(config, metrics, api::JUDGES)?;
    let server = Server {
        router: api::router(service.clone()),
        places: Places::new(service.snapshot().config.max_processes),
        service: service.clone(),
    };
    let urls = listeners.urls();
    for url in &urls {
        eprintln!("listening on {url}");
    }
    service.announce();
    systemd::ready(&format!("listening on {}", urls.join(", ")));
    let _watchdog = AbortOnDropHandle::new(tokio::spawn(systemd::keep_watchdog_calm()));
    let (mut connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
    tokio::select! {
        () = server.accept(&mut listeners, &mut connections, Some(&graceful)) => {}
        () = asked_to_stop(&service, &mut signals) => {}
    }
    systemd::stopping();
    listeners.leave_inherited();
    if !server.places.are_free() {
        tracing::info!("told to stop; requests on the way are still taken");
        tokio::time::sleep(STOP_DELAY).await;
    }
    service.drain();
    let grace = service.snapshot().config.shutdown_grace;
    tracing::info!(?grace, "draining; another signal ends it at once");
    tokio::select! {
        () = graceful.shutdown() => {}
        // Requests that come now are answered with a 503.
        () = server.accept(&mut listeners, &mut connections, None) => {}
        () = tokio::time::sleep(grace) => tracing::warn!("requests in flight are cut off"),
        () = signals.stop() => tracing::warn!("a second signal: requests in flight are cut off"),
    }
    connections.shutdown().await;
    service.monitor.stop();
    service.quotas.write();
    if !service.books.ledger.flush(LEDGER_PATIENCE) {
        tracing::warn!("the last requests may be missing in the ledger");
    }
    let books = service.books.clone();
    let _ = tokio::task::spawn_blocking(move || books.stop_traces()).await;
    let gone = tokio::time::timeout(ENDINGS_TIMEOUT, service.processes.drained()).await;
    match gone {
        Ok(()) => tracing::info!("drained: nothing runs any more"),
        Err(_) => tracing::warn!("stopped; some processes did not end in time"),
    }
    Ok(())
}

async fn asked_to_stop(service: &Service, signals: &mut Signals) {
    let mut intent = signals.next().await;
    while intent == Intent::Reload {
        // A compile may take long: it must not keep the service from being stopped. Whoever asks
        // meanwhile may have changed something since it began.
        let mut next = None;
        let mut reload = pin!(service.reloader.reload());
        loop {
            tokio::select! {
                _ = &mut reload => break,
                other = signals.next() => next = Some(other),
            }
            if next == Some(Intent::Stop) {
                return;
            }
        }
        intent = match next {
            Some(next) => next,
            None => signals.next().await,
        };
    }
}

struct Server {
    router: Router,
    places: Places,
    service: Arc<Service>,
}

impl Server {
    /// Accepts connections for ever, at the configured addresses. With `graceful`, a connection may carry several
    /// requests, and is waited for at the end.
    async fn accept(
        &self,
        listeners: &mut Listeners,
        connections: &mut JoinSet<()>,
        graceful: Option<&GracefulShutdown>,
    ) {
        let mut retry = tokio::time::interval(BIND_RETRY_INTERVAL);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut changes = self.service.runtime.configurations();
        loop {
            self.places.share(listeners.count());
            tokio::select! {
                (address, socket) = listeners.accept(|address| self.places.has_room(address)) => {
                    let peer = match &socket {
                        Socket::Tcp(_, peer) => Some(peer.ip()),
                        Socket::Unix(_) => None,
                    };
                    let Some(place) = self.places.take(&address, peer) else {
                        metrics::counter!(names::CONNECTIONS_REFUSED).increment(1);
                        continue;
                    };
                    let peer = Peer { transport: Transport::Tcp, address: peer };
                    match socket {
                        Socket::Tcp(stream, _) => self.serve(stream, peer, place, connections, graceful),
                        Socket::Unix(stream) => {
                            let peer = Peer { transport: Transport::Unix, ..peer };
                            self.serve(stream, peer, place, connections, graceful);
                        }
                    }
                },
                () = self.places.changed() => {}
                Some(_) = connections.join_next() => {}
                _ = retry.tick(), if listeners.lack_some() => listeners.bind_absent().await,
                Ok(()) = changes.changed(), if graceful.is_some() => {
                    listeners.change(&self.service.snapshot().config.listen).await;
                }
            }
        }
    }

    fn serve<S>(
        &self,
        stream: S,
        peer: Peer,
        place: Place,
        connections: &mut JoinSet<()>,
        graceful: Option<&GracefulShutdown>,
    ) where
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
        let (router, requests) = (self.router.clone(), place.requests());
        let respond = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            let (router, busy) = (router.clone(), requests.begin());
            async move {
                let answered = router.oneshot(request.map(axum::body::Body::new)).await;
                let answered =
                    answered.map(|response| response.map(|body| BusyBody::new(body, busy)));
                answered.map_err(|never: Infallible| match never {})
            }
        });
        // Without this, a client that stops reading would hold its process and its place: an answer is only
        // produced as fast as it is taken, so no other timeout is looked at meanwhile.
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(self.service.snapshot().config.http.client_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_MAX)
            .keep_alive(graceful.is_some())
            .serve_connection(TokioIo::new(Box::pin(stream)), respond);
        let ended = match graceful {
            Some(graceful) => Either::Left(graceful.watch(connection)),
            None => Either::Right(connection),
        };
        let place = Arc::new(place);
        let task = connections.spawn({
            let place = place.clone();
            async move {
                let _place = place;
                tokio::select! {
                    biased;
                    ended = ended => if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke off");
                    },
                    () = readiness::hung_up(&other_end) => {}
                }
            }
        });
        place.serve(task);
    }
}
