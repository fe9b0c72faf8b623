//! `GET /console/`: pages for a browser, which show what the admin area says. They are part of the program, fetch nothing from
//! elsewhere, and hold nothing that is secret: what they show they ask for, with a key if there are keys.

use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};

use super::routes;
use crate::failure::Failure;

/// A file of the console: its name, its kind, its text.
type File = (&'static str, &'static str, &'static str);

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// All of it.
const FILES: [File; 11] = [
    (
        "",
        "text/html; charset=utf-8",
        include_str!("../../console/index.html"),
    ),
    (
        "console.css",
        "text/css; charset=utf-8",
        include_str!("../../console/console.css"),
    ),
    (
        "icon.svg",
        "image/svg+xml",
        include_str!("../../console/icon.svg"),
    ),
    (
        "console.js",
        SCRIPT,
        include_str!("../../console/console.js"),
    ),
    (
        "service.js",
        SCRIPT,
        include_str!("../../console/service.js"),
    ),
    ("shapes.js", SCRIPT, include_str!("../../console/shapes.js")),
    ("now.js", SCRIPT, include_str!("../../console/now.js")),
    ("usage.js", SCRIPT, include_str!("../../console/usage.js")),
    (
        "requests.js",
        SCRIPT,
        include_str!("../../console/requests.js"),
    ),
    ("guests.js", SCRIPT, include_str!("../../console/guests.js")),
    (
        "playground.js",
        SCRIPT,
        include_str!("../../console/playground.js"),
    ),
];

/// What a browser may do with the pages: run their own scripts, and call this service.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// The address without the slash at its end.
pub(super) async fn enter() -> Redirect {
    Redirect::permanent("/console/")
}

/// The first page.
pub(super) async fn index(method: Method, uri: Uri) -> Result<Response, Failure> {
    file(Path(String::new()), method, uri).await
}

/// A file of the console.
pub(super) async fn file(
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
) -> Result<Response, Failure> {
    let Some((_, kind, text)) = FILES.iter().find(|(known, ..)| *known == name) else {
        return Err(routes::no_such_route(method, uri).await);
    };
    let mut response = ([(header::CONTENT_TYPE, *kind)], *text).into_response();
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}
