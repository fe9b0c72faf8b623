//! `GET /openapi.json`: the description of this API, for tools that read OpenAPI.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

/// The description. What an answer looks like is tested against it (`tests/openapi`).
const DESCRIPTION: &str = include_str!("openapi.json");

/// Answers with the description.
pub(super) async fn describe() -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], DESCRIPTION).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::DESCRIPTION;

    #[test]
    fn every_route_is_described_and_no_other() {
        let described: Value = serde_json::from_str(DESCRIPTION).unwrap();
        let described = described["paths"].as_object().unwrap();
        let of_host = include_str!("../api.rs").split(".route(").skip(1);
        let routes: Vec<String> = of_host
            .map(|route| {
                let path = route.split('"').nth(1).unwrap();
                path.replace("{*", "{")
            })
            .collect();
        for route in &routes {
            assert!(described.contains_key(route), "{route} is not described");
        }
        let of_dialects = described.keys().filter(|path| !routes.contains(path));
        for path in of_dialects {
            let is_of_dialect = path.starts_with("/v1/") || path.starts_with("/api/");
            assert!(is_of_dialect, "there is no {path}");
        }
        assert_eq!(
            described["/v1/chat/completions"]["post"]["operationId"],
            "chat"
        );
    }
}
