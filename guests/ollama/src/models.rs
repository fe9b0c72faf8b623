//! What the service offers, as Ollama lists what is installed.

use harness_guest::{ApiError, HttpResponse, OfferedModel, invalid, json_reply, read_body};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::instant;
use crate::request::plain_name;

/// A call that is about models.
#[derive(Debug)]
pub enum Listing {
    /// All of them; the time is that of the call.
    All(u64),
    /// The one of this name.
    One(String),
}

#[derive(Deserialize)]
struct Show {
    model: Option<String>,
    name: Option<String>,
}

impl Listing {
    pub(crate) fn all(now: u64) -> Self {
        Listing::All(now)
    }

    pub(crate) fn one(body: &str) -> Result<Self, ApiError> {
        let show: Show = read_body(body)?;
        let name = show.model.or(show.name);
        let name = name.ok_or_else(|| invalid("model", "`model` is missing"))?;
        Ok(Listing::One(plain_name(&name).to_owned()))
    }

    pub(crate) fn told(&self, models: Vec<OfferedModel>) -> HttpResponse {
        match self {
            Listing::All(now) => {
                let models: Vec<Value> = models.iter().map(|model| tag(model, *now)).collect();
                json_reply(200, &json!({"models": models}))
            }
            Listing::One(name) => match models.iter().find(|model| model.id == *name) {
                Some(model) => json_reply(200, &shown(model)),
                None => json_reply(404, &json!({"error": format!("model '{name}' not found")})),
            },
        }
    }
}

fn details(model: &OfferedModel) -> Value {
    json!({
        "parent_model": "", "format": "", "family": model.owner, "families": [model.owner],
        "parameter_size": "", "quantization_level": "",
    })
}

fn tag(model: &OfferedModel, now: u64) -> Value {
    let name = match model.id.contains(':') {
        true => model.id.clone(),
        false => format!("{}:latest", model.id),
    };
    json!({
        "name": name, "model": name, "modified_at": instant(now), "size": 0, "digest": "",
        "details": details(model),
    })
}

fn shown(model: &OfferedModel) -> Value {
    let mut info = json!({"general.architecture": model.owner});
    if let Some(length) = model.context_length {
        info[format!("{}.context_length", model.owner)] = length.into();
    }
    json!({
        "modelfile": "", "parameters": "", "template": "", "details": details(model),
        "model_info": info, "capabilities": ["completion", "tools", "vision", "thinking"],
    })
}
