//! Who may call.
//!
//! Without keys, everybody on this machine may, but no web page: a page that is open in a
//! browser could otherwise spend the subscription, by a plain request or after its own name was
//! made to resolve to this machine (DNS rebinding).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::{Peer, Transport};
use crate::admission::Caller;
use crate::config::{Access, KeyDigest, Listen};
use crate::dispatch::Calling;
use crate::failure::{Failure, Kind};
use crate::service::Service;

/// Names of this machine in a `Host` header; the last is what containers call it.
const OWN_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "[::1]", "host.docker.internal"];

/// Tells callers without a key apart, for their turns in a queue and for nothing else: by where they
/// come from, and by what they call themselves. A script that asks a hundred times at once then does not
/// hold up the chat client beside it.
fn somebody(peer: Option<Peer>, headers: &HeaderMap) -> KeyDigest {
    let address = peer.and_then(|peer| peer.address);
    let agent = headers.get(header::USER_AGENT);
    let mut digest = Sha256::new();
    digest.update(format!("{address:?} "));
    digest.update(agent.map(|agent| agent.as_bytes()).unwrap_or_default());
    digest.finalize().into()
}

/// Lets a request through, or answers it.
pub(super) async fn check(
    State(service): State<Arc<Service>>,
    mut request: Request,
    next: Next,
) -> Response {
    let peer = request.extensions().get::<Peer>().copied();
    let transport = peer.map_or(Transport::Tcp, |peer| peer.transport);
    let open = matches!(request.uri().path(), "/" | "/health");
    let snapshot = service.snapshot();
    let (access, listen) = (&snapshot.config.access, &snapshot.config.listen);
    match judge(access, listen, transport, open, request.headers()) {
        Ok(caller) => {
            let queue = caller.unwrap_or_else(|| somebody(peer, request.headers()));
            request.extensions_mut().insert(Calling { caller, queue });
            next.run(request).await
        }
        Err(failure) => failure.into_response(),
    }
}

/// `open` requests need no key: health checks of routers and containers send none.
fn judge(
    access: &Access,
    listen: &[Listen],
    transport: Transport,
    open: bool,
    headers: &HeaderMap,
) -> Result<Caller, Failure> {
    if let Some(key) = bearer(headers).and_then(|key| access.accepted(key)) {
        return Ok(Some(key));
    }
    if transport == Transport::Unix {
        return Ok(None);
    }
    if access.keys.is_empty() {
        check_host(access, listen, headers)?;
        check_page(headers)?;
        return Ok(None);
    }
    if open {
        check_host_of_health(access, listen, headers)?;
        check_page(headers)?;
        return Ok(None);
    }
    let what = match headers.get(header::AUTHORIZATION) {
        None => "no key came",
        Some(_) => "the key that came is none of this service's, or not sent as `Bearer`",
    };
    let message = format!(
        "{what}: send `Authorization: Bearer KEY` with one of its `api_keys` (in most clients: the API key)"
    );
    Err(Failure::new(Kind::WrongKey, message))
}

/// Health checks call this machine by names that nobody listed: its address, or a container's name. A web
/// page's name of its own always has a dot, and is no address.
fn check_host_of_health(
    access: &Access,
    listen: &[Listen],
    headers: &HeaderMap,
) -> Result<(), Failure> {
    let name = text(headers, header::HOST)
        .map(without_port)
        .unwrap_or_default();
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    match is_address || !name.contains('.') {
        true => Ok(()),
        false => check_host(access, listen, headers),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = text(headers, header::AUTHORIZATION)?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// The name that the caller believes to talk to must be one of this machine.
fn check_host(access: &Access, listen: &[Listen], headers: &HeaderMap) -> Result<(), Failure> {
    let Some(host) = text(headers, header::HOST) else {
        return Err(Failure::new(
            Kind::AccessDenied,
            "the `Host` header is missing",
        ));
    };
    let name = without_port(host);
    let own = OWN_NAMES
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name));
    let named = access
        .hosts
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name));
    let listened = listen
        .iter()
        .any(|l| matches!(l, Listen::Tcp(tcp) if without_port(&tcp.to_string()) == name));
    if own || named || listened {
        return Ok(());
    }
    let name = crate::plain::line(name, 100);
    let message = format!(
        "`{name}` is not a name of this machine: call it localhost, or list the name in `allowed_hosts`"
    );
    Err(Failure::new(Kind::AccessDenied, message))
}

/// Browsers say on whose behalf they call; other programs do not.
fn check_page(headers: &HeaderMap) -> Result<(), Failure> {
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    if headers.contains_key(header::ORIGIN)
        || !matches!(site, None | Some(b"none" | b"same-origin"))
    {
        return Err(Failure::new(
            Kind::AccessDenied,
            "web pages may not call this service",
        ));
    }
    Ok(())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => {
            name
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        access: &Access,
        transport: Transport,
        list: &[(&'static str, &'static str)],
    ) -> Result<Caller, Kind> {
        let headers = list.iter().map(|(k, v)| {
            (
                header::HeaderName::from_static(k),
                header::HeaderValue::from_static(v),
            )
        });
        let listen = [Listen::Tcp("192.168.1.5:8013".parse().unwrap())];
        judge(access, &listen, transport, false, &headers.collect()).map_err(|failure| failure.kind)
    }

    #[test]
    fn programs_of_this_machine_may_call() {
        for host in [
            "localhost:8013",
            "127.0.0.1",
            "[::1]:8013",
            "host.docker.internal:8013",
            "192.168.1.5:8013",
        ] {
            assert_eq!(
                judged(&Access::default(), Transport::Tcp, &[("host", host)]),
                Ok(None),
                "{host}"
            );
        }
        assert_eq!(
            judged(&Access::default(), Transport::Unix, &[("host", "whatever")]),
            Ok(None)
        );
    }

    #[test]
    fn web_pages_may_not() {
        let local = ("host", "localhost:8013");
        for page in [
            vec![("host", "evil.example:8013")],
            vec![],
            vec![("host", "[::1].evil.example")],
            vec![local, ("origin", "https://evil.example")],
            vec![local, ("origin", "null")],
            vec![local, ("sec-fetch-site", "cross-site")],
            vec![local, ("sec-fetch-site", "same-site")],
        ] {
            assert_eq!(
                judged(&Access::default(), Transport::Tcp, &page),
                Err(Kind::AccessDenied),
                "{page:?}"
            );
        }
    }

    #[test]
    fn a_key_opens_and_a_wrong_one_does_not() {
        use sha2::{Digest, Sha256};
        let access = Access {
            keys: vec![Sha256::digest("k1").into()],
            ..Access::default()
        };
        let with = |key| {
            judged(
                &access,
                Transport::Tcp,
                &[("host", "any.example"), ("authorization", key)],
            )
        };
        assert_eq!(with("Bearer k1"), Ok(Some(access.keys[0])));
        assert_eq!(with("bearer k1"), Ok(Some(access.keys[0])));
        assert_eq!(with("Bearer k2"), Err(Kind::WrongKey));
        let local = judged(
            &access,
            Transport::Tcp,
            &[("host", "localhost"), ("authorization", "Bearer k2")],
        );
        assert_eq!(local, Err(Kind::WrongKey));
    }
}
