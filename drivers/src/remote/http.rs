//! What a web server has, to be read.
//!
//! What is at a path is what the server answers there: many answer with a page where a folder is. Folders are listed by WebDAV, and on servers without it are
//! not: then listing is not supported, and files are reached by their paths.

use std::sync::Arc;

use nexus_kernel::hal::{DriverContext, DriverFactory, DriverOption, ObjectStore, StoreError, StoreFuture};
use nexus_messages::syscall::MountSpec;
use object_store::http::HttpBuilder;
use object_store::{HeaderMap, HeaderValue};

use super::factory::{Told, both, open_with, patience};
use super::handles::Handles;
use super::options::{Settings, credential, flag, option, secret, server, with_any};
use super::requests::Through;

const OPTIONS: &[DriverOption] = with_any![
    option("url", true, "where on the web it is"),
    secret("bearer_token", "a token for all requests, or env:NAME or file:PATH for where it is"),
    option("allow_http", false, "true to allow a url with http://, which anybody on the way can read"),
];

/// Makes mounts of web servers.
#[derive(Debug)]
pub(crate) struct Http;

impl DriverFactory for Http {
    fn name(&self) -> &str {
        "http"
    }

    fn options(&self) -> &[DriverOption] {
        OPTIONS
    }

    fn elsewhere(&self) -> bool {
        true
    }

    fn read_only(&self) -> bool {
        true
    }

    fn open(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Arc<dyn ObjectStore>> {
        // Nothing is changed there.
        open_with(spec, OPTIONS, context, told, &Arc::default())
    }
}

fn told(spec: &MountSpec, settings: &Settings) -> Result<Told, StoreError> {
    let token = credential(spec, "bearer_token")?;
    let mut headers = HeaderMap::new();
    if let Some(token) = &token {
        let bad = |_| StoreError::BadOption { why: "bearer_token: it cannot be a header".into() };
        let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose())).map_err(bad)?;
        header.set_sensitive(true);
        headers.insert("authorization", header);
    }
    let url = server(spec, "url")?.unwrap_or_default();
    let (repeating, once) = both("a web server", |repeating| {
        let (client, retry) = patience(settings, repeating, flag(spec, "allow_http")?);
        let client = client.with_default_headers(headers.clone());
        let builder = HttpBuilder::new().with_client_options(client).with_retry(retry);
        Ok(builder.with_http_connector(Through::WEB).with_url(url).build())
    })?;
    let handles =
        Handles { repeating, once, pages: None, parts: None, marks: false, barred: &[], bulk: None };
    Ok(Told { handles, secrets: token.into_iter().collect(), read_only: true })
}
