//! `claude-harness guest pull` and `guest push`: components from and to a registry of OCI images.
//!
//! The layout is that of the Wasm OCI artifact: one layer with the component, and a configuration that says what it
//! imports and exports. Other tools, such as `wkg`, read and write the same.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use basics::whole_file;
use clap::Args;
use futures_util::StreamExt as _;
use guests::admit::{COMPONENT_MAX, Interfaces, digest};
use oci_client::client::{ClientConfig, ClientProtocol, Config as ImageConfig, ImageLayer};
use oci_client::manifest::{OciDescriptor, OciImageManifest};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use serde_json::json;

use super::{block_on, component};
use crate::config::Config;

/// The media types of the layout.
const CONFIG_TYPE: &str = "application/vnd.wasm.config.v0+json";
const LAYER_TYPE: &str = "application/wasm";

/// The layer of images that tools of an earlier time made.
const EARLIER_LAYER_TYPE: &str = "application/vnd.wasm.content.layer.v1+wasm";

/// How long connecting to a registry may take, and how long it may be silent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the password for a registry is read from.
const PASSWORD_VARIABLE: &str = "CLAUDE_HARNESS_REGISTRY_PASSWORD";

/// How a registry is reached.
#[derive(Args, Debug)]
pub struct Access {
    /// The name to log in with; the password is in CLAUDE_HARNESS_REGISTRY_PASSWORD
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Speak HTTP without TLS. Registries on this machine need not be marked
    #[arg(long)]
    plain_http: bool,
}

/// Fetches a component, and puts it into the guests' folder if it would be loaded.
pub(super) fn pull(
    config: Config,
    reference: &str,
    name: Option<&str>,
    access: &Access,
) -> Result<()> {
    let image = parse(reference)?;
    let name = name.unwrap_or_else(|| {
        let repository = image.repository();
        repository.rsplit('/').next().unwrap_or(repository)
    });
    let (bytes, image_digest) = block_on(fetch(&image, access))?;
    let folder = config.guests.dir.clone();
    let to_try = tempfile::tempdir()?;
    let file = to_try.path().join(format!("{name}.wasm"));
    fs::write(&file, &bytes)?;
    println!("pulled {image}@{image_digest}");
    component::check(config.guests, &file)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let target = folder.join(format!("{name}.wasm"));
    // At once, so that a running service never sees half of it.
    whole_file::replace(&target, &bytes)
        .with_context(|| format!("cannot write {}", target.display()))?;
    println!("it is now {}", target.display());
    println!("allowed_digests = [\"sha256:{}\"]", digest(&bytes));
    Ok(())
}

/// Sends a component, if it would be loaded.
pub(super) fn push(config: Config, file: &Path, reference: &str, access: &Access) -> Result<()> {
    let image = parse(reference)?;
    ensure!(
        image.digest().is_none(),
        "`{reference}` names a digest, which only a pull can know: write a tag"
    );
    component::check(config.guests, file)?;
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let digest = block_on(send(&image, bytes, access))?;
    println!("pushed {image}@{digest}");
    Ok(())
}

/// Reads `oci://host/name:tag` or `host/name@sha256:…`. Without a host, other tools mean Docker's registry, which holds
/// no guests.
fn parse(reference: &str) -> Result<Reference> {
    let plain = reference.strip_prefix("oci://").unwrap_or(reference);
    let host = plain.split_once('/').map_or("", |(host, _)| host);
    let names_host = host.contains(['.', ':']) || host == "localhost";
    let read = plain.parse::<Reference>().ok().filter(|_| names_host);
    read.with_context(|| {
        format!(
            "`{reference}` is no reference: write oci://host/name:tag or oci://host/name@sha256:…"
        )
    })
}

/// A client for the registry of an image, and how it logs in.
fn client(image: &Reference, access: &Access) -> Result<(Client, RegistryAuth)> {
    let host = image.resolve_registry();
    let is_here =
        host.starts_with("localhost") || host.starts_with("127.") || host.starts_with("[::1]");
    let protocol = match is_here || access.plain_http {
        true => ClientProtocol::Http,
        false => ClientProtocol::Https,
    };
    let auth = match &access.user {
        None => RegistryAuth::Anonymous,
        Some(user) => {
            let password = std::env::var(PASSWORD_VARIABLE);
            let password = password.with_context(|| format!("{PASSWORD_VARIABLE} is not set"))?;
            RegistryAuth::Basic(user.clone(), password)
        }
    };
    let client = Client::new(ClientConfig {
        protocol,
        platform_resolver: None,
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: concat!("claude-harness/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    });
    Ok((client, auth))
}

/// A component, and the digest of its image.
async fn fetch(image: &Reference, access: &Access) -> Result<(Vec<u8>, String)> {
    let (client, auth) = client(image, access)?;
    let failed = || format!("cannot pull {image}");
    let manifest = client.pull_image_manifest(image, &auth).await;
    let (manifest, digest) = manifest.with_context(failed)?;
    let layer = component_layer(&manifest)?;
    let mut blob = client
        .pull_blob_stream(image, layer)
        .await
        .with_context(failed)?
        .stream;
    let mut bytes = Vec::new();
    while let Some(piece) = blob.next().await {
        bytes.extend(piece.with_context(failed)?);
        ensure!(
            bytes.len() as u64 <= COMPONENT_MAX,
            "the registry sends more than it said"
        );
    }
    Ok((bytes, digest))
}

/// The only layer of an image, which is the component.
fn component_layer(manifest: &OciImageManifest) -> Result<&OciDescriptor> {
    let [layer] = &manifest.layers[..] else {
        bail!(
            "the image has {} layers: one was expected, the component",
            manifest.layers.len()
        );
    };
    let kind = &*layer.media_type;
    ensure!(
        [LAYER_TYPE, EARLIER_LAYER_TYPE].contains(&kind),
        "the image holds no component, but `{kind}`"
    );
    let most = COMPONENT_MAX;
    ensure!(
        u64::try_from(layer.size).is_ok_and(|size| size <= most),
        "the component is larger than {} MiB",
        most >> 20
    );
    Ok(layer)
}

/// Sends a component, and returns the digest of its image.
async fn send(image: &Reference, bytes: Vec<u8>, access: &Access) -> Result<String> {
    let (client, auth) = client(image, access)?;
    let config = image_config(&bytes)?;
    let layers = [ImageLayer::new(bytes, LAYER_TYPE.into(), None)];
    let failed = || format!("cannot push {image}");
    client
        .auth(image, &auth, RegistryOperation::Push)
        .await
        .with_context(failed)?;
    let sent = client.push(image, &layers, config, &auth, None).await;
    sent.with_context(failed)?;
    let digest = client.fetch_manifest_digest(image, &auth).await;
    digest.with_context(failed)
}

/// What the image says of the component.
fn image_config(component: &[u8]) -> Result<ImageConfig> {
    let Interfaces { imports, exports } = Interfaces::read(component)?;
    let created = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let config = json!({
        "created": created,
        "architecture": "wasm",
        "os": "wasip2",
        "layerDigests": [format!("sha256:{}", digest(component))],
        "component": {"imports": imports, "exports": exports},
    });
    Ok(ImageConfig::new(
        config.to_string(),
        CONFIG_TYPE.into(),
        None,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_with_and_without_their_scheme() {
        let read = |reference| parse(reference).map(|image| image.to_string()).ok();
        assert_eq!(
            read("oci://127.0.0.1:5000/a/b:1").as_deref(),
            Some("127.0.0.1:5000/a/b:1")
        );
        assert_eq!(read("ghcr.io/a/b:1").as_deref(), Some("ghcr.io/a/b:1"));
        assert_eq!(read("redact:1"), None);
        assert_eq!(read("oci://ghcr.io/UPPER/case"), None);
    }

    #[test]
    fn an_image_is_one_component_of_bounded_size() {
        let layer = |media_type: &str, size| OciDescriptor {
            media_type: media_type.into(),
            size,
            ..OciDescriptor::default()
        };
        let image = |layers| OciImageManifest {
            layers,
            ..OciImageManifest::default()
        };
        let told = |image: OciImageManifest| {
            component_layer(&image)
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        assert_eq!(told(image(vec![layer(LAYER_TYPE, 5)])), Ok(()));
        assert!(told(image(vec![])).is_err_and(|what| what.contains("0 layers")));
        assert!(
            told(image(vec![layer("text/plain", 5)]))
                .is_err_and(|what| what.contains("text/plain"))
        );
        assert!(
            told(image(vec![layer(LAYER_TYPE, 65 << 20)]))
                .is_err_and(|what| what.contains("64 MiB"))
        );
        assert!(told(image(vec![layer(LAYER_TYPE, -1)])).is_err());
    }
}
