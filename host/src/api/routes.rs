//! The answer to an unknown path or method, and the page at `/`.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use basics::plain;

use crate::backends::status::Health;
use crate::failure::{Failure, Kind};
use crate::service::Service;

/// Paths of APIs that this service does not speak, with what to do instead.
const OTHER_APIS: [(&str, &str); 5] = [
    (
        "/v1/embeddings",
        "this service has no embeddings: set another provider for them in your client",
    ),
    ("/v1/images", "this service makes no pictures"),
    ("/v1/audio", "this service neither hears nor speaks"),
    (
        "/v1/moderations",
        "this service has no moderation of its own",
    ),
    (
        "/v1/assistants",
        "this service keeps nothing: use POST /v1/chat/completions",
    ),
];

/// The failure for a path that does not exist.
pub(super) async fn no_such_route(method: Method, uri: Uri) -> Failure {
    let path = plain::line(uri.path(), 100);
    let hint = hint(uri.path()).map_or(String::new(), |hint| format!(": {hint}"));
    Failure::new(
        Kind::NoSuchRoute,
        format!("there is no {method} {path}{hint}"),
    )
}

fn hint(path: &str) -> Option<String> {
    if let Some(rest) = path.strip_prefix("/v1/v1") {
        return Some(format!(
            "the base URL that your client has ends in /v1, and the client adds another one; set it without, and it asks for /v1{rest}"
        ));
    }
    if let "/chat/completions" | "/models" = path {
        return Some(format!(
            "did you mean /v1{path}? Set your client's base URL with /v1 at its end"
        ));
    }
    let other = OTHER_APIS.iter().find(|(begin, _)| path.starts_with(begin));
    other.map(|(_, what)| (*what).to_owned())
}

/// The failure for a path that exists, but not with this method.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let path = plain::line(uri.path(), 100);
    let takes = match uri.path() {
        "/v1/chat/completions" | "/admin/reload" | "/admin/render" | "/admin/run" => "POST",
        path if path.ends_with("/rollback") || path.ends_with("/record") => "POST",
        _ => "GET",
    };
    let message = format!("{path} takes {takes}, not {method}");
    Failure::new(Kind::NoSuchMethod, message)
}

/// A page for people who open the address in a browser.
pub(super) async fn home(State(service): State<Arc<Service>>) -> Response {
    let snapshot = service.snapshot();
    let backends: String = snapshot
        .backends
        .iter()
        .map(|backend| {
            let health = backend.status.health();
            let remedy = match (&health, backend.remedy()) {
                (Health::Ready, _) => String::new(),
                (_, commands) if commands.is_empty() => String::new(),
                (_, commands) => format!(": <code>{}</code>", escaped(&commands.join(" && "))),
            };
            let (name, message) = (
                escaped(&backend.config.name),
                escaped(&backend.message(&health)),
            );
            format!("<li><b>{name}</b>: {message}{remedy}</li>")
        })
        .collect();
    let models: String = snapshot
        .models
        .list()
        .iter()
        .map(|model| format!("<li><code>{}</code></li>", escaped(&model.id)))
        .collect();
    let real = snapshot.backends.iter().filter(|backend| backend.is_real());
    let products: BTreeSet<&str> = real.map(|b| b.config.launch.profile.product).collect();
    let products = match products.is_empty() {
        true => "a demonstration".to_owned(),
        false => products.into_iter().collect::<Vec<_>>().join(" and "),
    };
    let keys = match snapshot.config.access.keys.is_empty() {
        true => "No key is needed on this machine; clients that want one take any.",
        false => "Clients send one of the service's keys.",
    };
    let page = format!(
        r#"<!doctype html><html lang="en"><meta charset="utf-8"><title>claude-harness</title>
<meta name="viewport" content="width=device-width"><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:2em auto;padding:0 1em}}code{{background:#8882;padding:.1em .3em}}</style>
<h1>claude-harness {}</h1>
<p>OpenAI's API in front of {products}. The base URL for clients is this address with <code>/v1</code> at its end. {keys}</p>
<h2>Backends</h2><ul>{backends}</ul><h2>Models</h2><ul>{models}</ul>
<p><a href="/health">State</a> · <a href="/metrics">Metrics</a> · <a href="/v1/models">Models as JSON</a></p></html>
"#,
        env!("CARGO_PKG_VERSION"),
    );
    let policy = "default-src 'none'; style-src 'unsafe-inline'";
    let headers = [(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(policy),
    )];
    (StatusCode::OK, headers, Html(page)).into_response()
}

/// Escapes a text for HTML.
fn escaped(text: &str) -> String {
    let text = plain::line(text, 500);
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_names_the_right_one() {
        let told = |path| hint(path).unwrap_or_default();
        assert!(told("/v1/v1/chat/completions").contains("asks for /v1/chat/completions"));
        assert!(told("/models").contains("did you mean /v1/models?"));
        assert!(told("/v1/embeddings").contains("no embeddings"));
        assert_eq!(hint("/nowhere"), None);
    }
}
