//! Which cryptography encrypted connections use.

/// Chooses `ring` for all clients of this process. If one was chosen before, that one stays.
pub(crate) fn choose() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
