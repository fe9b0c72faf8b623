//! HTTP clients.

/// A client to be built. All crates of the workspace share one `reqwest`, which wants to know its cryptography even
/// where there is none.
pub fn client() -> reqwest::ClientBuilder {
    crate::tls::choose();
    reqwest::Client::builder().no_proxy()
}
