//! The transform guest that takes personal data and secrets out of a request, and puts them back into its answer.
//!
//! ```text
//! request ──► texts ──► [`find`]: where are they? ──► [`places`]: placeholders such as <EMAIL_1> ──► model
//! client  ◄── [`restore`]: placeholders become values again, however the answer is cut ◄──────────── model
//! ```
//!
//! The same value has the same placeholder everywhere in a request, so a conversation goes on in its process. Nothing
//! is kept when the request is over.

pub mod find;
pub mod json;
pub mod places;
pub mod request;
pub mod restore;

use harness_guest::{
    ApiError, Context, Decision, Delta, Description, Ending, ErrorKind, Opened, Outcome, Problem,
    Request, Step, Transform, failure,
};
use regex_lite::Regex;
use serde::Deserialize;

use find::{Builtin, Finder, Pattern};
use places::Places;
use request::Redacted;
use restore::Restorer;

/// The most patterns of an operator's own.
const PATTERNS_MAX: usize = 100;

/// The longest name of a pattern, in characters.
const NAME_MAX: usize = 32;

/// `[guests.redact] config`
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    builtin: Vec<Builtin>,
    patterns: Vec<OwnPattern>,
    restore: bool,
    unreadable: Unreadable,
}

/// A pattern of the operator's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnPattern {
    name: String,
    regex: String,
}

/// What becomes of a request that has something that cannot be redacted.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Unreadable {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes to the model as it is.
    Pass,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            builtin: Builtin::ALL.to_vec(),
            patterns: Vec::new(),
            restore: true,
            unreadable: Unreadable::Refuse,
        }
    }
}

/// What is taken out, and whether it is put back.
#[derive(Debug)]
pub struct Settings {
    finder: Finder,
    restore: bool,
    unreadable: Unreadable,
}

/// Puts values back into one answer.
#[derive(Debug)]
pub struct Redact(Restorer);

impl Transform for Redact {
    type Settings = Settings;

    fn describe() -> Description {
        Description {
            config_schema: include_str!("config.schema.json").into(),
            ..harness_guest::description(
                "redact",
                env!("CARGO_PKG_VERSION"),
                "takes personal data and secrets out of requests, and puts them back into answers",
            )
        }
    }

    fn configure(config: &str) -> Result<Settings, Vec<Problem>> {
        let config: Config = harness_guest::settings(config)?;
        let patterns = patterns(config.patterns)?;
        Ok(Settings {
            finder: Finder::new(&config.builtin, patterns),
            restore: config.restore,
            unreadable: config.unreadable,
        })
    }

    fn open(
        settings: &Settings,
        _context: Context,
        mut request: Request,
    ) -> Result<Opened<Self>, ApiError> {
        let mut redacted = Redacted::new(&settings.finder, Places::around(&request));
        redacted.request(&mut request);
        if let Some(what) = redacted.unreadable()
            && settings.unreadable == Unreadable::Refuse
        {
            let message = format!(
                "`redact` does not let the request pass: {} cannot be redacted; leave it out, or set `unreadable = \"pass\"` in the configuration of `redact`",
                what.what
            );
            return Err(ApiError {
                param: Some(what.at.clone()),
                ..failure(ErrorKind::Refused, message)
            });
        }
        let places = redacted.into_places();
        let has_values = !places.is_empty();
        Ok(Opened {
            decision: match has_values {
                true => Decision::Rewrite(request.clone()),
                false => Decision::Pass,
            },
            filter: (has_values && settings.restore)
                .then(|| Redact(Restorer::new(places, &request.output_format))),
        })
    }

    fn take(&mut self, deltas: Vec<Delta>) -> Step {
        Step::Forward(self.0.take(deltas))
    }

    fn finish(&mut self, outcome: Outcome) -> Result<Ending, ApiError> {
        Ok(Ending {
            deltas: self.0.finish(),
            ..harness_guest::ending(outcome.finish_reason)
        })
    }
}

/// Compiles the operator's patterns, or tells all that is wrong with them.
fn patterns(own: Vec<OwnPattern>) -> Result<Vec<Pattern>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut problem = |key: String, message: String| problems.push(Problem { key, message });
    if own.len() > PATTERNS_MAX {
        problem(
            "patterns".into(),
            format!("there may be at most {PATTERNS_MAX}"),
        );
    }
    let mut patterns = Vec::new();
    for (i, OwnPattern { name, regex }) in own.into_iter().enumerate() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_word) {
            let what = format!("1 to {NAME_MAX} letters, digits, `-` and `_`");
            problem(format!("patterns[{i}].name"), what);
        }
        match Regex::new(&regex) {
            Ok(regex) if regex.is_match("") => {
                let what = "it matches the empty text, so it would match everywhere";
                problem(format!("patterns[{i}].regex"), what.into());
            }
            Ok(regex) => patterns.push(Pattern { name, regex }),
            Err(error) => problem(format!("patterns[{i}].regex"), error.to_string()),
        }
    }
    match problems.is_empty() {
        true => Ok(patterns),
        false => Err(problems),
    }
}

harness_guest::export_transform!(Redact);
