//! Google Cloud Storage.
//!
//! There is no emulator of it that the library's client works with: what is tested is its way to a stub that speaks a part of the protocol, and not the service.

use std::sync::Arc;

use nexus_kernel::hal::{DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError, StoreFuture};
use nexus_messages::syscall::MountSpec;
use object_store::gcp::GoogleCloudStorageBuilder;

use super::doubts::Doubts;
use super::factory::{Told, both, open_with, patience};
use super::handles::Handles;
use super::options::{
    Settings, credential, flag, not_empty, option, said_by_env, secret, server, with_common,
};
use super::requests::Through;

const OPTIONS: &[DriverOption] = with_common![
    option("bucket", true, "the bucket"),
    option(
        "endpoint",
        false,
        "the server, as a URL; when not given, what GOOGLE_BASE_URL says when it is mounted, where the credentials come from the environment, too, or Google's own, whatever a key says"
    ),
    secret(
        "service_account_key",
        "a service account's key, as JSON, or env:NAME or file:PATH for where it is; when no credential is given, all come from the environment, the application's defaults, or the machine's own"
    ),
    secret("bearer_token", "a token, or env:NAME or file:PATH for where it is"),
    option("anonymous", false, "true for requests that are not signed"),
    option("allow_http", false, "true to allow an endpoint with http://, which anybody on the way can read"),
];

/// Google's own server.
const OWN: &str = "https://storage.googleapis.com";

/// Makes mounts of Google's buckets.
#[derive(Debug, Default)]
pub(crate) struct Gcs {
    doubts: Arc<Doubts>,
}

impl DriverFactory for Gcs {
    fn name(&self) -> &str {
        "gcs"
    }

    fn options(&self) -> &[DriverOption] {
        OPTIONS
    }

    fn elsewhere(&self) -> bool {
        true
    }

    fn located(&self, spec: MountSpec) -> MountSpec {
        let keys = ["service_account_key", "bearer_token"];
        let is_given = keys.iter().any(|key| spec.options.contains_key(*key));
        // Else the environment is not asked.
        match is_given || spec.options.get("anonymous").is_some_and(|anonymous| anonymous == "true") {
            true => spec,
            false => said_by_env(spec, "endpoint", &["GOOGLE_BASE_URL"]),
        }
    }

    fn check(&self, spec: &MountSpec) -> Result<(), StoreError> {
        not_empty(spec, &["bucket"])
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        open_with(spec, OPTIONS, context, told, &self.doubts)
    }
}

fn told(spec: &MountSpec, settings: &Settings) -> Result<Told, StoreError> {
    let (key, token) = (credential(spec, "service_account_key")?, credential(spec, "bearer_token")?);
    let anonymous = flag(spec, "anonymous")?;
    if [key.is_some(), token.is_some(), anonymous].into_iter().filter(|given| *given).count() > 1 {
        let why = "of service_account_key, bearer_token and anonymous, one is meant".into();
        return Err(StoreError::BadOption { why });
    }
    // Where the store is, is written down with the mount, whatever the environment, or a key, says of it.
    let endpoint = server(spec, "endpoint")?.unwrap_or(OWN);
    let (repeating, once) = both("Google Cloud Storage", |repeating| {
        let (client, retry) = patience(settings, repeating, flag(spec, "allow_http")?);
        // The environment's credentials must not mix with those that are given.
        let given = key.is_some() || token.is_some() || anonymous;
        let from =
            if given { GoogleCloudStorageBuilder::new() } else { GoogleCloudStorageBuilder::from_env() };
        let mut builder = from
            .with_client_options(client)
            .with_retry(retry)
            .with_http_connector(Through::STORE)
            .with_bucket_name(spec.options.get("bucket").map_or("", String::as_str))
            .with_skip_signature(anonymous)
            .with_base_url(endpoint);
        if let Some(key) = &key {
            builder = builder.with_service_account_key(key.expose());
        }
        if let Some(token) = &token {
            builder = builder.with_bearer_token(token.expose());
        }
        Ok(builder.build())
    })?;
    let handles = Handles::of(repeating, once, false);
    Ok(Told { handles, secrets: [key, token].into_iter().flatten().collect(), read_only: false })
}
