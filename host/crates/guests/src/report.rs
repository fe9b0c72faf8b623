//! What an adapter tells of its backend, beside answers.

use serde::Serialize;

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
