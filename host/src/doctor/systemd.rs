//! The service's units, and whether a user's goes on without a session.

use super::{Finding, said};

/// The units for a user's systemd that `deploy/manage.sh` and the Debian package install.
const SERVICE: &str = "claude-harness.service";
const SOCKET: &str = "claude-harness.socket";

const CHECK: &str = "systemd";

pub(super) async fn look() -> Vec<Finding> {
    let name = said("id", &["-un"]).await.unwrap_or_default();
    let machines = Unit::ask(Owner::Machine, &format!("claude-harness@{name}.service")).await;
    let users = match Unit::ask(Owner::User, SERVICE).await {
        Some(service) => Some((service, Unit::ask(Owner::User, SOCKET).await)),
        None => None,
    };
    let users_set_up = users
        .as_ref()
        .filter(|(service, socket)| is_set_up(service, socket.as_ref()));
    let machines_wanted = machines.as_ref().filter(|unit| unit.is_wanted());
    match (machines_wanted, users_set_up) {
        (Some(unit), Some(_)) => vec![both(unit), of_machine(unit)],
        (Some(unit), None) => vec![of_machine(unit)],
        (None, Some((service, socket))) => {
            vec![of_user(service, socket.as_ref()), linger(&name).await]
        }
        (None, None) => vec![none(machines.as_ref(), users.is_some())],
    }
}

/// Whose systemd has a unit.
#[derive(Clone, Copy)]
enum Owner {
    Machine,
    User,
}

/// A unit, as systemd tells it.
struct Unit {
    name: String,
    is_installed: bool,
    /// It starts with the machine, or with the user's first session.
    is_enabled: bool,
    /// `active`, `inactive`, `failed` and others.
    active: String,
    restarts: String,
}

impl Unit {
    /// None if this systemd cannot be reached.
    async fn ask(owner: Owner, name: &str) -> Option<Self> {
        let whose = match owner {
            Owner::Machine => "--system",
            Owner::User => "--user",
        };
        let asked = "LoadState,UnitFileState,ActiveState,NRestarts";
        let told = said("systemctl", &[whose, "show", name, "-p", asked]).await?;
        let value = |key: &str| {
            let mut lines = told.lines().filter_map(|line| line.split_once('='));
            lines.find(|(of, _)| *of == key).map(|(_, value)| value)
        };
        Some(Unit {
            name: name.to_owned(),
            is_installed: value("LoadState") == Some("loaded"),
            is_enabled: value("UnitFileState") == Some("enabled"),
            active: value("ActiveState").unwrap_or_default().to_owned(),
            restarts: value("NRestarts").unwrap_or_default().to_owned(),
        })
    }

    /// Whether somebody started it, or wants it to start. One that has failed may have been given up.
    fn is_wanted(&self) -> bool {
        let is_off = matches!(&*self.active, "inactive" | "failed");
        self.is_installed && (self.is_enabled || !is_off)
    }

    fn has_failed(&self) -> bool {
        self.active == "failed"
    }
}

/// Whether a user uses the units, which the Debian package installs for everybody.
fn is_set_up(service: &Unit, socket: Option<&Unit>) -> bool {
    let mut units = [Some(service), socket].into_iter().flatten();
    service.is_installed && units.any(|unit| unit.is_wanted() || unit.has_failed())
}

/// Nobody wants a unit.
fn none(machines: Option<&Unit>, users_is_reached: bool) -> Finding {
    match machines {
        Some(unit) if unit.has_failed() => of_machine(unit),
        _ if users_is_reached => Finding::ok(CHECK, "no service is set up for this user"),
        _ => Finding::unknown(CHECK, "your user's systemd cannot be reached from here"),
    }
}

/// Both want the same address.
fn both(machines: &Unit) -> Finding {
    let what = format!(
        "{} and {SERVICE} of this user are both set up: use one",
        machines.name
    );
    Finding::warning(CHECK, what)
        .mended_by(format!("systemctl --user disable --now {SOCKET} {SERVICE}"))
}

/// A unit of the machine's systemd that runs as this user. It needs no session.
fn of_machine(unit: &Unit) -> Finding {
    let name = &unit.name;
    match &*unit.active {
        "active" if !unit.is_enabled => starts_not_by_itself(unit, "sudo systemctl", name),
        "active" => runs(unit),
        "failed" => has_failed(unit, "sudo journalctl", "sudo systemctl"),
        other => Finding::warning(CHECK, format!("{name} is {other}"))
            .mended_by(format!("sudo systemctl start {name}")),
    }
}

/// A unit of the user's systemd. Its socket starts it for the first client.
fn of_user(unit: &Unit, socket: Option<&Unit>) -> Finding {
    let name = &unit.name;
    let listens = socket.is_some_and(|socket| socket.active == "active");
    let is_enabled = unit.is_enabled || socket.is_some_and(|socket| socket.is_enabled);
    let mut units = [Some(unit), socket].into_iter().flatten();
    if let Some(failed) = units.find(|unit| unit.has_failed()) {
        return has_failed(failed, "journalctl --user", "systemctl --user");
    }
    match &*unit.active {
        "active" | "inactive" if (unit.active == "active" || listens) && !is_enabled => {
            starts_not_by_itself(unit, "systemctl --user", SOCKET)
        }
        "active" => runs(unit),
        "inactive" if listens => {
            Finding::ok(CHECK, format!("{name} starts with the first request"))
        }
        other => Finding::warning(CHECK, format!("{name} is {other}"))
            .mended_by(format!("systemctl --user start {SOCKET} {name}")),
    }
}

fn runs(unit: &Unit) -> Finding {
    let Unit { name, restarts, .. } = unit;
    Finding::ok(
        CHECK,
        format!("{name} is active, restarted {restarts} times"),
    )
}

fn starts_not_by_itself(unit: &Unit, systemctl: &str, enabled: &str) -> Finding {
    let what = format!("{} does not start when the machine does", unit.name);
    Finding::warning(CHECK, what).mended_by(format!("{systemctl} enable {enabled}"))
}

fn has_failed(unit: &Unit, journalctl: &str, systemctl: &str) -> Finding {
    let name = &unit.name;
    Finding::wrong(CHECK, format!("{name} has failed"))
        .mended_by(format!("{journalctl} -u {name} -n 50"))
        .mended_by(format!("{systemctl} restart {name}"))
}

/// Whether the user's services go on after the last session ends.
async fn linger(name: &str) -> Finding {
    let check = "linger";
    let told = said("loginctl", &["show-user", name, "-p", "Linger", "--value"]).await;
    match told {
        Some(told) if told == "yes" => {
            Finding::ok(check, "the service goes on when you have logged out")
        }
        Some(_) => Finding::warning(check, "the service ends when you log out")
            .mended_by(format!("sudo loginctl enable-linger {name}")),
        None => Finding::unknown(
            check,
            "this machine does not tell whether services go on when you have logged out",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn unit(active: &str, is_enabled: bool) -> Unit {
        Unit {
            name: "claude-harness.service".into(),
            is_installed: true,
            is_enabled,
            active: active.into(),
            restarts: "0".into(),
        }
    }

    #[track_caller]
    fn told(found: &Finding, state: State, what: &str, remedy: &str) {
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.found.contains(what), "{found:?}");
        assert_eq!(found.remedy.last().map_or("", String::as_str), remedy);
    }

    #[test]
    fn a_users_unit_runs_or_is_started_by_its_socket() {
        let socket = Unit {
            name: SOCKET.into(),
            ..unit("active", true)
        };
        let off = Unit {
            active: "inactive".into(),
            ..unit("active", false)
        };
        let runs = of_user(&unit("active", true), Some(&off));
        told(&runs, State::Ok, "is active, restarted 0 times", "");
        let waits = of_user(&unit("inactive", false), Some(&socket));
        told(&waits, State::Ok, "starts with the first request", "");
        let start = "systemctl --user start claude-harness.socket claude-harness.service";
        let stopped = of_user(&unit("inactive", true), Some(&off));
        told(&stopped, State::Warning, "is inactive", start);
        let enable = "systemctl --user enable claude-harness.socket";
        let by_hand = of_user(&unit("active", false), Some(&off));
        told(&by_hand, State::Warning, "does not start when", enable);
        let restart = "systemctl --user restart claude-harness.service";
        let failed = of_user(&unit("failed", true), Some(&socket));
        told(&failed, State::Wrong, "has failed", restart);
        let restart = "systemctl --user restart claude-harness.socket";
        let busy = Unit {
            active: "failed".into(),
            ..socket
        };
        let failed = of_user(&unit("inactive", true), Some(&busy));
        told(
            &failed,
            State::Wrong,
            "claude-harness.socket has failed",
            restart,
        );
    }

    #[test]
    fn units_that_are_only_installed_are_not_set_up() {
        let off = unit("inactive", false);
        assert!(!is_set_up(&off, None) && !is_set_up(&off, Some(&off)));
        assert!(is_set_up(&off, Some(&unit("active", false))));
        assert!(is_set_up(&off, Some(&unit("inactive", true))));
        assert!(is_set_up(&unit("failed", false), None));
    }

    #[test]
    fn a_unit_of_the_machine_counts_when_somebody_wants_it() {
        assert!(!unit("inactive", false).is_wanted());
        let given_up = unit("failed", false);
        assert!(!given_up.is_wanted());
        assert_eq!(none(Some(&given_up), true).state, State::Wrong);
        assert_eq!(none(Some(&unit("inactive", false)), true).state, State::Ok);
        assert!(unit("active", false).is_wanted());
        let stopped = unit("inactive", true);
        assert!(stopped.is_wanted());
        let start = "sudo systemctl start claude-harness.service";
        told(&of_machine(&stopped), State::Warning, "is inactive", start);
        let enable = "sudo systemctl enable claude-harness.service";
        let by_hand = of_machine(&unit("active", false));
        told(&by_hand, State::Warning, "does not start when", enable);
        told(
            &of_machine(&unit("active", true)),
            State::Ok,
            "is active",
            "",
        );
    }
}
