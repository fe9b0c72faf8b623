//! Which backend serves which model.

use std::sync::Arc;

use crate::backends::Backend;
use crate::config;

/// The models, by the names that clients use.
pub(crate) struct Models {
    configured: Vec<config::Model>,
    backends: Vec<Arc<Backend>>,
}

/// Where a request goes.
pub(crate) struct Route {
    pub(crate) backend: Arc<Backend>,
    /// What the backend calls the model.
    pub(crate) model: String,
}

/// A model in the list.
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) backend: String,
    pub(crate) display_name: Option<String>,
}

impl Models {
    pub(crate) fn new(configured: Vec<config::Model>, backends: Vec<Arc<Backend>>) -> Self {
        Models {
            configured,
            backends,
        }
    }

    /// The route for a name: a configured one, or else one that a backend says it offers.
    pub(crate) fn route(&self, name: &str) -> Option<Route> {
        if let Some(model) = self.configured.iter().find(|m| m.name == name) {
            let backend = self
                .backends
                .iter()
                .find(|b| b.config.name == model.backend)?
                .clone();
            return Some(Route {
                backend,
                model: model.model.clone(),
            });
        }
        let offers = |backend: &&Arc<Backend>| {
            let offers = backend.status.offers();
            offers
                .iter()
                .any(|m| m.id == name || m.resolved.as_deref() == Some(name))
        };
        let backend = self.backends.iter().find(offers)?.clone();
        Some(Route {
            backend,
            model: name.to_owned(),
        })
    }

    /// Every model there is: the configured ones, then what the backends offer beside them.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let mut list: Vec<Listed> = self
            .configured
            .iter()
            .map(|model| Listed {
                id: model.name.clone(),
                backend: model.backend.clone(),
                display_name: None,
            })
            .collect();
        for backend in &self.backends {
            for offer in backend.status.offers() {
                for id in [Some(offer.id), offer.resolved].into_iter().flatten() {
                    let display_name = offer.display_name.clone();
                    match list.iter_mut().find(|known| known.id == id) {
                        Some(known) => known.display_name = display_name,
                        None => list.push(Listed {
                            id,
                            backend: backend.config.name.clone(),
                            display_name,
                        }),
                    }
                }
            }
        }
        list
    }
}
