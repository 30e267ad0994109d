//! Tokens that are asked for by a refresh token (RFC 6749, section 6), and kept in memory. A refresh token that comes instead of the one before it is on the disk before the token that
//! came with it is used: a server may take the one before it no more.

use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use nexus_kernel::hal::{DriverContext, StoreError};
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Request, Url};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::super::failure::{of_the_backend, of_the_call};
use super::asks::encoded;
use super::kept::Kept;
use super::known::{Grant, Known};
use super::wire::{Lost, NO_PLACE, Wire};
use crate::secret::Secret;

/// How long before its end a token is not used any more, at most: a request that is on its way must be there in time.
const MARGIN_MAX: Duration = Duration::from_secs(30);

/// What a server says of a refresh token that it does not take, or not any more.
const INVALID_GRANT: &str = "invalid_grant";

/// What a server may say of why it gives no token (RFC 6749, section 5.2). Nothing else that it says is told on: it may repeat what it was sent.
const REASONS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    INVALID_GRANT,
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// After how long a server that refused is asked again: the first time, and at most. Each refusal in a row doubles it.
const REFUSED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// After how long a server that failed otherwise is asked again.
const FAILED: Duration = Duration::from_secs(1);

/// How long the answer with a token may be.
const TOKEN_BYTES_MAX: u64 = 256 * 1024;

const WHAT: &str = "asking for a token";

/// What a description gives to ask for tokens.
pub(super) struct Given {
    pub(super) token_url: Url,
    /// Its id, and its secret, when it has one.
    pub(super) client: (String, Option<Secret>),
    pub(super) refresh_token: Secret,
    pub(super) scope: Option<String>,
}

/// The tokens of one mount.
pub(super) struct OAuth {
    pub(super) wire: Arc<Wire>,
    given: Given,
    timeout: Duration,
    /// Where the latest refresh token outlives the process; none where nothing does.
    kept: Option<Kept>,
    /// That of the grant: another driver of the mount goes on with it.
    state: Arc<Mutex<State>>,
}

/// What is known of a grant.
pub(super) struct State {
    /// The latest one that came instead of the given one.
    rotated: Option<Secret>,
    /// Whether the given one is tried all the same: the server did not take the latest one.
    by_given: bool,
    held: Held,
    /// How long the latest refusal counts; zero after anything else.
    wait: Duration,
    /// For how long a token is not given up after it was granted, although it is not taken: longer each time that another one did not help either.
    unhealed: Duration,
}

/// What is there.
enum Held {
    Nothing,
    /// Somebody asks: all others wait for the same answer.
    Asking(Shared<BoxFuture<'static, Asked>>),
    Token(Arc<Token>),
    /// Why, and from when on it is worth asking again: who refuses a moment later, too, may lock the user out for it.
    Refused(String, Instant),
    /// What it did instead of an answer, and from when on it is asked again.
    Failed(StoreError, Instant),
}

/// What becomes of a token that a server does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// It was just granted, and others before it did not help: it stays.
    Not,
    /// Somebody else has found out before.
    Before,
    Now,
}

type Asked = Result<Arc<Token>, StoreError>;

/// Why no token came.
enum Failed {
    /// The server does not give one, and says so.
    Refused(String),
    Otherwise(StoreError),
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Otherwise(error)
    }
}

impl State {
    /// Keeps what came, and says how long a refusal counts.
    fn keep(&mut self, asked: &Result<Arc<Token>, Failed>, now: Instant) -> Duration {
        self.wait = match asked {
            Err(Failed::Refused(_)) => (self.wait * 2).clamp(REFUSED.0, REFUSED.1),
            _ => Duration::ZERO,
        };
        self.held = match asked {
            Ok(token) => Held::Token(token.clone()),
            Err(Failed::Refused(why)) => Held::Refused(why.clone(), now + self.wait),
            Err(Failed::Otherwise(error)) if error.is_backend_failure() => {
                Held::Failed(error.clone(), now + FAILED)
            }
            // It was not asked.
            Err(Failed::Otherwise(_)) => Held::Nothing,
        };
        self.wait
    }
}

fn refused(why: &str, wait: Duration) -> StoreError {
    let cause = format!("{why}; it is asked again in {wait:.1?} at the earliest");
    of_the_call(ErrorKind::PermissionDenied, WHAT, cause)
}

/// A token.
pub(super) struct Token {
    /// The value of the header.
    pub(super) header: HeaderValue,
    granted: Instant,
    until: Option<Instant>,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<serde_json::Value>,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl OAuth {
    /// Goes on with what is `known` of the grant.
    pub(super) async fn new(
        known: &Known<Mutex<State>>,
        wire: Arc<Wire>,
        given: Given,
        timeout: Duration,
        context: &DriverContext,
    ) -> Result<Self, StoreError> {
        let grant = Grant::of(&[
            Some(given.token_url.as_str()),
            Some(&given.client.0),
            given.client.1.as_ref().map(Secret::expose),
            Some(given.refresh_token.expose()),
            given.scope.as_deref(),
        ]);
        let kept = Kept::of(grant, context);
        let rotated = match &kept {
            Some(kept) => kept.read().await?,
            None => None,
        };
        let first = State {
            rotated,
            by_given: false,
            held: Held::Nothing,
            wait: Duration::ZERO,
            unhealed: Duration::ZERO,
        };
        let state = known.of(grant, Mutex::new(first));
        Ok(Self { wire, given, timeout, kept, state })
    }

    /// A token. However many want one at once, one is asked for; who waits no longer takes nothing along.
    pub(super) async fn token(self: &Arc<Self>) -> Asked {
        let asking = {
            let mut state = self.state.lock();
            match &state.held {
                Held::Token(token) if token.until.is_none_or(|until| self.wire.env.now() < until) => {
                    return Ok(token.clone());
                }
                Held::Refused(why, until) if self.wire.env.now() < *until => {
                    return Err(refused(why, until.saturating_duration_since(self.wire.env.now())));
                }
                Held::Failed(error, until) if self.wire.env.now() < *until => return Err(error.clone()),
                // One that has ended without saying so here was cut short.
                Held::Asking(asking) if asking.peek().is_none() => asking.clone(),
                _ => {
                    let asking = self.ask();
                    state.held = Held::Asking(asking.clone());
                    asking
                }
            }
        };
        asking.await
    }

    /// The server does not take `token`: it is not used again, unless others instead of it would not help.
    pub(super) fn expire(&self, token: &Arc<Token>) -> Expired {
        let mut state = self.state.lock();
        if !matches!(&state.held, Held::Token(held) if Arc::ptr_eq(held, token)) {
            return Expired::Before;
        }
        if self.wire.env.now() < token.granted + state.unhealed {
            return Expired::Not;
        }
        state.held = Held::Nothing;
        state.unhealed = (state.unhealed * 2).clamp(REFUSED.0, REFUSED.1);
        Expired::Now
    }

    /// The server takes the token that came instead of one that it did not take.
    pub(super) fn healed(&self) {
        self.state.lock().unhealed = Duration::ZERO;
    }

    /// Asks in a task of its own, which ends by itself: it goes on for those who wait, whoever of them gives up.
    fn ask(self: &Arc<Self>) -> Shared<BoxFuture<'static, Asked>> {
        let (done, answer) = oneshot::channel();
        let me = self.clone();
        self.wire.env.spawn("external.token", async move {
            let asked = me.granted().await;
            let wait = me.state.lock().keep(&asked, me.wire.env.now());
            let asked = asked.map_err(|failed| match failed {
                Failed::Refused(why) => refused(&why, wait),
                Failed::Otherwise(error) => error,
            });
            // Nobody may be waiting any more.
            let _ = done.send(asked);
        });
        let lost = |_| Err(of_the_backend(false, WHAT, "its task has ended"));
        async move { answer.await.unwrap_or_else(lost) }.boxed().shared()
    }

    /// Asks once: a refresh token may be good for one request alone.
    async fn granted(&self) -> Result<Arc<Token>, Failed> {
        let began = self.wire.env.now();
        // Whatever the bounds of contents are: a refresh token that came instead of the one that was used is not to be lost with its answer.
        let exchanged =
            self.wire.exchange_within(TOKEN_BYTES_MAX, self.request(), self.timeout, self.timeout);
        let answer = exchanged.await;
        let answer = answer.map_err(|lost| {
            let cause = match lost {
                Lost::Late => {
                    return StoreError::TimedOut { what: WHAT.into(), limit: self.timeout, changing: false };
                }
                Lost::NoPlace => return of_the_call(ErrorKind::ResourceBusy, WHAT, NO_PLACE),
                Lost::NotSent(cause) | Lost::Cut(cause) => cause,
                Lost::TooLarge => "the answer is too large".into(),
            };
            of_the_backend(false, WHAT, cause)
        })?;
        match answer.status {
            200 => {}
            400 | 401 | 403 => {
                let said = serde_json::from_slice(&answer.body).map(|refused: Refused| refused.error);
                let reason = REASONS.iter().find(|reason| said.as_deref().is_ok_and(|said| said == **reason));
                let reason = reason.copied().unwrap_or("it does not say why in words that are known");
                let cause = format!("the authorization server refuses ({}): {reason}", answer.status);
                if reason == INVALID_GRANT {
                    let mut state = self.state.lock();
                    state.by_given = !state.by_given;
                }
                return Err(Failed::Refused(cause));
            }
            status => {
                let cause = format!("the authorization server answers {status}");
                return Err(of_the_backend(false, WHAT, cause).into());
            }
        }
        let garbage = || of_the_backend(false, WHAT, "the authorization server answers what is no token");
        let granted: Granted = serde_json::from_slice(&answer.body).map_err(|_| garbage())?;
        let mut header =
            HeaderValue::from_str(&format!("Bearer {}", granted.access_token)).map_err(|_| garbage())?;
        header.set_sensitive(true);
        let seconds = granted.expires_in.and_then(|it| it.as_u64().or_else(|| it.as_str()?.parse().ok()));
        let until = seconds.and_then(|seconds| {
            let life = Duration::from_secs(seconds);
            began.checked_add(life.saturating_sub(MARGIN_MAX.min(life / 10)))
        });
        if let Some(rotated) = granted.refresh_token.filter(|rotated| !rotated.is_empty()) {
            self.rotate(Secret::new(rotated)).await;
        }
        Ok(Arc::new(Token { header, granted: self.wire.env.now(), until }))
    }

    /// From now on `rotated` is used instead of the refresh token that was.
    async fn rotate(&self, rotated: Secret) {
        let before = {
            let mut state = self.state.lock();
            state.by_given = false;
            state.rotated.replace(rotated.clone())
        };
        // Some give the same again.
        let Some(kept) = self.kept.as_ref().filter(|_| before.as_ref() != Some(&rotated)) else { return };
        if let Err(error) = kept.keep(rotated).await {
            tracing::warn!(%error, "the latest refresh token is not kept, and is forgotten with the process");
        }
    }

    fn request(&self) -> Request {
        let rotated = {
            let state = self.state.lock();
            state.rotated.clone().filter(|_| !state.by_given)
        };
        let refresh_token = rotated.as_ref().unwrap_or(&self.given.refresh_token);
        let (client_id, client_secret) = &self.given.client;
        let mut form = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
            ("client_id", client_id),
        ];
        form.extend(client_secret.as_ref().map(|secret| ("client_secret", secret.expose())));
        form.extend(self.given.scope.as_deref().map(|scope| ("scope", scope)));
        let pairs: Vec<String> =
            form.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        let mut request = Request::new(Method::POST, self.given.token_url.clone());
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(Body::from(pairs.join("&")));
        request
    }
}

impl fmt::Debug for OAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth").field("client_id", &self.given.client.0).finish_non_exhaustive()
    }
}
