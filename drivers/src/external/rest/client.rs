//! Requests of one mount: within the rate, in somebody's name, repeated when they may be, and over by a deadline.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use nexus_actors::Env;
use nexus_kernel::hal::StoreError;
use parking_lot::Mutex;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER,
};
use reqwest::{Body, Method, Request, Url};

use super::super::failure::{of_the_backend, of_the_call};
use super::errors::refused;
use super::limiter::{Limiter, Slot};
use super::oauth::{Expired, OAuth, Token};
use super::validated::{Page, Validated};
use super::wire::{Answer, Lost, NO_PLACE, Wire, is_used_up};
use crate::times;

/// The first wait before a repetition, and the longest one. Each is somewhere between half and one and a half of three times the one before.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// How long a server may have all of a mount wait, whatever it says.
const PAUSE_MAX: Duration = Duration::from_secs(60 * 60);

/// In whose name is asked.
#[derive(Debug)]
pub(super) enum Identity {
    Nobody,
    Header(HeaderName, HeaderValue),
    OAuth(Arc<OAuth>),
}

/// The requests of one mount.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) wire: Arc<Wire>,
    pub(super) identity: Identity,
    pub(super) headers: HeaderMap,
    pub(super) limiter: Mutex<Limiter>,
    pub(super) kept: Validated,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) welcome: Mutex<Welcome>,
}

/// Whether the server lets this mount ask.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    /// It did so once.
    is_known: bool,
    /// What it says since it does not.
    refused: Option<String>,
    /// What the authorization server says since it gives no token.
    no_token: Option<String>,
}

impl Welcome {
    /// Takes what an answer says of it. Who is not known is told 401 by most servers, and 403 by some. Once something was allowed, 403 is of the one place that was asked for.
    fn take(&mut self, status: u16, refusal: impl FnOnce() -> String) {
        match status {
            200..=399 => *self = Self { is_known: true, ..Self::default() },
            401 => self.refused = Some(refusal()),
            403 if !self.is_known => self.refused = Some(refusal()),
            _ => {}
        }
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<Bytes>,
    /// Whether doing it twice is doing it once.
    pub(super) repeatable: bool,
    /// What is being done, and to which path.
    pub(super) what: &'static str,
    pub(super) path: &'a str,
}

/// What an answer is, and whether one that was lost may have gone before it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) answer: Answer,
    pub(super) repeated: bool,
}

impl Answered {
    /// What it means that the server refuses `ask`. After an answer that was lost it may do so because of what it did then.
    pub(super) fn refused(&self, ask: &Ask<'_>) -> StoreError {
        let (status, what) = (self.answer.status, ask.in_words());
        match self.repeated {
            true => of_the_backend(true, what, format!("the server answers {status}, and was asked before")),
            false => refused(status, &what, ask.path, ask.changing()),
        }
    }
}

impl<'a> Ask<'a> {
    pub(super) fn look(method: Method, url: Url, what: &'static str, path: &'a str) -> Self {
        Self { method, url, headers: Vec::new(), body: None, repeatable: true, what, path }
    }

    fn changing(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD)
    }

    pub(super) fn in_words(&self) -> String {
        format!("{} {:?}", self.what, self.path)
    }

    fn request(&self, client: &Client, token: Option<&Token>) -> Request {
        let mut request = Request::new(self.method.clone(), self.url.clone());
        let headers = request.headers_mut();
        headers.clone_from(&client.headers);
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        match (&client.identity, token) {
            (Identity::Header(name, value), _) => drop(headers.insert(name, value.clone())),
            (_, Some(token)) => drop(headers.insert(AUTHORIZATION, token.header.clone())),
            _ => {}
        }
        *request.body_mut() = self.body.clone().map(Body::from);
        request
    }
}

/// A request that waits until the rate lets it go. Dropping it takes it back.
struct Waiting<'a> {
    limiter: &'a Mutex<Limiter>,
    slot: Option<Slot>,
}

impl Waiting<'_> {
    /// Whether it goes, now that its wait is over.
    fn goes(mut self) -> bool {
        self.slot.take().is_some_and(|slot| self.limiter.lock().go(&slot))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.limiter.lock().give_back(&slot);
        }
    }
}

impl Client {
    pub(super) fn env(&self) -> &Env {
        &self.wire.env
    }

    fn left(&self, deadline: Instant) -> Duration {
        deadline.saturating_duration_since(self.env().now())
    }

    /// Waits until the rate lets a request go.
    async fn admitted(&self, ask: &Ask<'_>, deadline: Instant) -> Result<(), StoreError> {
        loop {
            let slot = self.limiter.lock().admit(self.env().now(), self.left(deadline));
            let slot = slot.map_err(|wait| {
                let why = format!("it would have to wait for {wait:?}, so that it is not asked too often");
                of_the_call(ErrorKind::ResourceBusy, ask.in_words(), why)
            })?;
            let wait = slot.wait;
            let waiting = Waiting { limiter: &self.limiter, slot: Some(slot) };
            if !wait.is_zero() {
                self.env().sleep(wait).await;
            }
            if waiting.goes() {
                return Ok(());
            }
        }
    }

    /// In whose name is asked, where that takes a token.
    async fn token(
        &self,
        ask: &Ask<'_>,
        deadline: Instant,
    ) -> Result<Option<(&Arc<OAuth>, Arc<Token>)>, StoreError> {
        let Identity::OAuth(oauth) = &self.identity else { return Ok(None) };
        let token = self.env().timeout(self.left(deadline), oauth.token()).await;
        let token = token.unwrap_or_else(|_| Err(self.late(ask, false)));
        match &token {
            Ok(_) => self.welcome.lock().no_token = None,
            Err(error) if error.kind() == nexus_messages::ErrorKind::PermissionDenied => {
                self.welcome.lock().no_token = Some(error.to_string());
            }
            Err(_) => {}
        }
        Ok(Some((oauth, token?)))
    }

    /// Whether the authorization server gives no token, and says so.
    pub(super) fn is_refused_a_token(&self) -> bool {
        self.welcome.lock().no_token.is_some()
    }

    /// What the server says to whoever asks in this mount's name, while it says no.
    pub(super) fn trouble(&self) -> Option<String> {
        let welcome = self.welcome.lock();
        welcome.no_token.as_ref().or(welcome.refused.as_ref()).cloned()
    }

    /// As [`answer`](Self::answer), and takes note of whether it lets this mount ask.
    pub(super) async fn ask(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Answered, StoreError> {
        let ended = self.answer(ask, deadline).await;
        if let Ok(Answered { answer, .. }) = &ended {
            let refusal = || refused(answer.status, &ask.in_words(), ask.path, false).to_string();
            self.welcome.lock().take(answer.status, refusal);
        }
        ended
    }

    /// Asks, and gives any answer that is not to be asked for again.
    pub(super) async fn answer(&self, ask: &Ask<'_>, deadline: Instant) -> Result<Answered, StoreError> {
        let (mut tries, mut renewed, mut maybe_done) = (0, None, false);
        // Whatever keeps it from being asked again, what was asked before may have been done.
        let not_again = |error: StoreError, maybe_done: bool| match maybe_done {
            true => of_the_backend(true, ask.in_words(), format!("an answer was lost, and then: {error}")),
            false => error,
        };
        loop {
            self.admitted(ask, deadline).await.map_err(|error| not_again(error, maybe_done))?;
            let token = self.token(ask, deadline).await.map_err(|error| not_again(error, maybe_done))?;
            let left = self.left(deadline);
            if left.is_zero() {
                return Err(self.late(ask, maybe_done));
            }
            // A look whose answer does not begin is asked again while there is time. A change has all of it: one that is still under way might be done behind its
            // repetition, and behind what comes after that.
            let begins = if ask.changing() { left } else { left.min(self.timeout / 3) };
            let request = ask.request(self, token.as_ref().map(|(_, token)| &**token));
            let ended = self.wire.exchange(request, begins, left).await;
            if let (Some((oauth, token)), Ok(answer)) = (&token, &ended) {
                match (answer.status, renewed) {
                    (401, None) => {
                        // It may be over before its time. The server has done nothing.
                        let expired = oauth.expire(token);
                        renewed = Some(expired);
                        if expired != Expired::Not {
                            continue;
                        }
                    }
                    (401, _) => {}
                    (_, Some(Expired::Now)) => oauth.healed(),
                    _ => {}
                }
            }
            tries += 1;
            let wait = self.wait_after(&ended, ask, tries);
            let repeated = maybe_done;
            maybe_done |= ask.changing()
                && match &ended {
                    Ok(answer) => answer.status == 408 || answer.status >= 500,
                    Err(lost) => matches!(lost, Lost::Cut(_) | Lost::Late),
                };
            match wait.filter(|wait| tries <= self.retries && *wait < self.left(deadline)) {
                Some(wait) => self.env().sleep(wait).await,
                None => {
                    let answer = ended.map_err(|lost| self.lost(lost, ask, maybe_done))?;
                    return Ok(Answered { answer, repeated });
                }
            }
        }
    }

    /// How long to wait before it is asked again; none when it is not to be. A change is when it was not sent, or its server says that it wants it later: of all else it may be
    /// under way still, also when something that stands before the server has answered for it, and would be done behind its repetition.
    fn wait_after(&self, ended: &Result<Answer, Lost>, ask: &Ask<'_>, tries: u32) -> Option<Duration> {
        let backoff = self.backoff(tries);
        match ended {
            Err(Lost::NotSent(_) | Lost::NoPlace) => Some(backoff),
            Err(Lost::Cut(_) | Lost::Late) => (!ask.changing()).then_some(backoff),
            Err(Lost::TooLarge) => None,
            Ok(answer) => {
                let asked_for = matches!(answer.status, 429 | 503).then(|| self.retry_after(&answer.headers));
                if let Some(Some(wait)) = asked_for
                    && let Some(until) = self.env().now().checked_add(wait.min(PAUSE_MAX))
                {
                    self.limiter.lock().pause(until);
                    // Refused before it was done, says 429.
                    return (ask.repeatable || answer.status == 429).then_some(wait);
                }
                match answer.status {
                    429 => Some(backoff),
                    408 | 500 | 502 | 503 | 504 => (!ask.changing()).then_some(backoff),
                    _ => None,
                }
            }
        }
    }

    fn backoff(&self, tries: u32) -> Duration {
        let (first, longest) = BACKOFF;
        let wait = first.saturating_mul(3_u32.saturating_pow(tries.saturating_sub(1))).min(longest);
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(millis / 2 + self.env().random() % millis.max(1))
    }

    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let Some(said) = headers.get(RETRY_AFTER) else {
            let reset = headers.get("x-ratelimit-reset").filter(|_| is_used_up(headers))?;
            let wait = until_reset(reset.to_str().ok()?.trim().parse().ok()?, self.env().wall());
            // A time that is over is one of another clock, and no reason to hurry.
            return Some(wait).filter(|wait| !wait.is_zero());
        };
        let text = said.to_str().ok()?.trim();
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        let at = times::parsed(text)?;
        Some(Duration::from_nanos(at.nanos().saturating_sub(self.env().wall())))
    }

    fn late(&self, ask: &Ask<'_>, maybe_done: bool) -> StoreError {
        StoreError::TimedOut { what: ask.in_words(), limit: self.timeout, changing: maybe_done }
    }

    fn lost(&self, lost: Lost, ask: &Ask<'_>, maybe_done: bool) -> StoreError {
        let what = ask.in_words();
        match lost {
            Lost::NotSent(cause) => {
                of_the_backend(maybe_done, what, format!("the server cannot be reached: {cause}"))
            }
            Lost::Cut(cause) => of_the_backend(maybe_done, what, format!("no whole answer came: {cause}")),
            Lost::Late => self.late(ask, maybe_done),
            Lost::NoPlace if maybe_done => of_the_backend(true, what, NO_PLACE),
            // A mount that is used too much is well.
            Lost::NoPlace => of_the_call(ErrorKind::ResourceBusy, what, NO_PLACE),
            // Of a change the answer is of no interest: it was done.
            Lost::TooLarge if ask.changing() => {
                of_the_backend(true, what, "the answer has more bytes than the description lets it have")
            }
            Lost::TooLarge => {
                let cause = "it has more bytes than the description lets it have";
                of_the_call(ErrorKind::FileTooLarge, what, cause)
            }
        }
    }

    /// What is remembered of `url` is not so any more.
    pub(super) fn forget(&self, url: &Url, accept: Option<&HeaderValue>) {
        self.kept.forget(&key(url, accept));
    }

    /// What is at `url`: asked for, or, when the server says that it is still so, as it was before.
    pub(super) async fn get(
        &self,
        url: Url,
        accept: Option<&HeaderValue>,
        what: &'static str,
        path: &str,
        deadline: Instant,
    ) -> Result<Arc<Page>, StoreError> {
        let key = key(&url, accept);
        let known = self.kept.get(&key);
        let mut ask = Ask::look(Method::GET, url, what, path);
        ask.headers.extend(accept.map(|accept| (ACCEPT, accept.clone())));
        if let Some(page) = &known {
            let validator = |given: HeaderName, sent: HeaderName| {
                page.headers.get(given).map(|value| (sent, value.clone()))
            };
            ask.headers.extend(
                validator(ETAG, IF_NONE_MATCH).or_else(|| validator(LAST_MODIFIED, IF_MODIFIED_SINCE)),
            );
        }
        let Answered { answer, .. } = self.ask(&ask, deadline).await?;
        match (answer.status, known) {
            (304, Some(page)) => Ok(page),
            (200 | 203 | 204, _) => {
                let may_be_kept = !answer.headers.get_all(CACHE_CONTROL).iter().any(|value| {
                    value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("no-store"))
                });
                let can_be_confirmed = has_validator(&answer.headers);
                let page = Arc::new(Page { headers: answer.headers, body: answer.body });
                if may_be_kept && can_be_confirmed {
                    self.kept.put(&key, page.clone());
                } else {
                    self.kept.forget(&key);
                }
                Ok(page)
            }
            (status, _) => Err(refused(status, &ask.in_words(), path, false)),
        }
    }
}

/// Under what an answer is remembered: the same place has more than one, by what is asked for.
fn key(url: &Url, accept: Option<&HeaderValue>) -> String {
    let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    format!("{url}\n{accept}")
}

/// Whether a 304 would say that it is still so. Without an ETag it does not of what could have changed again within the second of its date.
fn has_validator(headers: &HeaderMap) -> bool {
    headers.contains_key(ETAG) || times::is_dated(headers)
}

/// How long it is, at a time since the epoch in nanoseconds, until what a server lets be asked for begins anew. Servers say in seconds how long that is, or
/// when it will be, since the epoch, in seconds or in milliseconds: by its size it can be told which.
fn until_reset(reset: u64, wall: u64) -> Duration {
    const SPAN_MAX: u64 = 1_000_000_000;
    const SECONDS_MAX: u64 = 100_000_000_000;
    let at = match reset {
        ..SPAN_MAX => return Duration::from_secs(reset),
        SPAN_MAX..SECONDS_MAX => Duration::from_secs(reset),
        _ => Duration::from_millis(reset),
    };
    at.saturating_sub(Duration::from_nanos(wall))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_let_in_once_is_refused_one_place_by_403_and_all_by_401() {
        let check = |statuses: &[u16], refused: Option<u16>| {
            let mut welcome = Welcome::default();
            statuses.iter().for_each(|status| welcome.take(*status, || status.to_string()));
            assert_eq!(welcome.refused, refused.map(|status| status.to_string()), "{statuses:?}");
        };
        check(&[], None);
        check(&[401], Some(401));
        check(&[403], Some(403));
        check(&[403, 404, 500], Some(403)); // These say nothing of who asks.
        check(&[401, 200], None);
        check(&[200, 403], None);
        check(&[304, 401, 403], Some(401));
    }
}
