//! Azure Blob Storage.

use std::sync::Arc;

use nexus_kernel::hal::{DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError, StoreFuture};
use nexus_messages::syscall::MountSpec;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::doubts::Doubts;
use super::factory::{Told, both, open_with, patience};
use super::handles::Handles;
use super::options::{
    Settings, credential, flag, not_empty, option, said_by_env, secret, server, with_common,
};
use super::requests::Through;

const OPTIONS: &[DriverOption] = with_common![
    option("container", true, "the container"),
    option(
        "account",
        false,
        "the storage account; when not given, what AZURE_STORAGE_ACCOUNT_NAME says when it is mounted, where the credentials come from the environment, too"
    ),
    option(
        "endpoint",
        false,
        "the server, as a URL; when not given, what AZURE_STORAGE_ENDPOINT says when it is mounted, where the credentials come from the environment, too, or Azure's own for the account"
    ),
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
#[derive(Debug, Default)]
pub(crate) struct Azure {
    doubts: Arc<Doubts>,
}

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

    fn located(&self, spec: MountSpec) -> MountSpec {
        if has_credentials(&spec) {
            // Then the environment is not asked.
            return spec;
        }
        let spec = said_by_env(spec, "account", &["AZURE_STORAGE_ACCOUNT_NAME"]);
        said_by_env(spec, "endpoint", &["AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"])
    }

    fn check(&self, spec: &MountSpec) -> Result<(), StoreError> {
        not_empty(spec, &["container", "account", "tenant_id", "client_id"])?;
        let is_said = |name: &&str| std::env::var(name).is_ok_and(|text| is_yes(&text));
        match OTHER_SERVERS.iter().find(|name| is_said(name)) {
            Some(name) if !has_credentials(spec) && !spec.options.contains_key("endpoint") => {
                let why = format!("{name} is set, and endpoint is not given: say which server it is");
                Err(StoreError::BadOption { why })
            }
            _ => Ok(()),
        }
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        open_with(spec, OPTIONS, context, told, &self.doubts)
    }
}

/// A backslash becomes a slash there: it would be another key.
const BARRED: &[char] = &['\\'];

/// The most blobs that one request deletes.
const BATCH_MAX: u16 = 256;

/// The variables that name a server by saying yes: no mount can be told so.
const OTHER_SERVERS: [&str; 2] = ["AZURE_STORAGE_USE_EMULATOR", "AZURE_USE_FABRIC_ENDPOINT"];

/// Whether the library takes `text` for a yes.
fn is_yes(text: &str) -> bool {
    ["1", "true", "on", "yes", "y"].iter().any(|yes| text.eq_ignore_ascii_case(yes))
}

/// Whether the mount says with what it signs: then the environment is not asked.
fn has_credentials(spec: &MountSpec) -> bool {
    CREDENTIALS.iter().any(|(key, _)| spec.options.contains_key(*key))
}

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
    let Some(account) = spec.options.get("account") else {
        let why = "account is not given, nor was it by AZURE_STORAGE_ACCOUNT_NAME when it was mounted".into();
        return Err(StoreError::BadOption { why });
    };
    let own = || format!("https://{account}.blob.core.windows.net");
    let endpoint = server(spec, "endpoint")?.map_or_else(own, str::to_owned);
    let (repeating, once) = both("Azure", |repeating| {
        let (client, retry) = patience(settings, repeating, flag(spec, "allow_http")?);
        // The environment's credentials must not mix with those that are given.
        let from =
            if given.is_empty() { MicrosoftAzureBuilder::from_env() } else { MicrosoftAzureBuilder::new() };
        let mut builder = from
            .with_client_options(client)
            .with_retry(retry)
            .with_http_connector(Through::STORE)
            .with_skip_signature(anonymous)
            // Where the store is, is written down with the mount, whatever the environment says of it.
            .with_use_emulator(false)
            .with_endpoint(endpoint.clone());
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
        Ok(builder.build())
    })?;
    let bulk = Some((repeating.clone() as Arc<dyn object_store::ObjectStore>, BATCH_MAX));
    let handles = Handles { marks: false, barred: BARRED, bulk, ..Handles::of(repeating, once, false) };
    Ok(Told { handles, secrets: given.into_iter().map(|(_, _, secret)| secret).collect(), read_only: false })
}
