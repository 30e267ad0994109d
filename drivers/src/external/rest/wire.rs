//! One request, and its answer.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use nexus_actors::Env;
use nexus_kernel::hal::StoreError;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Method, Request};
use tokio::sync::{Semaphore, oneshot};

use super::super::failure::shortened;

/// How long connecting may take at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// The way to a server. What it needs of tokio runs in tasks of the I/O runtime of `Env`; who waits for an answer may be polled by anything.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) env: Env,
    http: reqwest::Client,
    places: Arc<Semaphore>,
    body_max: u64,
}

/// What a server answers.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// The request did not go out.
    NotSent(String),
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
        let http = reqwest::Client::builder()
            // Where a request goes with its credentials, the description says, and not a server.
            .redirect(Policy::none())
            .connect_timeout(CONNECT_MAX.min(connect))
            .user_agent(concat!("nexus/", env!("CARGO_PKG_VERSION")))
            .build();
        let http = http.map_err(|error| StoreError::Backend {
            what: "making an HTTP client".into(),
            cause: innermost(&error),
        })?;
        Ok(Self { env, http, places: Arc::new(Semaphore::new(concurrency)), body_max })
    }

    /// Sends it, and waits for all of the answer.
    pub(super) async fn exchange(&self, request: Request, limit: Duration) -> Result<Answer, Lost> {
        let (mut done, answer) = oneshot::channel();
        let began = Arc::new(AtomicBool::new(false));
        let (http, places, begins, body_max) =
            (self.http.clone(), self.places.clone(), began.clone(), self.body_max);
        let work = async move {
            // It is never closed.
            let _place = places.acquire_owned().await.ok();
            begins.store(true, Ordering::Release);
            exchange(&http, request, body_max).await
        };
        self.env.spawn("external.request", async move {
            let ended = match select(pin!(work), pin!(done.closed())).await {
                Either::Left((ended, _)) => Some(ended),
                Either::Right(_) => None,
            };
            if let Some(ended) = ended {
                // Who waited may have given up.
                let _ = done.send(ended);
            }
        });
        match self.env.timeout(limit, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Lost::Cut("its task has ended".into())),
            Err(_) if began.load(Ordering::Acquire) => Err(Lost::Late),
            Err(_) => Err(Lost::NotSent("other requests of this mount are under way".into())),
        }
    }
}

async fn exchange(http: &reqwest::Client, request: Request, body_max: u64) -> Result<Answer, Lost> {
    let has_body = request.method() != Method::HEAD;
    let mut response = http.execute(request).await.map_err(|error| {
        let cause = innermost(&error);
        if error.is_connect() || error.is_builder() { Lost::NotSent(cause) } else { Lost::Cut(cause) }
    })?;
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
    Ok(Answer { status, headers, body: body.freeze() })
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
