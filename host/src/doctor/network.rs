//! The addresses: who listens there, and whether containers reach them.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::net::{TcpStream, UnixStream};

use super::Finding;
use crate::config::{Config, Listen};

/// How long an address may take to answer. A health check waits up to five seconds for the first look at a backend.
const PATIENCE: Duration = Duration::from_secs(7);

/// How the names of bridges of container engines begin.
const BRIDGES: [&str; 4] = ["docker", "br-", "podman", "cni"];

/// What a service says of itself.
#[derive(Deserialize)]
struct Health {
    status: String,
    version: String,
}

/// A network that this machine reaches through an interface.
#[derive(Debug, PartialEq, Eq)]
struct Network {
    interface: String,
    address: u32,
    mask: u32,
}

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let can_listen = config.listen.iter().any(|listen| match listen {
        Listen::Tcp(address) => !is_absent(*address),
        Listen::Unix(_) => true,
    });
    for listen in &config.listen {
        let check = format!("address {listen}");
        findings.push(match listen {
            Listen::Tcp(address) if is_absent(*address) => absent(check, address.ip(), can_listen),
            Listen::Tcp(address) => tcp(check, *address).await,
            Listen::Unix(path) => unix(check, path).await,
        });
    }
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    findings.extend(bridges(&networks(&routes), &config.listen));
    findings
}

/// Whether no interface of this machine has this address. Who connects to it would wait for another machine.
fn is_absent(address: SocketAddr) -> bool {
    TcpListener::bind((address.ip(), 0))
        .is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

/// An address that no interface has, beside others at which the service can listen, or none.
fn absent(check: String, address: IpAddr, can_listen: bool) -> Finding {
    let what = format!("no interface of this machine has {address} now");
    match can_listen {
        false => Finding::wrong(check, format!("{what}, so the service cannot start")),
        true => Finding::warning(
            check,
            format!("{what}: the service listens there once one does"),
        ),
    }
    .mended_by("ip -br addr")
}

async fn tcp(check: String, address: SocketAddr) -> Finding {
    let mut reached = address;
    if address.ip().is_unspecified() {
        reached.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    if TcpStream::connect(reached).await.is_err() {
        return Finding::ok(check, "free: no service runs here");
    }
    match health(reached).await {
        Some(Health { status, version }) if version == env!("CARGO_PKG_VERSION") => Finding::ok(
            check,
            format!("claude-harness {version} runs here: {status}"),
        ),
        Some(Health { version, .. }) => {
            let own = env!("CARGO_PKG_VERSION");
            Finding::warning(
                check,
                format!("claude-harness {version} runs here, and this program is {own}"),
            )
            .mended_by("systemctl --user restart claude-harness")
        }
        None => {
            let port = address.port();
            let what = "another program listens here, so the service cannot start";
            Finding::wrong(check, what).mended_by(format!("ss -ltnp 'sport = :{port}'"))
        }
    }
}

async fn health(address: SocketAddr) -> Option<Health> {
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy();
    let request = client.build().ok()?.get(format!("http://{address}/health"));
    request.send().await.ok()?.json().await.ok()
}

async fn unix(check: String, path: &Path) -> Finding {
    match UnixStream::connect(path).await {
        Ok(_) => Finding::ok(check, "a program listens here"),
        Err(_) => Finding::ok(check, "free: no service runs here"),
    }
}

/// The networks in `/proc/net/route`, whose columns are the interface, the destination and, eighth, the mask, in the
/// byte order of the machine.
fn networks(routes: &str) -> Vec<Network> {
    let lines = routes.lines().skip(1);
    let network = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        Some(Network {
            interface: (*fields.first()?).to_owned(),
            address: number(1)?,
            mask: number(7)?,
        })
    };
    lines.filter_map(network).collect()
}

/// Whether a router in a container reaches the service through the bridge of its engine.
fn bridges(networks: &[Network], listen: &[Listen]) -> Vec<Finding> {
    let is_bridge = |network: &&Network| {
        let mut begins = BRIDGES.iter();
        network.mask != 0 && begins.any(|begin| network.interface.starts_with(begin))
    };
    let bridges = networks.iter().filter(is_bridge);
    let found = bridges.map(|network| {
        let check = format!("containers on {}", network.interface);
        let reaches = |listen: &Listen| match listen {
            Listen::Tcp(address) => match address.ip() {
                IpAddr::V4(ip) => ip.is_unspecified() || network.has(ip),
                IpAddr::V6(ip) => ip.is_unspecified(),
            },
            Listen::Unix(_) => false,
        };
        match listen.iter().any(reaches) {
            true => Finding::ok(check, "reach the service"),
            false => Finding::warning(
                check,
                "do not reach the service: it listens on no address of theirs. Add the interface's address to `listen`, and a key: see docs/how-to/lan-and-keys.md",
            )
            .mended_by(format!("ip -4 addr show {}", network.interface)),
        }
    });
    found.collect()
}

impl Network {
    fn has(&self, ip: Ipv4Addr) -> bool {
        u32::from_ne_bytes(ip.octets()) & self.mask == self.address
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";

    fn told(listen: &[&str]) -> Vec<State> {
        let listen: Vec<Listen> = listen
            .iter()
            .map(|address| Listen::Tcp(address.parse().unwrap()))
            .collect();
        let found = bridges(&networks(ROUTES), &listen);
        found.iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn an_address_that_no_interface_has_is_not_taken_for_a_busy_one() {
        assert!(!is_absent("127.0.0.1:8013".parse().unwrap()));
        // For documentation: no machine has it.
        let nowhere: SocketAddr = "203.0.113.9:8013".parse().unwrap();
        assert!(is_absent(nowhere));
        let state = |can_listen| absent("address".into(), nowhere.ip(), can_listen).state;
        assert_eq!([state(false), state(true)], [State::Wrong, State::Warning]);
    }

    #[test]
    fn containers_reach_what_listens_on_an_address_of_their_bridge() {
        assert_eq!(told(&["127.0.0.1:8013"]), [State::Warning]);
        assert_eq!(told(&["127.0.0.1:8013", "172.17.0.1:8013"]), [State::Ok]);
        assert_eq!(told(&["192.168.2.5:8013"]), [State::Warning]);
        assert_eq!(told(&["0.0.0.0:8013"]), [State::Ok]);
        assert_eq!(told(&["[::]:8013"]), [State::Ok]);
    }
}
