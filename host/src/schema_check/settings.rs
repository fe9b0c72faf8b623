//! What is wrong with a guest's settings, by the guest's own schema.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use basics::plain;
use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{ValidationError, Validator};
use processes::Helper;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Check, Outcome, SUBCOMMAND, carry_out};

/// How long a check may take. The check ends by itself, too, after a bounded time on the processor.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether it has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The most problems that are told, and how much of each, in characters.
const PROBLEMS_MAX: usize = 20;
const PROBLEM_MAX: usize = 200;

/// Everything that is wrong with settings by a guest's schema: a sentence each, with the key. A schema that is not this
/// program's own is looked at in a process of its own.
///
/// # Errors
///
/// Says what is wrong with the schema.
pub(crate) fn check_settings(
    schema: &str,
    settings: &Value,
    is_own: bool,
) -> Result<Vec<String>, String> {
    let schema: &RawValue = serde_json::from_str(schema).map_err(|error| error.to_string())?;
    let check = Check {
        schemas: vec![schema],
        answer: None,
        settings: Some(settings.clone()),
    };
    let check = serde_json::to_string(&check).map_err(|error| error.to_string())?;
    let outcome = match is_own {
        true => carry_out(&check).map_err(|error| error.to_string())?,
        false => in_process(&check)?,
    };
    match outcome {
        Outcome::Problems(problems) => Ok(problems),
        Outcome::Invalid(_, what) => Err(what),
        Outcome::Sound | Outcome::Unfit => Err("it was not checked".into()),
    }
}

fn in_process(check: &str) -> Result<Outcome, String> {
    let mut command = Command::new(basics::program::own());
    command
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let started = Helper::spawn(&mut command);
    let (mut child, _helper) = started.map_err(|error| format!("it cannot be checked: {error}"))?;
    let costly = || "checking it takes too much memory or time".to_owned();
    if let Some(mut input) = child.stdin.take() {
        // This fails only if the check has ended, and then there is no outcome.
        let _ = input.write_all(check.as_bytes());
    }
    let deadline = Instant::now() + TIMEOUT;
    // An outcome is smaller than what a pipe holds, so it can be read when the check has ended.
    while child.try_wait().map_err(|_| costly())?.is_none() {
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(costly());
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    let mut said = String::new();
    let output = child.stdout.take();
    output
        .and_then(|mut output| output.read_to_string(&mut said).ok())
        .ok_or_else(costly)?;
    serde_json::from_str(&said).map_err(|_| costly())
}

/// Everything that is wrong with settings.
pub(super) fn problems(schema: &Validator, settings: &Value) -> Vec<String> {
    let errors = schema.iter_errors(settings).take(PROBLEMS_MAX);
    let mut told: Vec<String> = errors.flat_map(|error| told(&error, settings)).collect();
    let mut seen = HashSet::new();
    told.retain(|problem| seen.insert(problem.clone()));
    told
}

/// What is wrong, one sentence for each key.
fn told(error: &ValidationError<'_>, settings: &Value) -> Vec<String> {
    let at = key(error.instance_path());
    let below = |name: &str| match at.as_str() {
        "" => name.to_owned(),
        at => format!("{at}.{name}"),
    };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let keys = unexpected.iter().take(PROBLEMS_MAX);
            keys.map(|name| format!("`{}` is not known", below(name)))
                .collect()
        }
        // The guest has no settings. The error says not which ones are there.
        ValidationErrorKind::FalseSchema if at.is_empty() => {
            let keys = settings.as_object().into_iter().flatten();
            keys.take(PROBLEMS_MAX)
                .map(|(name, _)| format!("`{name}` is not known"))
                .collect()
        }
        ValidationErrorKind::FalseSchema => vec![format!("`{at}` is not known")],
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![format!("`{}` is missing", below(name))]
        }
        _ => {
            let what = plain::line(&error.to_string(), PROBLEM_MAX);
            match at.as_str() {
                "" => vec![what],
                at => vec![format!("`{at}`: {what}")],
            }
        }
    }
}

/// A place in settings, such as `patterns[0].regex`.
fn key(path: &Location) -> String {
    let mut key = String::new();
    for segment in path.segments() {
        match segment {
            LocationSegment::Index(index) => key.push_str(&format!("[{index}]")),
            LocationSegment::Property(name) if key.is_empty() => key.push_str(&name),
            LocationSegment::Property(name) => key.push_str(&format!(".{name}")),
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_mistakes_are_told_by_their_keys() {
        let schema = r#"{"type":"object","additionalProperties":false,"required":["template"],"properties":{
            "template":{"type":"string"},"restore":{"type":"boolean"},
            "patterns":{"type":"array","items":{"type":"object","properties":{"regex":{"type":"string"}}}}}}"#;
        let settings = json!({"restore": 1, "patterns": [{"regex": "a"}, {"regex": 2}], "x": 0});
        let mut told = check_settings(schema, &settings, true).unwrap();
        told.sort();
        assert_eq!(
            told,
            [
                r#"`patterns[1].regex`: 2 is not of type "string""#,
                r#"`restore`: 1 is not of type "boolean""#,
                "`template` is missing",
                "`x` is not known",
            ]
        );
        assert!(
            check_settings(schema, &json!({"template": ""}), true)
                .unwrap()
                .is_empty()
        );
        let none = r#"{"type":"object","additionalProperties":false}"#;
        assert_eq!(
            check_settings(none, &json!({"x": 1}), true).unwrap(),
            ["`x` is not known"]
        );
        assert!(check_settings(r#"{"type":"nothing"}"#, &json!({}), true).is_err());
        assert!(check_settings("no JSON", &json!({}), true).is_err());
    }
}
