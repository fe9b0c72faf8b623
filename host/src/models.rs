//! Which backend serves which model.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backends::Backend;
use crate::config::{self, Config, closest};
use crate::failure::{Failure, Kind};
use crate::profiles::is_model_name;
use basics::plain;
use parking_lot::Mutex;

/// The models, by the names that clients use.
pub(crate) struct Models {
    configured: Vec<config::ModelConfig>,
    /// Whether names that begin like those of the first real backend are served though they are not listed.
    pass_through: bool,
    backends: Vec<Arc<Backend>>,
}

/// Where a request goes.
pub(crate) struct Route {
    pub(crate) backend: Arc<Backend>,
    /// What the backend calls the model.
    pub(crate) model: String,
    /// What the metrics and the log call it: one of a few names, whatever clients think of.
    pub(crate) label: String,
    /// Its name, if the configuration lists it.
    pub(crate) configured: Option<String>,
}

/// What the metrics call a model.
enum Label<'a> {
    /// This name, which is configured.
    Configured(&'a str),
    /// This name.
    Name(&'a str),
    /// This name, as long as there are few such.
    Offered(&'a str),
    /// One name for all that begin like this.
    Other(&'a str),
}

/// What the metrics call a model that a backend offers, though nobody configured it: its name, as long as
/// there are few of them.
fn offered_label(name: &str) -> String {
    /// Names that the metrics know, in the life of the service.
    const LABELS_MAX: usize = 100;
    static LABELS: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut labels = LABELS.lock();
    if labels.len() < LABELS_MAX {
        labels.insert(name.to_owned());
    }
    match labels.get(name) {
        Some(known) => known.clone(),
        None => "other".to_owned(),
    }
}

/// A model in the list.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) backend: String,
    pub(crate) display_name: Option<String>,
    /// How many tokens it can read and write, where known.
    pub(crate) context_length: Option<u64>,
    /// How many tokens it can write, where known.
    pub(crate) max_output_tokens: Option<u64>,
}

impl Models {
    pub(crate) fn new(config: &Config, backends: Vec<Arc<Backend>>) -> Self {
        Models {
            configured: config.models.clone(),
            pass_through: config.builtin_models,
            backends,
        }
    }

    /// The name of the first backend that is more than a demonstration.
    pub(crate) fn any_real_backend(&self) -> Option<&str> {
        let real = self.backends.iter().find(|backend| backend.is_real())?;
        Some(&real.config.name)
    }

    /// No model has this name: the failure, with the nearest one or the way to have it served.
    pub(crate) fn unknown(&self, name: &str) -> Failure {
        let name = plain::line(name, 100);
        let listed = self.list();
        let known: Vec<&str> = listed.iter().map(|model| &*model.id).collect();
        let way_out = match (closest(&name, &known), self.any_real_backend()) {
            (Some(nearest), _) => format!("did you mean `{nearest}`? GET /v1/models lists all"),
            (None, Some(backend)) if is_plain_name(&name) => format!(
                "GET /v1/models lists those that do; to have this name served, write `[models.\"{name}\"]`, `backend = \"{backend}\"` and `model = \"sonnet\"` into harness.toml"
            ),
            _ => "GET /v1/models lists those that do".to_owned(),
        };
        let message = format!("the model `{name}` does not exist: {way_out}");
        Failure::new(Kind::UnknownModel, message).with_param("model")
    }

    /// The backend that serves a name.
    pub(crate) fn backend<'a>(&'a self, name: &'a str) -> Option<&'a Arc<Backend>> {
        Some(self.locate(name)?.0)
    }

    /// The route for a name: a configured one, or else one that a backend says it offers, or
    /// else one that looks like a model of the first real backend's.
    pub(crate) fn route(&self, name: &str) -> Option<Route> {
        let (backend, model, label) = self.locate(name)?;
        Some(Route {
            backend: backend.clone(),
            model: model.to_owned(),
            configured: match label {
                Label::Configured(name) => Some(name.to_owned()),
                _ => None,
            },
            label: match label {
                Label::Configured(name) | Label::Name(name) => name.to_owned(),
                Label::Offered(name) => offered_label(name),
                Label::Other(begin) => format!("{begin}other"),
            },
        })
    }

    /// Where a name leads: the backend, what it calls the model, and what the metrics call it.
    fn locate<'a>(&'a self, name: &'a str) -> Option<(&'a Arc<Backend>, &'a str, Label<'a>)> {
        if let Some(model) = self.configured.iter().find(|m| m.name == name) {
            let mut backends = self.backends.iter();
            let backend = backends.find(|b| b.config.name == model.backend)?;
            return Some((backend, &model.model, Label::Configured(name)));
        }
        let offers = |backend: &&Arc<Backend>| {
            let offers = backend.status.offers();
            let mut ids = offers
                .iter()
                .flat_map(|m| [Some(&m.id), m.resolved.as_ref()]);
            ids.any(|id| id.is_some_and(|id| id == name))
        };
        if let Some(backend) = self.backends.iter().find(offers) {
            return Some((backend, name, Label::Offered(name)));
        }
        match name.strip_prefix("anthropic/") {
            Some(plain) if !plain.starts_with("anthropic/") => self.locate(plain),
            _ => self.unlisted(name),
        }
    }

    /// A name that nobody listed, as the profile of the first real backend has it.
    fn unlisted<'a>(&'a self, name: &'a str) -> Option<(&'a Arc<Backend>, &'a str, Label<'a>)> {
        let backend = self
            .backends
            .iter()
            .find(|b| b.is_real() && b.config.launch.profile.passed_on.is_some())
            .filter(|_| self.pass_through)?;
        let profile = backend.config.launch.profile;
        let mut retired = profile.retired.iter();
        if let Some((_, now)) = retired.find(|(begin, _)| name.starts_with(begin)) {
            return Some((backend, now, Label::Name(now)));
        }
        let begin = profile.passed_on.filter(|begin| name.starts_with(begin))?;
        is_model_name(name).then_some((backend, name, Label::Other(begin)))
    }

    /// A model by its name: one of the list, or one that is served all the same.
    pub(crate) fn find(&self, name: &str) -> Option<Listed> {
        if let Some(listed) = self.list().into_iter().find(|model| model.id == name) {
            return Some(listed);
        }
        let route = self.route(name)?;
        Some(described(name, &route.backend, &route.model))
    }

    /// Every model there is: the configured ones, then what the backends offer beside them.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let mut list = Vec::new();
        for model in &self.configured {
            let mut backends = self.backends.iter();
            let Some(backend) = backends.find(|b| b.config.name == model.backend) else {
                continue;
            };
            let mut listed = described(&model.name, backend, &model.model);
            listed.context_length = model.context_length.or(listed.context_length);
            list.push(listed);
        }
        for backend in &self.backends {
            for offer in backend.status.offers() {
                for id in [Some(offer.id), offer.resolved].into_iter().flatten() {
                    if !list.iter().any(|known: &Listed| known.id == id) {
                        list.push(described(&id, backend, &id));
                    }
                }
            }
        }
        list
    }
}

/// Whether a name can be written in the configuration as it is.
fn is_plain_name(name: &str) -> bool {
    name.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(&b))
}

/// What is known of the model that `backend` calls `model`.
fn described(id: &str, backend: &Backend, model: &str) -> Listed {
    let offer = backend.status.offer(model);
    let resolved = offer.as_ref().and_then(|o| o.resolved.as_deref());
    let limits = backend.status.model_limits(resolved.unwrap_or(model));
    Listed {
        id: id.to_owned(),
        backend: backend.config.name.clone(),
        display_name: offer.and_then(|o| o.display_name),
        context_length: limits.as_ref().and_then(|l| l.context_length),
        max_output_tokens: limits.and_then(|l| l.max_output_tokens),
    }
}
