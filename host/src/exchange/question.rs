//! A question to a command line about itself. It costs no tokens.

use std::time::Duration;

use basics::blocking;
use guests::adapter::AdapterSession;
use guests::completion::Effect;
use guests::report::Report;
use guests::{Effects, GuestError};
use processes::{Output, Process};
use tokio::time::{Instant, timeout};

use super::failures::{api_failure, guest_failure};
use crate::backends::Backend;
use crate::failure::{Failure, Kind};

/// How long a command line may take to begin its answer. It was seen to take 0.6 to 2 s, when it had to start first.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may then be silent. Requests that it does not answer by then are ones that it does not know.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long it may take in all.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(25);

/// The id of no message. An adapter may ask to take it back, to see whether anything can be taken back.
const NO_MESSAGE: &str = "00000000-0000-0000-0000-000000000000";

/// What came of a question.
pub(crate) struct Told {
    /// What the adapter made of the answers, in their order.
    pub(crate) reports: Vec<Report>,
    /// Whether everything was answered. If not, answers may still come.
    pub(crate) is_complete: bool,
}

/// Asks what the session was opened for.
///
/// # Errors
///
/// Fails if the process ends or refuses, or if the guest breaks a bound or a rule.
pub(crate) async fn ask(
    backend: &Backend,
    session: &mut AdapterSession,
    process: &mut Process,
) -> Result<Told, Failure> {
    let mut told = Told {
        reports: Vec::new(),
        is_complete: false,
    };
    let mut effects = session.start(0);
    let mut patience = START_TIMEOUT;
    let deadline = Instant::now() + WHOLE_TIMEOUT;
    loop {
        let done = carry_out(backend, process, effects, &mut told.reports);
        let broken = |error| guest_failure(session.guest(), &error);
        match done.map_err(broken)? {
            Progress::Waits => {}
            Progress::Finished => {
                told.is_complete = true;
                return Ok(told);
            }
            Progress::Failed(failure) => return Err(failure),
        }
        // One that never pauses does not get more time.
        let left = deadline.saturating_duration_since(Instant::now());
        let output = match left.is_zero() {
            true => None,
            false => timeout(patience.min(left), process.next()).await.ok(),
        };
        let Some(output) = output else {
            return match told.reports.is_empty() {
                true => Err(Failure::new(Kind::Timeout, "it did not answer")),
                false => Ok(told),
            };
        };
        patience = SILENCE_TIMEOUT;
        effects = match output {
            Output::Piece(line) => session.output(&[&String::from_utf8_lossy(&line)], 0),
            Output::TooLong => {
                let message = "it printed a line that is too long (`max_line`)";
                return Err(Failure::new(Kind::Backend, message));
            }
            // What it has told is worth something all the same.
            Output::Exited(_) if !told.reports.is_empty() => return Ok(told),
            Output::Exited(status) => session.exit(status, &process.stderr_tail()),
        };
    }
}

/// How far a question has come.
enum Progress {
    Waits,
    Finished,
    Failed(Failure),
}

fn carry_out(
    backend: &Backend,
    process: &mut Process,
    effects: Result<Effects, GuestError>,
    reports: &mut Vec<Report>,
) -> Result<Progress, GuestError> {
    for effect in effects? {
        match effect? {
            Effect::Write(text) => {
                let takes_back = [NO_MESSAGE.to_owned()];
                let line = blocking::run_on(text.len(), || backend.seal(text, &takes_back));
                let line = line.map_err(|refusal| GuestError::Write(refusal.to_string()))?;
                process.write(line);
            }
            Effect::Report(report) => reports.push(report),
            Effect::Finish(_) => return Ok(Progress::Finished),
            Effect::Fail(error) => return Ok(Progress::Failed(api_failure(error))),
            Effect::CloseInput | Effect::Emit(_) | Effect::Counted(_) | Effect::Unfit(_) => {
                let what = "it does what only a request may do, in a session that only asks";
                return Err(GuestError::Contract(what.into()));
            }
        }
    }
    Ok(Progress::Waits)
}
