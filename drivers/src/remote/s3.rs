//! S3, and what speaks like it.

use std::sync::Arc;

use nexus_kernel::hal::{DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError, StoreFuture};
use nexus_messages::syscall::MountSpec;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};

use super::doubts::Doubts;
use super::factory::{Told, both, one, open_with, patience};
use super::handles::Handles;
use super::options::{
    Settings, credential, flag, not_empty, option, said_by_env, secret, server, with_common,
};
use super::profile::Profile;
use super::requests::Through;
use crate::secret::Secret;

const OPTIONS: &[DriverOption] = with_common![
    option("bucket", true, "the bucket"),
    option(
        "endpoint",
        false,
        "the server, as a URL; when not given, what AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL says when it is mounted, where the credentials come from the environment, too, or Amazon's own for the region"
    ),
    option(
        "region",
        false,
        "the region; from AWS_REGION or AWS_DEFAULT_REGION, the profile that the credentials are of, or us-east-1, when not given"
    ),
    secret(
        "access_key",
        "the access key's id, or env:NAME or file:PATH for where it is; when not given, all credentials come from the environment, a web identity, the profile AWS_PROFILE or default in AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, or the machine's own"
    ),
    secret("secret_key", "the access key's secret, or env:NAME or file:PATH for where it is"),
    secret("session_token", "the token of a temporary access key, or env:NAME or file:PATH for where it is"),
    option("anonymous", false, "true for requests that are not signed"),
    option("path_style", false, "false for the bucket's name in the host's name; true when not given"),
    option("allow_http", false, "true to allow an endpoint with http://, which anybody on the way can read"),
];

/// Makes mounts of S3 buckets.
#[derive(Debug, Default)]
pub(crate) struct S3 {
    doubts: Arc<Doubts>,
}

impl DriverFactory for S3 {
    fn name(&self) -> &str {
        "s3"
    }

    fn options(&self) -> &[DriverOption] {
        OPTIONS
    }

    fn elsewhere(&self) -> bool {
        true
    }

    fn located(&self, spec: MountSpec) -> MountSpec {
        // Else the environment is not asked.
        match spec.options.contains_key("access_key") {
            true => spec,
            false => {
                said_by_env(spec, "endpoint", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"])
            }
        }
    }

    fn check(&self, spec: &MountSpec) -> Result<(), StoreError> {
        not_empty(spec, &["bucket", "region"])
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        open_with(spec, OPTIONS, context, told, &self.doubts)
    }
}

/// The most keys that one request deletes.
const DELETED_MAX: u16 = 1_000;

fn told(spec: &MountSpec, settings: &Settings) -> Result<Told, StoreError> {
    let given = Keys::of(spec)?;
    let profile = match given.are_given() || flag(spec, "anonymous")? {
        true => None,
        false => Profile::of_the_environment()?,
    };
    let (keys, region) = match profile {
        Some(Profile { access_key, secret_key, session_token, region: of_the_profile }) => {
            let (access_key, secret_key) = (Some(access_key), Some(secret_key));
            (Keys { access_key, secret_key, session_token }, region(spec).or(of_the_profile))
        }
        None => (given, region(spec)),
    };
    let path_style = !spec.options.contains_key("path_style") || flag(spec, "path_style")?;
    let endpoint = server(spec, "endpoint")?;
    let build = |repeating, bulk: bool| {
        let (client, retry) = patience(settings, repeating, flag(spec, "allow_http")?);
        // The environment's keys must not mix with those that are given.
        let from = if keys.are_given() { AmazonS3Builder::new() } else { from_env() };
        let mut builder = from
            .with_client_options(client)
            .with_retry(retry)
            .with_http_connector(Through::STORE)
            .with_bucket_name(spec.options.get("bucket").map_or("", String::as_str))
            .with_virtual_hosted_style_request(!path_style)
            .with_disable_bulk_delete(!bulk)
            .with_skip_signature(flag(spec, "anonymous")?);
        if let Some(region) = &region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(key) = &keys.access_key {
            builder = builder.with_access_key_id(key.expose());
        }
        if let Some(key) = &keys.secret_key {
            builder = builder.with_secret_access_key(key.expose());
        }
        if let Some(token) = &keys.session_token {
            builder = builder.with_token(token.expose());
        }
        Ok(builder.build())
    };
    let (repeating, once) = both("S3", |repeating| build(repeating, false))?;
    // A deletion of one key is the request that each server knows.
    let bulk = one("S3", build(true, true)?)?;
    let handles = Handles { bulk: Some((bulk, DELETED_MAX)), ..Handles::of(repeating, once, true) };
    Ok(Told { handles, secrets: keys.into_secrets(), read_only: false })
}

/// What the environment says of all but where the store is: that is written down with the mount.
fn from_env() -> AmazonS3Builder {
    let said = std::env::vars_os().filter_map(|(key, value)| {
        let key = key.into_string().ok().filter(|key| key.starts_with("AWS_"))?;
        Some((key.to_ascii_lowercase().parse().ok()?, value.into_string().ok()?))
    });
    let is_address = |key: &_| matches!(key, AmazonS3ConfigKey::Endpoint | AmazonS3ConfigKey::S3Endpoint);
    said.filter(|(key, _)| !is_address(key))
        .fold(AmazonS3Builder::new(), |builder, (key, value)| builder.with_config(key, value))
}

fn region(spec: &MountSpec) -> Option<String> {
    let from_env = || std::env::var("AWS_REGION").or_else(|_| std::env::var("AWS_DEFAULT_REGION")).ok();
    spec.options.get("region").cloned().or_else(from_env)
}

struct Keys {
    access_key: Option<Secret>,
    secret_key: Option<Secret>,
    session_token: Option<Secret>,
}

impl Keys {
    fn of(spec: &MountSpec) -> Result<Self, StoreError> {
        let keys = Self {
            access_key: credential(spec, "access_key")?,
            secret_key: credential(spec, "secret_key")?,
            session_token: credential(spec, "session_token")?,
        };
        let needs = |key: &str, other: &str| {
            Err(StoreError::BadOption { why: format!("{key} is given, and {other} is not: both are needed") })
        };
        match (&keys.access_key, &keys.secret_key, &keys.session_token) {
            (Some(_), None, _) => needs("access_key", "secret_key"),
            (None, Some(_), _) => needs("secret_key", "access_key"),
            (None, None, Some(_)) => needs("session_token", "access_key"),
            _ if keys.are_given() && flag(spec, "anonymous")? => Err(StoreError::BadOption {
                why: "anonymous is true, and access_key is given: one of them is meant".into(),
            }),
            _ => Ok(keys),
        }
    }

    fn are_given(&self) -> bool {
        self.access_key.is_some()
    }

    fn into_secrets(self) -> Vec<Secret> {
        [self.access_key, self.secret_key, self.session_token].into_iter().flatten().collect()
    }
}
