//! Which guest speaks at which routes: other HTTP APIs than chat completions.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::HeaderName;
use basics::plain;
use guests::admit::World;
use guests::completion::Context;
use guests::dialect;
use guests::http::{Route, Service};
use guests::instance::Configured;
use guests::registry::GuestSet;
use matchit::Router;

use crate::config::Config;
use crate::failure::unix_now;

/// The most routes of one dialect.
const ROUTES_MAX: usize = 64;

/// How the paths begin that are the host's own, or may become it.
const OWN_PATHS: [&str; 7] = [
    "/admin",
    "/console",
    "/health",
    "/metrics",
    "/openapi.json",
    "/v1/chat/",
    "/v1/models",
];

/// The dialects that serve. They change only with the configuration or the guests.
#[derive(Clone, Default)]
pub(crate) struct Dialects {
    /// For each path the methods, each with the dialect that serves it.
    routes: Router<Methods>,
    /// The same by the paths as they are declared.
    declared: BTreeMap<String, Methods>,
    serving: BTreeMap<String, Arc<Dialect>>,
    /// Why some are not served, by their names.
    problems: BTreeMap<String, String>,
}

/// Methods of a path, each with the dialect that serves it.
type Methods = Vec<(String, Arc<Dialect>)>;

/// A dialect that serves.
pub(crate) struct Dialect {
    /// The guest, as it is configured.
    pub(crate) of: Configured,
    /// What it serves.
    pub(crate) service: Service,
}

/// What a path and a method lead to.
pub(crate) enum Found {
    /// This dialect serves them.
    Dialect(Arc<Dialect>),
    /// The path is this dialect's, but not with this method.
    OtherMethod(Arc<Dialect>),
    /// Nobody serves the path.
    Nothing,
}

impl Dialects {
    /// The dialects among the guests, unless the configuration turns them off. `before` are those until now: one that is
    /// the same is not asked again what it serves.
    pub(crate) fn new(config: &Config, guests: &GuestSet, before: &Dialects) -> Self {
        let mut dialects = Dialects::default();
        for (name, guest) in &guests.serving {
            if guest.world() != World::Dialect {
                continue;
            }
            let Some(used) = config.dialects.used(name) else {
                continue;
            };
            let Some(of) = Configured::new(guest, &used.config) else {
                let what = "it did not take its configuration";
                dialects.problems.insert(name.clone(), what.into());
                continue;
            };
            let same = before.serving.get(name).filter(|known| {
                Arc::ptr_eq(&known.of.guest, &of.guest) && known.of.config == of.config
            });
            let dialect = match same {
                Some(same) => Ok(same.clone()),
                None => Dialect::asked(of).map(Arc::new),
            };
            if let Err(problem) = dialect.and_then(|dialect| dialects.add(name, dialect)) {
                dialects.problems.insert(name.clone(), problem);
            }
        }
        dialects
    }

    /// Adds a dialect with all of its routes, or with none.
    fn add(&mut self, name: &str, dialect: Arc<Dialect>) -> Result<(), String> {
        let mut declared = self.declared.clone();
        for route in &dialect.service.routes {
            check(route)?;
            let Route { method, path } = route;
            let methods = declared.entry(path.clone()).or_default();
            if let Some((_, other)) = methods.iter().find(|(known, _)| known == method) {
                let other = &other.of.guest.name;
                return Err(format!("`{other}` serves {method} {path} already"));
            }
            methods.push((method.clone(), dialect.clone()));
        }
        let mut routes = Router::new();
        for (path, methods) in &declared {
            let added = routes.insert(path, methods.clone());
            added.map_err(|error| format!("the path {}: {error}", shown(path)))?;
        }
        (self.declared, self.routes) = (declared, routes);
        self.serving.insert(name.to_owned(), dialect);
        Ok(())
    }

    /// Who serves a path with a method.
    pub(crate) fn find(&self, method: &str, path: &str) -> Found {
        let Ok(found) = self.routes.at(path) else {
            return Found::Nothing;
        };
        let with_method = found.value.iter().find(|(known, _)| known == method);
        match (with_method, found.value.first()) {
            (Some((_, dialect)), _) => Found::Dialect(dialect.clone()),
            (None, Some((_, dialect))) => Found::OtherMethod(dialect.clone()),
            (None, None) => Found::Nothing,
        }
    }

    /// What is wrong with dialects, by their names.
    pub(crate) fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        let problems = self.problems.iter();
        problems.map(|(name, problem)| (&**name, &**problem))
    }
}

impl Dialect {
    /// Asks a guest what it serves.
    fn asked(of: Configured) -> Result<Self, String> {
        let service = dialect::serve(&of, &context("serve".into()));
        let service =
            service.map_err(|error| format!("it does not say what it serves: {error}"))?;
        let named = |names: Vec<String>| -> Result<Vec<String>, String> {
            let names = names
                .into_iter()
                .map(|name| match HeaderName::try_from(&name) {
                    Ok(name) => Ok(name.as_str().to_owned()),
                    Err(_) => Err(format!("`{}` is no name of a header", shown(&name))),
                });
            names.collect()
        };
        let service = Service {
            key_headers: named(service.key_headers)?,
            headers: named(service.headers)?,
            ..service
        };
        match service.routes.len() {
            0 => Err("it serves no route".into()),
            1..=ROUTES_MAX => Ok(Dialect { of, service }),
            _ => Err(format!("it serves more than {ROUTES_MAX} routes")),
        }
    }
}

/// What a dialect is told of a call beside its content.
pub(crate) fn context(id: String) -> Context {
    Context {
        id,
        created: unix_now(),
        model: String::new(),
        backend_model: String::new(),
        resolved_model: None,
        profile: "".into(),
        fetch_urls: false,
        choice: 0,
    }
}

/// Whether a path is the host's own.
pub(crate) fn is_own(path: &str) -> bool {
    path == "/" || OWN_PATHS.iter().any(|own| path.starts_with(own))
}

/// Whether a dialect may have a route.
fn check(route: &Route) -> Result<(), String> {
    let Route { method, path } = route;
    let is_word = !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
    if !is_word || method.len() > 16 {
        return Err(format!("`{}` is no method of HTTP", shown(method)));
    }
    if is_own(path) {
        return Err(format!("{} is a path of the host's", shown(path)));
    }
    let is_plain = path.bytes().all(|b| b.is_ascii_graphic());
    // A name in braces at the beginning would take every path, and a star all that follows.
    if !path.starts_with('/')
        || path.starts_with("/{")
        || path.contains("{*")
        || !is_plain
        || path.len() > 200
    {
        return Err(format!(
            "`{}` is no path that a dialect may have",
            shown(path)
        ));
    }
    Ok(())
}

fn shown(text: &str) -> String {
    plain::line(text, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(method: &str, path: &str) -> Result<(), String> {
        check(&Route {
            method: method.into(),
            path: path.into(),
        })
    }

    #[test]
    fn a_dialect_takes_no_path_of_the_hosts() {
        assert_eq!(checked("POST", "/api/chat"), Ok(()));
        assert_eq!(checked("GET", "/v1/things/{id}"), Ok(()));
        for path in [
            "/",
            "/health",
            "/metrics",
            "/admin/plan",
            "/v1/chat/completions",
            "/v1/models/x",
            "/console/",
        ] {
            assert!(
                checked("GET", path).unwrap_err().contains("of the host's"),
                "{path}"
            );
        }
        for path in ["", "x", "/{any}", "/a/{*rest}", "/a b", "/\u{fc}"] {
            assert!(
                checked("GET", path).unwrap_err().contains("is no path"),
                "{path}"
            );
        }
        assert!(checked("get", "/x").is_err() && checked("", "/x").is_err());
    }
}
