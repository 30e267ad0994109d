//! Azure Blob Storage.

use std::sync::Arc;

use nexus_kernel::hal::{DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError, StoreFuture};
use nexus_messages::syscall::MountSpec;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::client::Handles;
use super::factory::{Told, both, open_with, patience};
use super::options::{
    Settings, credential, flag, not_empty, option, said_by_env, secret, server, with_common,
};
use super::requests::Through;

const OPTIONS: &[DriverOption] = with_common![
    option("container", true, "the container"),
    option("account", false, "the storage account; from AZURE_STORAGE_ACCOUNT_NAME when not given"),
    option("endpoint", false, "the server, as a URL; Azure's own for the account when not given"),
    secret(
        "access_key",
        "the account's key, or env:NAME or file:PATH for where it is; when no credential is given, all come from the environment, a workload identity, or the machine's own"
    ),
    secret("sas_token", "a shared access signature, or env:NAME or file:PATH for where it is"),
    secret("bearer_token", "a token, or env:NAME or file:PATH for where it is"),
    option("tenant_id", false, "the tenant of a service principal"),
    option("client_id", false, "the id of a service principal"),
    secret("client_secret", "the secret of a service principal, or env:NAME or file:PATH for where it is"),
    option("anonymous", false, "true for requests that are not signed"),
    option("allow_http", false, "true to allow an endpoint with http://, which anybody on the way can read"),
];

/// Makes mounts of Azure's containers.
#[derive(Debug)]
pub(crate) struct Azure;

impl DriverFactory for Azure {
    fn name(&self) -> &str {
        "azure"
    }

    fn options(&self) -> &[DriverOption] {
        OPTIONS
    }

    fn elsewhere(&self) -> bool {
        true
    }

    fn settled(&self, spec: MountSpec) -> MountSpec {
        // Else the environment is not asked.
        if CREDENTIALS.iter().any(|(key, _)| spec.options.contains_key(*key)) {
            return spec;
        }
        let spec = said_by_env(spec, "account", &["AZURE_STORAGE_ACCOUNT_NAME"]);
        said_by_env(spec, "endpoint", &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"])
    }

    fn check(&self, spec: &MountSpec) -> Result<(), StoreError> {
        not_empty(spec, &["container", "account", "tenant_id", "client_id"])
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        open_with(spec, OPTIONS, context, told)
    }
}

/// The most blobs that one request deletes.
const BATCH_MAX: u16 = 256;

/// The options that are credentials, and what the library calls them.
const CREDENTIALS: [(&str, AzureConfigKey); 4] = [
    ("access_key", AzureConfigKey::AccessKey),
    ("sas_token", AzureConfigKey::SasKey),
    ("bearer_token", AzureConfigKey::Token),
    ("client_secret", AzureConfigKey::ClientSecret),
];

fn told(spec: &MountSpec, settings: &Settings) -> Result<Told, StoreError> {
    let mut given = Vec::new();
    for (key, theirs) in CREDENTIALS {
        given.extend(credential(spec, key)?.map(|secret| (key, theirs, secret)));
    }
    let anonymous = flag(spec, "anonymous")?;
    if let ([_, (second, ..), ..], _) | ([(second, ..)], true) = (&*given, anonymous) {
        let why = format!("{second} is given beside another way to sign, and one of them is meant");
        return Err(StoreError::BadOption { why });
    }
    let endpoint = server(spec, "endpoint")?;
    let (repeating, once) = both("Azure", |repeating| {
        let (client, retry) = patience(settings, repeating, flag(spec, "allow_http")?);
        // The environment's credentials must not mix with those that are given.
        let from =
            if given.is_empty() { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
        let mut builder = from
            .with_client_options(client)
            .with_retry(retry)
            .with_http_connector(Through)
            .with_skip_signature(anonymous);
        for (key, theirs) in [
            ("container", AzureConfigKey::ContainerName),
            ("account", AzureConfigKey::AccountName),
            ("tenant_id", AzureConfigKey::AuthorityId),
            ("client_id", AzureConfigKey::ClientId),
        ] {
            if let Some(text) = spec.options.get(key) {
                builder = builder.with_config(theirs, text);
            }
        }
        for (_, theirs, secret) in &given {
            builder = builder.with_config(*theirs, secret.expose());
        }
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint.to_owned());
        }
        Ok(builder.build())
    })?;
    let bulk = Some((repeating.clone() as Arc<dyn object_store::ObjectStore>, BATCH_MAX));
    let handles = Handles { marks: false, bulk, ..Handles::of(repeating, once, false) };
    Ok(Told { handles, secrets: given.into_iter().map(|(_, _, secret)| secret).collect(), read_only: false })
}
