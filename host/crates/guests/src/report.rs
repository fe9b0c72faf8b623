//! What an adapter tells of its backend, beside answers.

use serde::{Deserialize, Serialize};

/// One thing that an adapter learnt about its backend.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The version of the command line.
    Version(String),
    /// The models that the login may use.
    Models(Vec<ModelOffer>),
    /// How many tokens a model takes.
    ModelLimits(ModelLimits),
    /// The state of a usage limit.
    RateLimit(RateLimit),
    /// When the login ends, in seconds since the Unix epoch.
    LoginEndsAt(u64),
    /// The windows in which the login's plan counts usage.
    Plan(Plan),
    /// How a process is logged in.
    Login(Login),
    /// What requests rely on and this version does not have, as one word.
    Lacks(String),
}

/// What an adapter can ask of the command line without cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// What it is and offers, and how it is logged in.
    #[default]
    Introduction,
    /// How much of the plan is used.
    Plan,
}

/// A plan with its windows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Its name.
    pub name: Option<String>,
    /// Its windows.
    pub windows: Vec<PlanWindow>,
}

/// A span of time in which usage is counted, up to a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanWindow {
    /// Which one it is.
    pub name: String,
    /// Its name for people, if it is for something special.
    pub display_name: Option<String>,
    /// The share that is used, 0 to 1.
    pub utilization: Option<f64>,
    /// When it ends, in seconds since the Unix epoch.
    pub resets_at: Option<u64>,
    /// How long it is, in seconds.
    pub length: Option<u64>,
}

/// How a process is logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Login {
    /// Whether it has something to answer with.
    pub is_logged_in: bool,
    /// Where it has that from, in the command line's words.
    pub source: Option<String>,
}

/// A model that a backend says it offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelOffer {
    /// What the backend calls it.
    pub id: String,
    /// Its full id.
    pub resolved: Option<String>,
    /// Its name for people.
    pub display_name: Option<String>,
}

/// The limits of a model, in tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// The model.
    pub id: String,
    /// What it can read and write.
    pub context_length: Option<u64>,
    /// What it can write.
    pub max_output_tokens: Option<u64>,
}

/// The state of a usage limit of an account.
#[derive(Clone, Debug, PartialEq)]
pub struct RateLimit {
    /// Whether it lets requests through.
    pub status: RateLimitStatus,
    /// Which limit it is.
    pub name: Option<String>,
    /// When it ends, in seconds since the Unix epoch.
    pub resets_at: Option<u64>,
    /// The share that is used, 0 to 1.
    pub utilization: Option<f64>,
}

/// Whether a usage limit lets requests through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitStatus {
    /// It does.
    Allowed,
    /// It does, but will soon be reached.
    AllowedWarning,
    /// It does not.
    Rejected,
}
