//! Who may call.
//!
//! Without keys, every program that can reach the service may call, but no web page may. Otherwise a page in a
//! browser could spend the subscription, by a plain request or by DNS rebinding: its own host name is made to
//! resolve to this machine.

use std::net::IpAddr;
#[cfg(test)]
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::{Peer, Transport};
use crate::config::{Access, Config, Key, KeyDigest, Listen};
use crate::dispatch::Calling;
use crate::failure::{Failure, Kind};

/// Names of this machine in a `Host` header; the last is what containers call it.
const OWN_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "[::1]", "host.docker.internal"];

/// The queue of a caller without a key: a digest of its address and its `User-Agent`, used for nothing else. So
/// a script that sends a hundred requests at once does not delay a chat client on the same machine.
fn somebody(peer: Option<Peer>, headers: &HeaderMap) -> KeyDigest {
    let address = peer.and_then(|peer| peer.address);
    let agent = headers.get(header::USER_AGENT);
    let mut digest = Sha256::new();
    digest.update(format!("{address:?} "));
    digest.update(agent.map(|agent| agent.as_bytes()).unwrap_or_default());
    digest.finalize().into()
}

/// A part of the service with a policy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// For everybody: health checks of routers and containers send no key.
    Public,
    /// The models: one of the keys, if there are any. This service's own pages may call it, and no others but those
    /// that are listed.
    Inference,
    /// The metrics and `/admin`: a key with `admin = true`, if there are keys. This service's own pages may
    /// call it.
    Admin,
}

/// Lets a request into an area, and notes in its extensions who calls.
///
/// `key_headers` may carry a key, too, beside `Authorization`.
///
/// # Errors
///
/// Says why the caller may not call.
pub(super) fn admit(
    config: &Config,
    area: Area,
    key_headers: &[String],
    request: &mut Request,
) -> Result<(), Failure> {
    let peer = request.extensions().get::<Peer>().copied();
    let transport = peer.map_or(Transport::Tcp, |peer| peer.transport);
    let headers = request.headers();
    let others = key_headers
        .iter()
        .filter_map(|name| headers.get(name)?.to_str().ok());
    let mut sent = bearer(headers).into_iter().chain(others);
    let sent = sent.find_map(|key| config.access.accepted(key));
    let key = judge(
        &config.access,
        &config.listen,
        transport,
        area,
        headers,
        sent,
    )?;
    let caller = key.map(|key| key.digest);
    let queue = caller.unwrap_or_else(|| somebody(peer, headers));
    let limits = key.map(|key| key.limits.clone()).unwrap_or_default();
    let key = key.and_then(|key| key.name.clone());
    let wants_fresh = wants_fresh(headers);
    request.extensions_mut().insert(Calling {
        key,
        limits,
        caller,
        queue,
        wants_fresh,
        configs: None,
    });
    Ok(())
}

/// Whether a client wants an answer of its own, which is not kept.
fn wants_fresh(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|wish| {
            ["no-store", "no-cache"]
                .iter()
                .any(|word| wish.eq_ignore_ascii_case(word))
        })
}

/// The key that a caller sent, if it is one of the service's, or why the caller may not call.
fn judge<'a>(
    access: &'a Access,
    listen: &[Listen],
    transport: Transport,
    area: Area,
    headers: &HeaderMap,
    key: Option<&'a Key>,
) -> Result<Option<&'a Key>, Failure> {
    if transport == Transport::Unix {
        return Ok(key);
    }
    match key {
        Some(key) if area != Area::Admin || key.admin => return Ok(Some(key)),
        Some(_) => {
            let message =
                "this key opens no admin route: send one whose `[keys.NAME]` has `admin = true`";
            return Err(Failure::new(Kind::AccessDenied, message));
        }
        None => {}
    }
    if access.keys.is_empty() {
        check_host(access, listen, headers)?;
        check_page(headers)?;
        return Ok(None);
    }
    if area == Area::Public {
        check_host_of_health(access, listen, headers)?;
        check_page(headers)?;
        return Ok(None);
    }
    Err(wrong_key(area, headers))
}

fn wrong_key(area: Area, headers: &HeaderMap) -> Failure {
    let what = match headers.get(header::AUTHORIZATION) {
        None => "no key came",
        Some(_) => "the key that came is none of this service's keys, or was not sent as `Bearer`",
    };
    let which = match area {
        Area::Admin => "a key whose `[keys.NAME]` has `admin = true`",
        Area::Public | Area::Inference => "one of its keys (most clients call it the API key)",
    };
    let message = format!("{what}: send `Authorization: Bearer KEY` with {which}");
    Failure::new(Kind::WrongKey, message)
}

/// Checks `Host` for a health check. Addresses and names without a dot, such as a container's, are accepted
/// though nobody listed them: DNS rebinding needs a name with a dot. Other names are checked as usual.
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

/// Checks that the `Host` header names this machine. After DNS rebinding it names the page's own site.
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
    let name = basics::plain::line(name, 100);
    let message = format!(
        "`{name}` is not a name of this machine: call it localhost, or list the name in `allowed_hosts`"
    );
    Err(Failure::new(Kind::AccessDenied, message))
}

/// Refuses web pages but the service's own (`/console/`). Browsers mark their requests with `Origin` and `Sec-Fetch-Site`; other programs send
/// neither.
fn check_page(headers: &HeaderMap) -> Result<(), Failure> {
    let is_own_page = || {
        let origin = text(headers, header::ORIGIN).unwrap_or_default();
        let page = origin.split_once("://").map(|(_, page)| page);
        page.is_some() && page == text(headers, header::HOST)
    };
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    let may_call = matches!(site, None | Some(b"none" | b"same-origin"));
    if may_call && (!headers.contains_key(header::ORIGIN) || is_own_page()) {
        return Ok(());
    }
    let message = "web pages may not call this service";
    Err(Failure::new(Kind::AccessDenied, message))
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

    type Headers<'a> = &'a [(&'static str, &'static str)];

    fn judged_in(
        area: Area,
        access: &Access,
        transport: Transport,
        list: Headers<'_>,
    ) -> Result<Option<KeyDigest>, Kind> {
        let headers = list.iter().map(|(k, v)| {
            (
                header::HeaderName::from_static(k),
                header::HeaderValue::from_static(v),
            )
        });
        let listen = [Listen::Tcp("192.168.1.5:8013".parse().unwrap())];
        let headers: HeaderMap = headers.collect();
        let sent = bearer(&headers).and_then(|key| access.accepted(key));
        let judged = judge(access, &listen, transport, area, &headers, sent);
        let digest = judged.map(|key| key.map(|key| key.digest));
        digest.map_err(|failure| failure.kind)
    }

    fn judged(
        access: &Access,
        transport: Transport,
        list: Headers<'_>,
    ) -> Result<Option<KeyDigest>, Kind> {
        judged_in(Area::Inference, access, transport, list)
    }

    fn key(text: &str, admin: bool) -> Key {
        Key {
            name: None,
            digest: Sha256::digest(text).into(),
            admin,
            limits: Arc::default(),
        }
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
        let access = Access {
            keys: vec![key("k1", false)],
            ..Access::default()
        };
        let with = |key| {
            let headers = [("host", "any.example"), ("authorization", key)];
            judged(&access, Transport::Tcp, &headers)
        };
        assert_eq!(with("Bearer k1"), Ok(Some(access.keys[0].digest)));
        assert_eq!(with("bearer k1"), Ok(Some(access.keys[0].digest)));
        assert_eq!(with("Bearer k2"), Err(Kind::WrongKey));
        let local = [("host", "localhost"), ("authorization", "Bearer k2")];
        let local = judged(&access, Transport::Tcp, &local);
        assert_eq!(local, Err(Kind::WrongKey));
    }

    #[test]
    fn a_clients_key_opens_no_admin_route() {
        let access = Access {
            keys: vec![key("client", false), key("operator", true)],
            ..Access::default()
        };
        let judged = |area, transport, key: &'static str| {
            let headers = [("host", "localhost"), ("authorization", key)];
            judged_in(area, &access, transport, &headers).map(|digest| digest.is_some())
        };
        let (tcp, unix) = (Transport::Tcp, Transport::Unix);
        let (client, operator) = ("Bearer client", "Bearer operator");
        assert_eq!(judged(Area::Admin, tcp, client), Err(Kind::AccessDenied));
        assert_eq!(judged(Area::Admin, tcp, "Bearer x"), Err(Kind::WrongKey));
        assert_eq!(judged(Area::Admin, tcp, operator), Ok(true));
        assert_eq!(judged(Area::Inference, tcp, operator), Ok(true));
        assert_eq!(judged(Area::Public, tcp, "Bearer x"), Ok(false));
        // The socket's file says who may come.
        assert_eq!(judged(Area::Admin, unix, client), Ok(true));
        assert_eq!(judged(Area::Admin, unix, "Bearer x"), Ok(false));
    }

    #[test]
    fn pages_of_this_service_may_call_it_and_no_others() {
        let post = |origin| {
            let site = ("sec-fetch-site", "same-origin");
            vec![("host", "localhost:8013"), ("origin", origin), site]
        };
        let own = post("http://localhost:8013");
        let judged = |area, headers: Headers<'_>| {
            judged_in(area, &Access::default(), Transport::Tcp, headers)
        };
        assert_eq!(judged(Area::Admin, &own), Ok(None));
        assert_eq!(judged(Area::Inference, &own), Ok(None));
        for other in [
            "http://localhost:8014",
            "http://evil.example",
            "null",
            "localhost:8013",
            "",
        ] {
            let judged = judged(Area::Admin, &post(other));
            assert_eq!(judged, Err(Kind::AccessDenied), "{other}");
        }
        // DNS rebinding: the page's own host name resolves to this machine.
        let rebound = [
            ("host", "evil.example:8013"),
            ("origin", "http://evil.example:8013"),
        ];
        assert_eq!(judged(Area::Admin, &rebound), Err(Kind::AccessDenied));
    }
}
