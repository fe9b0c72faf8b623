//! Dialogues that ask something of the CLI and cost no tokens.
//!
//! ```text
//! introduction ──► initialize, get_binary_version, a rewind of nothing ──► their answers
//! plan         ──► get_usage ──► its answer
//! ```

use harness_guest::{
    Effect, ErrorKind, FinishReason, Login, Model, Plan, PlanWindow, Report, failure, outcome,
};
use serde_json::Value;

use crate::input;
use crate::line::{Account, ControlResponse, Line, Response};
use crate::request::OutputSpec;
use crate::time::unix_time;

/// The ids of the requests, to know their answers by.
const VERSION: &str = "version";
const REWIND: &str = "rewind";
const USAGE: &str = "usage";

/// The id of no message: what is asked to be taken back, to see whether anything can be.
const NO_MESSAGE: &str = "00000000-0000-0000-0000-000000000000";

/// A dialogue with one question.
#[derive(Debug)]
pub struct Question {
    /// What is written, with the id of each request.
    requests: Vec<(&'static str, String)>,
    /// The requests that were not answered yet.
    awaited: Vec<&'static str>,
}

impl Question {
    /// Asks what the CLI is, what it offers, and how it is logged in.
    pub fn introduction() -> Self {
        Self::asking(vec![
            (
                input::INITIALIZE,
                input::initialize(&[], &OutputSpec::default()),
            ),
            (VERSION, input::ask(VERSION, "get_binary_version")),
            (REWIND, input::rewind(REWIND, NO_MESSAGE, false)),
        ])
    }

    /// Asks how much of the plan is used.
    pub fn plan() -> Self {
        Self::asking(vec![(USAGE, input::usage(USAGE))])
    }

    fn asking(requests: Vec<(&'static str, String)>) -> Self {
        Question {
            awaited: requests.iter().map(|(id, _)| *id).collect(),
            requests,
        }
    }

    /// Writes the requests.
    pub fn start(&mut self) -> Vec<Effect> {
        let requests = std::mem::take(&mut self.requests).into_iter();
        requests.map(|(_, line)| Effect::Write(line)).collect()
    }

    /// Takes a line of the CLI's output.
    pub fn output(&mut self, text: &str) -> Vec<Effect> {
        let line = Line::parse(text.as_bytes()).unwrap_or_default();
        let Some(answer) = line.response else {
            return Vec::new();
        };
        let awaited = self.awaited.iter().position(|id| *id == answer.request_id);
        let Some(at) = awaited else { return Vec::new() };
        let id = self.awaited.swap_remove(at);
        let mut effects: Vec<Effect> = match said(id, answer) {
            Ok(reports) => reports.into_iter().map(Effect::Report).collect(),
            Err(why) => {
                self.awaited.clear();
                let message = format!("Claude Code refused to open a session: {why}");
                return vec![Effect::Fail(failure(ErrorKind::BackendFailed, message))];
            }
        };
        if self.awaited.is_empty() {
            effects.push(Effect::Finish(outcome(FinishReason::Stop)));
        }
        effects
    }

    /// The CLI ended before it had answered.
    pub fn exit(&mut self) -> Vec<Effect> {
        let message = "Claude Code ended before it had answered a question about itself";
        vec![Effect::Fail(failure(ErrorKind::BackendFailed, message))]
    }
}

/// What an answer says. Only without a session is there no use in the CLI.
///
/// # Errors
///
/// Says why there is no session.
fn said(id: &str, answer: ControlResponse) -> Result<Vec<Report>, String> {
    let is_granted = answer.subtype == "success";
    let response = answer.response.unwrap_or_default();
    Ok(match id {
        input::INITIALIZE if !is_granted => {
            return Err(answer.error.unwrap_or_else(|| "no reason given".into()));
        }
        input::INITIALIZE => {
            let models = Report::Models(models(&response));
            let login = response.account.as_ref().map(login).map(Report::Login);
            [models].into_iter().chain(login).collect()
        }
        VERSION => response.version.map(Report::Version).into_iter().collect(),
        REWIND if !is_granted => vec![Report::Lacks("rewind".into())],
        USAGE if is_granted => plan(response).map(Report::Plan).into_iter().collect(),
        _ => Vec::new(),
    })
}

/// The models that the login may use.
pub(crate) fn models(offer: &Response) -> Vec<Model> {
    let models = offer.models.iter().map(|model| Model {
        id: model.value.clone(),
        resolved: model.resolved_model.clone(),
        display_name: model.display_name.clone(),
        extra: None,
    });
    models.collect()
}

/// How a process is logged in. Both tested versions say `none` of a source that there is not; of a subscription's
/// login they name the plan instead of a source.
fn login(account: &Account) -> Login {
    let is_some = |source: &&String| source.as_str() != "none";
    let subscription = account.subscription_type.as_ref();
    let sources = [
        account.token_source.as_ref().filter(is_some),
        account.api_key_source.as_ref().filter(is_some),
        subscription,
    ];
    let source = sources.into_iter().flatten().next().cloned();
    let provider = account.api_provider.as_deref();
    let is_elsewhere = provider.is_some_and(|provider| provider != "firstParty");
    Login {
        is_logged_in: source.is_some() || is_elsewhere,
        source,
        extra: None,
    }
}

/// The windows of the plan. None if the login has no plan, or the CLI does not know.
fn plan(response: Response) -> Option<Plan> {
    let Some(Value::Object(limits)) = response.rate_limits else {
        return None;
    };
    let mut windows = Vec::new();
    for (name, limit) in &limits {
        match limit {
            // One window for each of some models.
            Value::Array(scoped) if name == "model_scoped" => {
                windows.extend(scoped.iter().map(|limit| window(name, limit)));
            }
            // The others, such as `extra_usage`, are no spans of time.
            Value::Object(fields) if fields.contains_key("resets_at") => {
                windows.push(window(name, limit));
            }
            _ => {}
        }
    }
    Some(Plan {
        name: response.subscription_type,
        windows,
        extra: None,
    })
}

fn window(name: &str, limit: &Value) -> PlanWindow {
    const HOUR: u64 = 3600;
    let text = |key: &str| limit[key].as_str().map(str::to_owned);
    let length = match name {
        _ if name.starts_with("five_hour") => Some(5 * HOUR),
        _ if name.starts_with("seven_day") => Some(7 * 24 * HOUR),
        _ => None,
    };
    PlanWindow {
        name: name.to_owned(),
        display_name: text("display_name"),
        utilization: limit["utilization"].as_f64().map(|percent| percent / 100.0),
        resets_at: text("resets_at").as_deref().and_then(unix_time),
        length,
        extra: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(id: &str, subtype: &str, response: Value) -> String {
        json!({"type": "control_response", "response": {
            "subtype": subtype, "request_id": id, "response": response,
        }})
        .to_string()
    }

    fn reports(effects: &[Effect]) -> Vec<&Report> {
        let reports = effects.iter().filter_map(|effect| match effect {
            Effect::Report(report) => Some(report),
            _ => None,
        });
        reports.collect()
    }

    #[test]
    fn the_introduction_ends_with_its_last_answer() {
        let mut question = Question::introduction();
        assert_eq!(question.start().len(), 3);
        assert!(question.output("{}").is_empty() && question.output("?").is_empty());
        let account = json!({"tokenSource": "none", "apiProvider": "firstParty"});
        let effects = question.output(&answer(
            "initialize",
            "success",
            json!({"account": account}),
        ));
        let [Report::Models(_), Report::Login(login)] = reports(&effects)[..] else {
            panic!("{effects:?}");
        };
        assert!(!login.is_logged_in && login.source.is_none());
        let effects = question.output(&answer("version", "success", json!({"version": "2.1.330"})));
        assert!(
            matches!(reports(&effects)[..], [Report::Version(version)] if version == "2.1.330")
        );
        let effects = question.output(&answer("rewind", "error", Value::Null));
        assert!(
            matches!(&effects[..], [Effect::Report(Report::Lacks(what)), Effect::Finish(_)] if what == "rewind")
        );
    }

    #[test]
    fn a_session_that_is_refused_fails_the_introduction() {
        let mut question = Question::introduction();
        question.start();
        let effects = question.output(&answer("initialize", "error", Value::Null));
        assert!(matches!(&effects[..], [Effect::Fail(_)]));
        assert!(
            question
                .output(&answer("version", "success", Value::Null))
                .is_empty()
        );
    }

    #[test]
    fn every_source_of_a_login_counts() {
        let of = |account: Value| login(&serde_json::from_value(account).unwrap());
        let source = |account| of(account).source;
        assert_eq!(
            source(json!({"tokenSource": "CLAUDE_CODE_OAUTH_TOKEN"})).as_deref(),
            Some("CLAUDE_CODE_OAUTH_TOKEN")
        );
        assert_eq!(
            source(json!({"tokenSource": "none", "apiKeySource": "ANTHROPIC_API_KEY"})).as_deref(),
            Some("ANTHROPIC_API_KEY")
        );
        assert_eq!(
            source(json!({"subscriptionType": "Claude Max"})).as_deref(),
            Some("Claude Max")
        );
        assert!(of(json!({"apiProvider": "bedrock"})).is_logged_in);
    }

    #[test]
    fn the_windows_of_a_plan_are_those_that_are_known() {
        let limits = json!({
            "five_hour": {"utilization": 42, "resets_at": "2026-11-29T05:00:00.123456+00:00"},
            "seven_day": {"utilization": null, "resets_at": null},
            "seven_day_opus": null,
            "extra_usage": {"is_enabled": false, "utilization": null},
            "model_scoped": [{"display_name": "Opus", "utilization": 9, "resets_at": "2026-12-03T05:00:00Z"}],
        });
        let response = json!({"subscription_type": "max", "rate_limits": limits});
        let mut question = Question::plan();
        assert_eq!(question.start().len(), 1);
        let effects = question.output(&answer("usage", "success", response));
        let [Report::Plan(plan)] = reports(&effects)[..] else {
            panic!("{effects:?}");
        };
        assert!(matches!(effects.last(), Some(Effect::Finish(_))));
        assert_eq!(plan.name.as_deref(), Some("max"));
        let shown: Vec<_> = plan
            .windows
            .iter()
            .map(|w| (&*w.name, w.utilization, w.resets_at, w.length))
            .collect();
        assert_eq!(
            shown,
            [
                ("five_hour", Some(0.42), Some(1_795_928_400), Some(18_000)),
                ("seven_day", None, None, Some(604_800)),
                ("model_scoped", Some(0.09), Some(1_796_274_000), None),
            ]
        );
        let mut unknown = Question::plan();
        unknown.start();
        let effects = unknown.output(&answer("usage", "success", json!({"rate_limits": null})));
        assert!(matches!(&effects[..], [Effect::Finish(_)]));
    }
}
