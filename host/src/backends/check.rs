//! Looks whether a backend can serve: its program, its login and its version.

use std::time::Duration;

use basics::file_stamp::FileStamp;
use basics::plain::is_word;
use processes::{Processes, SpawnError};
use serde_json::Value;

use super::Backend;
use super::account::{login_warning, unix_time};
use super::command_line;
use super::status::Health;
use crate::failure::unix_now;

/// How long the login check may take. The CLI was seen to take 0.2 to 1.1 seconds.
const LOGIN_CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the command line may take to say its version: it takes some 0.1 s.
const VERSION_CHECK_TIMEOUT: Duration = Duration::from_secs(10);

impl Backend {
    /// Its program could not be started.
    pub(crate) fn not_started(&self, error: &SpawnError) {
        self.find_program();
        let looked = command_line::looked_for(&self.config);
        self.status.not_started(error, &looked);
    }

    /// Asks the backend whether it is logged in, and returns whether it can serve. If this changes its state, the
    /// new state is logged; a bad one with the commands that mend it. Of a backend without a login check it only
    /// looks whether its program is there, and logs nothing.
    pub(crate) async fn check(&self, processes: &Processes) -> bool {
        self.find_program();
        let profile = self.config.launch.profile;
        let Some(login_check) = command_line::login_check(&self.base.load(), profile) else {
            return self.check_program();
        };
        let before = self.status.health();
        match processes
            .ask(&login_check, Vec::new(), LOGIN_CHECK_TIMEOUT)
            .await
        {
            Ok((answer, success)) => {
                let answer = serde_json::from_slice(&answer).unwrap_or_default();
                self.status.set(login_state(&answer, success));
                self.note_login_end(&answer);
            }
            Err(error) => self.not_started(&error),
        }
        let now = self.status.health();
        if !matches!(now, Health::Missing(_)) {
            self.check_version(processes).await;
        }
        if now != before {
            let backend = &self.config.name;
            let version = self.status.version().unwrap_or_default();
            match &now {
                Health::Ready => tracing::info!(%backend, %version, "the backend is ready"),
                bad => {
                    tracing::warn!(%backend, remedy = self.remedy().join(" && "), "{}", self.message(bad));
                }
            }
        }
        now == Health::Ready
    }

    /// Looks whether the program of a backend without a login is there.
    fn check_program(&self) -> bool {
        let program = &self.base.load().program;
        let is_there = command_line::is_executable(program);
        self.status.set(match is_there {
            true => Health::Ready,
            false => {
                let looked = command_line::looked_for(&self.config);
                Health::Missing(format!("{}{looked}", program.display()))
            }
        });
        is_there
    }

    /// Asks the command line for its version, if it is another program than the one that said it last.
    async fn check_version(&self, processes: &Processes) {
        let line = command_line::version_check(&self.base.load());
        let program = FileStamp::of(&line.program);
        if program.is_some() && self.status.is_version_of(program) {
            return;
        }
        let Ok((answer, true)) = processes
            .ask(&line, Vec::new(), VERSION_CHECK_TIMEOUT)
            .await
        else {
            return;
        };
        let text = String::from_utf8_lossy(&answer);
        let version = text.split_whitespace().next().filter(|word| is_word(word));
        self.status
            .told_version(version.map(str::to_owned), program);
    }

    /// Keeps the time at which the login ends, and logs a warning once when that time is near.
    fn note_login_end(&self, answer: &Value) {
        let end = answer["loginExpiresAt"].as_str().and_then(unix_time);
        // An older Claude Code does not print the end here, but an adapter may have reported it earlier.
        let (before, end) = self.status.told_login_end(end);
        let warning = |end: Option<u64>| {
            let notice = self.config.login_warning;
            login_warning(end?, unix_now(), notice, &self.login_line())
        };
        if let Some(warning) = warning(end)
            && (self.status.warns_first() || before != end)
        {
            tracing::warn!(backend = %self.config.name, "{warning}");
        }
    }
}

/// What `claude auth status` said. A version without that command, or one that prints
/// something else, is given the benefit of the doubt if it succeeded.
fn login_state(answer: &Value, success: bool) -> Health {
    match answer["loggedIn"].as_bool() {
        Some(true) => Health::Ready,
        Some(false) => Health::LoggedOut,
        None if success => Health::Ready,
        None => Health::Failing("`auth status` failed and said nothing of a login".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_login_check_is_read_as_both_versions_print_it() {
        assert_eq!(
            login_state(&json!({"loggedIn": true, "authMethod": "x"}), true),
            Health::Ready
        );
        assert_eq!(
            login_state(&json!({"loginExpiresAt": null, "loggedIn": false}), false),
            Health::LoggedOut
        );
        assert!(matches!(
            login_state(&Value::Null, false),
            Health::Failing(_)
        ));
    }
}
