//! An HTTP API as paths, by a description.
//!
//! | module | what it is |
//! |---|---|
//! | `description` | the file, field by field |
//! | `asks` | its routes, checked, and the URLs of paths |
//! | `client`, `wire` | requests: repeated when they may be, and one of them |
//! | `limiter` | how often may be asked |
//! | `oauth`, `known`, `kept` | tokens, what is known of them while drivers are replaced, and what of them outlives the process |
//! | `validated` | answers that are remembered, and never given before the server says that they are still so |
//! | `pages` | listings in pages |
//! | `errors` | what a server's statuses mean |
//!
//! A file is read whole, and held in memory: a part of it costs a request, which for a server with validators moves nothing when the whole is remembered.
//! Redirects are not followed. Credentials go in headers to the description's own server, and nowhere else.

mod asks;
mod client;
mod description;
mod errors;
mod kept;
mod known;
mod limiter;
mod oauth;
mod pages;
mod validated;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nexus_actors::Env;
use nexus_kernel::hal::{
    ConnectorCategory, DriverContext, DriverOption, ObjectInfo, StoreError, StoreFuture,
};
use nexus_messages::syscall::MountSpec;
use nexus_messages::{ContentId, EntryType, Timestamp};
use parking_lot::Mutex;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
    LAST_MODIFIED,
};
use reqwest::{Method, Url};

use self::asks::{RestAsks, header};
use self::client::{Answered, Ask, Client, Identity};
use self::description::{Auth, Description, Stat};
use self::errors::refused;
use self::known::Known;
use self::limiter::Limiter;
use self::oauth::{Given, OAuth};
use self::pages::Bounds;
use self::validated::Validated;
use self::wire::{Wire, is_here};
use super::description::{OPTIONS, Reading, read, settled};
use super::pattern::Vars;
use super::registry::{Connected, Connector};
use super::routes::Routes;
use super::tree::{self, Backend, Call, Listed, Tree};
use crate::secret::Secret;
use crate::times;

/// How long one operation may take, when nothing is said.
const TIMEOUT_MS: u64 = 30_000;

/// How many requests are under way at once, when nothing is said.
const CONCURRENCY: usize = 8;

/// How often a request that may be repeated is, when nothing is said.
const RETRIES: u32 = 3;

/// The most bytes of one answer and of what is written, when nothing is said; and the most that may be said.
const BODY_BYTES: (u64, u64) = (16 << 20, 1 << 30);

/// How much is remembered of answers, when nothing is said.
const CACHE_BYTES: u64 = 16 << 20;

/// The most pages of a listing, when nothing is said.
const PAGES: usize = 100;

/// The most names of a listing, when nothing is said; and the most that may be said.
const ITEMS: (usize, usize) = (10_000, 1_000_000);

/// Makes mounts of HTTP APIs.
#[derive(Debug, Clone, Default)]
pub struct Rest {
    /// Tokens outlive the driver of a mount.
    tokens: Arc<Known<Mutex<oauth::State>>>,
}

impl Connector for Rest {
    fn name(&self) -> &str {
        "rest"
    }

    fn categories(&self) -> &[ConnectorCategory] {
        &[ConnectorCategory::Api, ConnectorCategory::OAuth]
    }

    fn options(&self) -> &[DriverOption] {
        OPTIONS
    }

    fn settled(&self, spec: MountSpec) -> MountSpec {
        settled(spec)
    }

    fn connect(&self, spec: &MountSpec, context: DriverContext) -> StoreFuture<'static, Connected> {
        let (spec, tokens) = (spec.clone(), self.tokens.clone());
        Box::pin(async move {
            if context.env.is_simulated() {
                return Err(StoreError::NotSupported { what: "a server in a simulation" });
            }
            let plan = read(&spec, &context, Plan::of).await?;
            plan.connect(&context, &tokens).await
        })
    }
}

/// What a description comes to, checked, before anything is connected.
struct Plan {
    base: Url,
    headers: HeaderMap,
    who: Who,
    routes: Routes<RestAsks>,
    probe: Option<asks::Place>,
    parameters: BTreeMap<String, String>,
    timeout: Duration,
    retries: u32,
    concurrency: usize,
    body_max: u64,
    cache_bytes: u64,
    bounds: Bounds,
    rate: Option<(u32, Duration, u32)>,
}

enum Who {
    Nobody,
    Header(reqwest::header::HeaderName, HeaderValue),
    OAuth(Given),
}

impl Plan {
    fn of(described: Description, reading: Reading) -> Result<Self, StoreError> {
        let allow_http = described.allow_http;
        let base = server(&reading, "base", &described.base, allow_http)?;
        if base.query().is_some() {
            return Err(reading.wrong("base", "it must have no query: each route has its own"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in &described.headers {
            let field = format!("headers.{name}");
            let value = reading.plain(&field, value)?;
            let value =
                HeaderValue::from_str(&value).map_err(|_| reading.wrong(&field, "it cannot be a header"))?;
            headers.insert(header(&reading, &field, name)?, value);
        }
        let limits = &described.limits;
        let number = |field: &str, given, range, unsaid| {
            reading.number(&format!("limits.{field}"), given, range, unsaid)
        };
        let count = |field: &str, given, range, unsaid| {
            reading.number(&format!("limits.{field}"), given, range, unsaid)
        };
        let rate = described.rate.map(|rate| {
            let requests = reading.number("rate.requests", Some(rate.requests), 1..=1_000_000, 1)?;
            let per = reading.number("rate.per_ms", Some(rate.per_ms), 1..=86_400_000, 1)?;
            let burst = reading.number("rate.burst", rate.burst, 1..=1_000_000, 1)?;
            Ok((requests, Duration::from_millis(per), burst))
        });
        Ok(Self {
            routes: asks::routes(&reading, &base, described.route)?,
            probe: asks::probe(&reading, &base, described.probe)?,
            who: who(&reading, described.auth, allow_http)?,
            base,
            headers,
            timeout: Duration::from_millis(number(
                "timeout_ms",
                limits.timeout_ms,
                100..=86_400_000,
                TIMEOUT_MS,
            )?),
            retries: reading.number("limits.retries", limits.retries, 0..=20, RETRIES)?,
            concurrency: count("concurrency", limits.concurrency, 1..=1_024, CONCURRENCY)?,
            body_max: number("body_bytes", limits.body_bytes, 1..=BODY_BYTES.1, BODY_BYTES.0)?,
            cache_bytes: number("cache_bytes", limits.cache_bytes, 0..=BODY_BYTES.1, CACHE_BYTES)?,
            bounds: Bounds {
                pages: count("pages", limits.pages, 1..=100_000, PAGES)?,
                items: count("items", limits.items, 1..=ITEMS.1, ITEMS.0)?,
            },
            rate: rate.transpose()?,
            parameters: reading.parameters,
        })
    }

    async fn connect(
        self,
        context: &DriverContext,
        tokens: &Known<Mutex<oauth::State>>,
    ) -> Result<Connected, StoreError> {
        let wire =
            Arc::new(Wire::new(context.env.clone(), self.concurrency, self.body_max, self.timeout / 3)?);
        let (category, identity) = match self.who {
            Who::Nobody => (ConnectorCategory::Api, Identity::Nobody),
            Who::Header(name, value) => (ConnectorCategory::Api, Identity::Header(name, value)),
            Who::OAuth(given) => {
                let oauth = OAuth::new(tokens, wire.clone(), given, self.timeout / 2, context).await?;
                (ConnectorCategory::OAuth, Identity::OAuth(Arc::new(oauth)))
            }
        };
        let client = Client {
            wire,
            identity,
            headers: self.headers,
            limiter: Mutex::new(Limiter::new(self.rate)),
            kept: Validated::new(self.cache_bytes),
            timeout: self.timeout,
            retries: self.retries,
            welcome: Mutex::default(),
        };
        let api = Api {
            client,
            base: self.base,
            probe: self.probe,
            parameters: self.parameters,
            body_max: self.body_max,
            bounds: self.bounds,
        };
        Ok(Connected { category, store: Arc::new(Tree::new(api, self.routes)) })
    }
}

fn who(reading: &Reading, auth: Option<Auth>, allow_http: bool) -> Result<Who, StoreError> {
    let value = |field: &str, before: &str, secret: &Secret| {
        let text = format!("{before}{}", secret.expose());
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| reading.wrong(field, "it cannot be a header"))?;
        value.set_sensitive(true);
        Ok::<_, StoreError>(value)
    };
    Ok(match auth {
        None => Who::Nobody,
        Some(Auth::Header { name, value: place, before }) => {
            let secret = reading.secret("auth.value", &place)?;
            Who::Header(header(reading, "auth.name", &name)?, value("auth.value", &before, &secret)?)
        }
        Some(Auth::Bearer { token }) => {
            let secret = reading.secret("auth.token", &token)?;
            Who::Header(AUTHORIZATION, value("auth.token", "Bearer ", &secret)?)
        }
        Some(Auth::OAuth2 { token_url, client_id, client_secret, refresh_token, scope }) => {
            let secret =
                client_secret.map(|place| reading.secret("auth.client_secret", &place)).transpose()?;
            Who::OAuth(Given {
                token_url: server(reading, "auth.token_url", &token_url, allow_http)?,
                client: (reading.plain("auth.client_id", &client_id)?, secret),
                refresh_token: reading.secret("auth.refresh_token", &refresh_token)?,
                scope,
            })
        }
    })
}

/// A URL of a server. Neither credentials in it nor a connection that anybody can read is taken by mistake.
fn server(reading: &Reading, field: &str, text: &str, allow_http: bool) -> Result<Url, StoreError> {
    let text = reading.plain(field, text)?;
    let must_be = |what: &str| Err(reading.wrong(field, format!("it must be {what}")));
    let Ok(url) = Url::parse(&text) else { return must_be("a URL, with http:// or https:// before it") };
    match url.scheme() {
        // It is not repeated: what stands before the host may be a password.
        _ if !url.username().is_empty() || url.password().is_some() => {
            must_be("a URL without a user's name or password")
        }
        _ if url.fragment().is_some() => must_be("a URL without a fragment"),
        "https" => Ok(url),
        "http" if allow_http || is_here(&url) => Ok(url),
        "http" => {
            must_be("a URL with https://, unless allow_http is true: anybody on the way can read http://")
        }
        _ => must_be("a URL with http:// or https:// before it"),
    }
}

/// An API that is asked.
#[derive(Debug)]
struct Api {
    client: Client,
    base: Url,
    probe: Option<asks::Place>,
    parameters: BTreeMap<String, String>,
    body_max: u64,
    bounds: Bounds,
}

impl Api {
    fn url(&self, place: &asks::Place, call: &Call<'_, RestAsks>) -> Result<Url, StoreError> {
        place.url(&self.base, &call.vars, &self.parameters)
    }

    /// What a file is whose answer had these headers, and this content if it was read.
    fn info(headers: &HeaderMap, size: u64, content: Option<&[u8]>, stat: Stat) -> ObjectInfo {
        let said = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let modified = said(LAST_MODIFIED).and_then(times::parsed);
        let (tag, told_apart) = match (said(ETAG), modified, content) {
            (Some(etag), _, _) => (tree::tag_of(etag), true),
            (None, Some(modified), _) if stat != Stat::Read => {
                (tree::tag_by_time(size, modified), times::is_dated(headers))
            }
            (None, _, Some(content)) => (tree::tag_of_content(content), true),
            (None, modified, None) => (tree::tag_by_time(size, modified.unwrap_or(Timestamp(0))), false),
        };
        let mut info = ObjectInfo::new(EntryType::Reg, size, tag, modified.unwrap_or(Timestamp(0)));
        info.told_apart = told_apart;
        info
    }

    /// Asks what the description names for that.
    async fn probe_at(&self, place: &asks::Place) -> Result<(), StoreError> {
        let url = place.url(&self.base, &Vars::new(), &self.parameters)?;
        let path = url.path().to_owned();
        let deadline = self.env().now() + self.client.timeout;
        match self.client.get(url, place.accept.as_ref(), "asking for", &path, deadline).await {
            Err(error) if self.finds_out_nothing(&error) => Ok(()),
            asked => asked.map(drop),
        }
    }

    /// Whether a probe that fails so says nothing against the server: whoever may not ask now finds out nothing, and nobody is asked without a token. That there is
    /// none `trouble` tells; another driver would not get one either.
    fn finds_out_nothing(&self, error: &StoreError) -> bool {
        let is_busy = matches!(error, StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::ResourceBusy);
        is_busy || self.client.is_refused_a_token()
    }

    async fn get(&self, call: &Call<'_, RestAsks>) -> Result<(Bytes, ObjectInfo), StoreError> {
        let Some(place) = &call.asks.read else {
            return Err(StoreError::NotSupported { what: "reading there" });
        };
        let (url, accept) = (self.url(place, call)?, place.accept.as_ref());
        let page = self.client.get(url, accept, "reading", call.path, call.deadline).await?;
        let size = page.body.len() as u64;
        let info = Self::info(&page.headers, size, Some(&page.body), call.asks.stat);
        Ok((page.body.clone(), info))
    }

    async fn head(&self, call: &Call<'_, RestAsks>) -> Result<Option<ObjectInfo>, StoreError> {
        if let (Some(place), Stat::Head) = (&call.asks.read, call.asks.stat) {
            let mut ask = Ask::look(Method::HEAD, self.url(place, call)?, "looking at", call.path);
            ask.headers.extend(place.accept.iter().map(|accept| (ACCEPT, accept.clone())));
            let Answered { answer, .. } = self.client.ask(&ask, call.deadline).await?;
            let length =
                answer.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
            let is_told_apart = [ETAG, LAST_MODIFIED].iter().any(|name| answer.headers.contains_key(name));
            match (answer.status, length) {
                (200 | 203 | 204, Some(size)) if is_told_apart => {
                    return Ok(Some(Self::info(&answer.headers, size, None, Stat::Head)));
                }
                // What it does not tell so, or not enough of, it tells who reads.
                (200 | 203 | 204 | 405 | 501, _) => {}
                (404 | 410, _) => return Ok(None),
                (status, _) => return Err(refused(status, &ask.in_words(), call.path, false)),
            }
        }
        match self.get(call).await {
            Ok((_, info)) => Ok(Some(info)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is remembered of the file is not so any more.
    fn forget(&self, call: &Call<'_, RestAsks>) {
        if let Some(place) = &call.asks.read
            && let Ok(url) = self.url(place, call)
        {
            self.client.forget(&url, place.accept.as_ref());
        }
    }

    async fn put(
        &self,
        call: &Call<'_, RestAsks>,
        data: &[Bytes],
        exclusive: bool,
    ) -> Result<Option<ContentId>, StoreError> {
        let Some(write) = &call.asks.write else {
            return Err(StoreError::NotSupported { what: "writing there" });
        };
        let url = self.url(&write.place, call)?;
        let exclusive = exclusive && write.if_none_match;
        let is_put = write.method == Method::PUT;
        let ask = Ask {
            headers: write
                .content_type
                .iter()
                .map(|value| (CONTENT_TYPE, value.clone()))
                .chain(exclusive.then(|| (IF_NONE_MATCH, HeaderValue::from_static("*"))))
                .collect(),
            body: Some(tree::joined(data, self.body_max, call.path)?),
            // One that is not to replace anything would be refused because of itself.
            repeatable: is_put && !exclusive,
            ..Ask::look(write.method.clone(), url, "writing", call.path)
        };
        let answered = self.client.ask(&ask, call.deadline).await;
        self.forget(call);
        let answered = answered?;
        match answered.answer.status {
            200..=299 => {
                let same_place = self.url(call.asks.read.as_ref().unwrap_or(&write.place), call)? == ask.url;
                let etag = answered.answer.headers.get(ETAG).and_then(|value| value.to_str().ok());
                Ok(etag.filter(|_| is_put && same_place).map(tree::tag_of))
            }
            409 if exclusive => Err(StoreError::Exists { what: call.path.into() }),
            _ => Err(answered.refused(&ask)),
        }
    }

    async fn remove(&self, call: &Call<'_, RestAsks>) -> Result<(), StoreError> {
        let Some((method, place)) = &call.asks.delete else {
            return Err(StoreError::NotSupported { what: "deleting there" });
        };
        let ask = Ask {
            repeatable: *method == Method::DELETE,
            ..Ask::look(method.clone(), self.url(place, call)?, "deleting", call.path)
        };
        let answered = self.client.ask(&ask, call.deadline).await;
        self.forget(call);
        let answered = answered?;
        match answered.answer.status {
            200..=299 => Ok(()),
            // The first one may have done it.
            404 | 410 if answered.repeated => Ok(()),
            _ => Err(answered.refused(&ask)),
        }
    }
}

impl Backend for Api {
    type Asks = RestAsks;

    fn env(&self) -> &Env {
        self.client.env()
    }

    fn limit(&self) -> Duration {
        self.client.timeout
    }

    fn stat<'a>(&'a self, call: &'a Call<'a, RestAsks>) -> StoreFuture<'a, Option<ObjectInfo>> {
        Box::pin(self.head(call))
    }

    fn read<'a>(&'a self, call: &'a Call<'a, RestAsks>) -> StoreFuture<'a, (Bytes, ObjectInfo)> {
        Box::pin(self.get(call))
    }

    fn write<'a>(
        &'a self,
        call: &'a Call<'a, RestAsks>,
        data: &'a [Bytes],
        exclusive: bool,
    ) -> StoreFuture<'a, Option<ContentId>> {
        Box::pin(self.put(call, data, exclusive))
    }

    fn delete<'a>(&'a self, call: &'a Call<'a, RestAsks>) -> StoreFuture<'a, ()> {
        Box::pin(self.remove(call))
    }

    fn list<'a>(&'a self, call: &'a Call<'a, RestAsks>, enough: usize) -> StoreFuture<'a, Listed> {
        Box::pin(async move {
            let Some(list) = &call.asks.list else {
                return Err(StoreError::NotADirectory { what: call.path.into() });
            };
            let first = self.url(&list.place, call)?;
            pages::listed(&self.client, list, first, call.path, enough, self.bounds, call.deadline).await
        })
    }

    fn trouble(&self) -> Option<String> {
        self.client.trouble()
    }

    fn probe(&self) -> StoreFuture<'_, ()> {
        Box::pin(async {
            if let Some(place) = &self.probe {
                return self.probe_at(place).await;
            }
            let ask = Ask::look(Method::HEAD, self.base.clone(), "asking", "");
            let deadline = self.env().now() + self.client.timeout;
            // At the base there may be nothing that this mount is to see.
            let Answered { answer, .. } = match self.client.answer(&ask, deadline).await {
                Err(error) if self.finds_out_nothing(&error) => return Ok(()),
                asked => asked?,
            };
            match answer.status {
                500.. if answer.status != 501 => {
                    Err(refused(answer.status, "asking whether it is there", "", false))
                }
                // Whatever it says of the base: it answers.
                _ => Ok(()),
            }
        })
    }
}
