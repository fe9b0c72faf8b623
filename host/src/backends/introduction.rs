//! What a command line says of itself when it is asked.

use guests::report::{Login, Report};
use serde::Serialize;

/// The most words that are kept of what a version does not have.
const LACKS_MAX: usize = 16;

/// What a command line said of itself. Kept as data: it shows how a version differs from those that were tested.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Introduction {
    /// When it was asked, in seconds since the Unix epoch.
    pub(crate) asked_at: u64,
    /// Its version.
    pub(crate) version: Option<String>,
    /// How its processes are logged in.
    pub(crate) login: Option<Login>,
    /// What requests rely on, and it does not have.
    pub(crate) lacks: Vec<String>,
}

impl Introduction {
    /// The part of the reports that is about the command line itself. They come from a guest that has seen no request,
    /// but quote a program, so they are kept short and plain.
    pub(crate) fn of(reports: &[Report], asked_at: u64) -> Self {
        let plain = |text: &str| basics::plain::line(text, 60);
        let mut told = Introduction {
            asked_at,
            ..Introduction::default()
        };
        for report in reports {
            match report {
                Report::Version(version) => told.version = Some(plain(version)),
                Report::Login(login) => {
                    told.login = Some(Login {
                        is_logged_in: login.is_logged_in,
                        source: login.source.as_deref().map(plain),
                    });
                }
                Report::Lacks(what) if told.lacks.len() < LACKS_MAX => told.lacks.push(plain(what)),
                _ => {}
            }
        }
        told
    }

    /// Whether its processes have nothing to answer with.
    pub(crate) fn is_logged_out(&self) -> bool {
        self.login.as_ref().is_some_and(|login| !login.is_logged_in)
    }

    /// Whether nothing can be taken back in its processes.
    pub(crate) fn lacks_rewind(&self) -> bool {
        self.lacks.iter().any(|what| what == "rewind")
    }
}
