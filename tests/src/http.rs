//! HTTP clients.

/// A client to be built. All crates of the workspace share one `reqwest`, which wants to know its cryptography even
/// where there is none.
pub fn client() -> reqwest::ClientBuilder {
    // Fails if it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}
