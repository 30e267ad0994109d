//! One request, and its answer.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use nexus_actors::Env;
use nexus_kernel::hal::StoreError;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Method, Request, Url};
use tokio::sync::{Semaphore, oneshot};

use super::super::failure::shortened;
use crate::here;
use crate::turn::Turn;

/// How long connecting may take at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The way to a server. What it needs of tokio runs in tasks of the I/O runtime of `Env`; who waits for an answer may be polled by anything.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) env: Env,
    http: reqwest::Client,
    /// For servers on this machine. No proxy is between: it would see credentials that nobody else is to see.
    here: reqwest::Client,
    places: Arc<Semaphore>,
    body_max: u64,
}

/// What is said of a request that did not come to its turn.
pub(super) const NO_PLACE: &str = "as many requests of this mount as may be are under way";

/// What a server answers.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a status means: some servers say to who asks too often that it is not allowed, and mark that as passing.
fn meant(status: u16, headers: &HeaderMap) -> u16 {
    if status == 403 && (headers.contains_key(RETRY_AFTER) || is_used_up(headers)) { 429 } else { status }
}

/// Whether the server says that no more may be asked for now.
pub(super) fn is_used_up(headers: &HeaderMap) -> bool {
    headers.get("x-ratelimit-remaining").is_some_and(|left| left.as_bytes() == b"0")
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// The request did not go out.
    NotSent(String),
    /// It did not come to its turn in time, and does not go out any more.
    NoPlace,
    /// It may have gone out.
    Cut(String),
    /// The time was up, with the request on its way.
    Late,
    /// The answer has more bytes than may be.
    TooLarge,
}

impl Wire {
    pub(super) fn new(
        env: Env,
        concurrency: usize,
        body_max: u64,
        connect: Duration,
    ) -> Result<Self, StoreError> {
        // The HTTP client takes the cryptography that the process has chosen. One that has chosen none gets ring; whoever was first has chosen.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            reqwest::Client::builder()
                // Where a request goes with its credentials, the description says, and not a server.
                .redirect(Policy::none())
                .connect_timeout(CONNECT_MAX.min(connect))
                .user_agent(concat!("nexus/", env!("CARGO_PKG_VERSION")))
        };
        let made = |made: Result<_, reqwest::Error>| {
            made.map_err(|error| StoreError::Backend {
                what: "making an HTTP client".into(),
                cause: innermost(&error),
            })
        };
        let (http, here) = (made(builder().build())?, made(builder().no_proxy().build())?);
        Ok(Self { env, http, here, places: Arc::new(Semaphore::new(concurrency)), body_max })
    }

    fn way_to(&self, url: &Url) -> &reqwest::Client {
        if is_here(url) { &self.here } else { &self.http }
    }

    /// Sends it, and waits for all of the answer, which must begin within `begins`, and end within `limit`.
    pub(super) async fn exchange(
        &self,
        request: Request,
        begins: Duration,
        limit: Duration,
    ) -> Result<Answer, Lost> {
        self.exchange_within(self.body_max, request, begins, limit).await
    }

    /// As [`exchange`](Self::exchange), of which the answer may have so many bytes.
    pub(super) async fn exchange_within(
        &self,
        body_max: u64,
        request: Request,
        begins: Duration,
        limit: Duration,
    ) -> Result<Answer, Lost> {
        let until = self.env.now() + limit;
        let (mut done, mut answer) = oneshot::channel();
        let (begun, has_begun) = oneshot::channel();
        let turn = Turn::default();
        let (http, places, goes) = (self.way_to(request.url()).clone(), self.places.clone(), turn.clone());
        let work = async move {
            // It is never closed.
            let _place = places.acquire_owned().await.ok();
            if goes.take() { Some(exchange(&http, request, body_max, begun).await) } else { None }
        };
        self.env.spawn("external.request", async move {
            let ended = match select(pin!(work), pin!(done.closed())).await {
                Either::Left((ended, _)) => ended,
                Either::Right(_) => None,
            };
            if let Some(ended) = ended {
                // Who waited may have given up.
                let _ = done.send(ended);
            }
        });
        let ended = match self.env.timeout(begins, select(&mut answer, has_begun)).await {
            Ok(Either::Left((ended, _))) => Ok(ended),
            Ok(Either::Right(_)) => {
                self.env.timeout(until.saturating_duration_since(self.env.now()), answer).await
            }
            Err(late) => Err(late),
        };
        match ended {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Lost::Cut("its task has ended".into())),
            Err(_) if turn.take() => Err(Lost::NoPlace),
            Err(_) => Err(Lost::Late),
        }
    }
}

async fn exchange(
    http: &reqwest::Client,
    request: Request,
    body_max: u64,
    begun: oneshot::Sender<()>,
) -> Result<Answer, Lost> {
    let has_body = request.method() != Method::HEAD;
    let mut response = http.execute(request).await.map_err(|error| {
        let cause = innermost(&error);
        if error.is_connect() || error.is_builder() { Lost::NotSent(cause) } else { Lost::Cut(cause) }
    })?;
    // Who waited may have given up.
    let _ = begun.send(());
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    if has_body && response.content_length().is_some_and(|length| length > body_max) {
        return Err(Lost::TooLarge);
    }
    let mut body = BytesMut::new();
    while let Some(piece) = response.chunk().await.map_err(|error| Lost::Cut(innermost(&error)))? {
        if (body.len() + piece.len()) as u64 > body_max {
            return Err(Lost::TooLarge);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status: meant(status, &headers), headers, body: body.freeze() })
}

/// Whether its server is on this machine.
pub(super) fn is_here(url: &Url) -> bool {
    url.host_str().is_some_and(here::is_here)
}

/// The innermost cause: what stands around it names requests in full.
fn innermost(error: &reqwest::Error) -> String {
    let mut source = error.source();
    let mut text = None;
    while let Some(error) = source {
        text = Some(error.to_string());
        source = error.source();
    }
    shortened(&text.unwrap_or_else(|| "the request failed".into()))
}
