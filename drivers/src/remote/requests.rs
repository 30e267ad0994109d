//! What goes with a request beside what the library says, and what is seen of it.
//!
//! The condition under which an upload in parts is put together: S3 has it, and the library has no words for it. It goes as a header of the one request that puts the parts
//! together, added on the way out. What is signed are the headers that the library knows of; S3 wants no more than these to be.
//!
//! And what the library repeats out of sight: a request that was left without an answer that says what became of it may be carried out behind its repetition.

use std::error::Error as _;
use std::ffi::OsStr;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue, UpdateVersion};
use reqwest::header::{ETAG, HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};

use super::errors::{INTERNAL_ERROR, SLOW_DOWN};
use crate::{here, times};

/// Who copies says so with this header to a server of S3.
const COPY_SOURCE: &str = "x-amz-copy-source";

/// The hosts that give a machine, or a container, its credentials, beside those at addresses of its own link.
const OF_THE_MACHINE: [&str; 2] = ["[fd00:ec2::254]", "metadata.google.internal"];

/// Those of the providers. With a dot at the end, what hosts begin with.
const CREDENTIALS: [&str; 4] =
    ["oauth2.googleapis.com", "iamcredentials.googleapis.com", "sts.", "login.microsoftonline."];

/// The variables that name proxies, in any case.
const PROXIES: [&str; 3] = ["ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"];

/// A proxy that nothing goes to, and what does not go there: so a client is told to use none, whatever the environment says.
const NO_PROXY: (&str, &str) = ("http://localhost", "*,0.0.0.0/0,::/0");

/// What must be so when the parts are put together.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    /// There is nothing at the key.
    Absent,
    /// What is there is in this state.
    State(UpdateVersion),
}

impl Condition {
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Absent => Some((IF_NONE_MATCH, HeaderValue::from_static("*"))),
            Self::State(version) => {
                let e_tag = version.e_tag.as_deref()?;
                Some((IF_MATCH, HeaderValue::from_str(e_tag).ok()?))
            }
        }
    }
}

tokio::task_local! {
    /// The header of the request that is made by the task that has it.
    static HEADER: (HeaderName, HeaderValue);

    /// Raised when a request of the task was left that its server may carry out yet.
    static LEFT_OPEN: Arc<AtomicBool>;
}

/// Runs `completing`, a request of a client that was made with [`Through`], under `condition`.
pub(super) async fn under<T>(
    condition: Option<&Condition>,
    completing: impl Future<Output = Result<T, object_store::Error>>,
) -> Result<T, object_store::Error> {
    match condition.map(Condition::header) {
        None => completing.await,
        Some(Some(header)) => HEADER.scope(header, completing).await,
        Some(None) => {
            let source = "the server gave no ETag, which a condition needs".into();
            Err(object_store::Error::NotSupported { source })
        }
    }
}

/// Runs `requests`, of a client that was made with [`Through`], and raises `left_open` when one that may change something was left, and its server may carry it out yet.
pub(super) async fn noting<T>(left_open: Arc<AtomicBool>, requests: impl Future<Output = T>) -> T {
    LEFT_OPEN.scope(left_open, requests).await
}

/// What an ETag begins with that more than one content may have (RFC 9110, section 8.8.1).
const WEAK: &str = "W/";

/// What an ETag begins with, on its way from [`Through`], that is not of one content alone: the server gave none, or a weak one, and a date that is of whatever there was in that
/// second. No server's begins so. A number follows, and another one of these, so that no two answers are taken for the same by whoever puts their bytes together.
const IN_DOUBT: char = '~';

/// Whether this is an ETag of more than one content, as far as anybody can tell.
pub(super) fn is_in_doubt(e_tag: &str) -> bool {
    e_tag.starts_with(IN_DOUBT)
}

/// What the server said of an ETag: nothing if it gave none.
pub(super) fn as_said(e_tag: &str) -> &str {
    let marked = e_tag.strip_prefix(IN_DOUBT).and_then(|marked| marked.split_once(IN_DOUBT));
    marked.map_or(e_tag, |(_, said)| said)
}

/// Makes clients whose requests take the header of their task, and tell it what was left open. What goes to this machine, or asks it for credentials, goes past any proxy.
#[derive(Debug)]
#[cfg_attr(
    not(any(feature = "s3", feature = "azure", feature = "gcs", feature = "http")),
    allow(dead_code, reason = "no driver is there")
)]
pub(super) struct Through {
    /// Whether ETags are marked by which content cannot be told from another one. A store whose ETags go back to it as conditions has none of these.
    pub(super) marking: bool,
}

impl Through {
    /// To a store that gives ETags of one content alone.
    pub(super) const STORE: Self = Self { marking: false };

    /// To whatever serves files.
    pub(super) const WEB: Self = Self { marking: true };
}

impl HttpConnector for Through {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let connect = |options: &ClientOptions| ReqwestConnector::default().connect(options);
        let (proxy, excludes) = NO_PROXY;
        let past_proxies = options.clone().with_proxy_url(proxy).with_proxy_excludes(excludes);
        // Making one takes a while: it reads all certificates of the system.
        let past_proxies = may_be_behind_proxies().then(|| connect(&past_proxies)).transpose()?;
        Ok(HttpClient::new(Requests { any: connect(options)?, past_proxies, marking: self.marking }))
    }
}

#[derive(Debug)]
struct Requests {
    any: HttpClient,
    /// Where a proxy may be.
    past_proxies: Option<HttpClient>,
    marking: bool,
}

impl Requests {
    fn client_for(&self, host: &str) -> &HttpClient {
        self.past_proxies.as_ref().filter(|_| goes_past_proxies(host)).unwrap_or(&self.any)
    }
}

impl HttpService for Requests {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        mut request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        let host = request.uri().host().unwrap_or_default();
        let client = self.client_for(host);
        if is_for_credentials(host) {
            return Box::pin(client.execute(request));
        }
        // Of a completion without parts, which first makes an empty one, only the completion.
        if request.method() == Method::POST {
            // A task that has none asks for nothing.
            let _ =
                HEADER.try_with(|(name, value)| request.headers_mut().insert(name.clone(), value.clone()));
        }
        let left_open = LEFT_OPEN.try_with(Arc::clone).ok().filter(|_| !request.method().is_safe());
        let takes_long = request.method() == Method::POST || request.headers().contains_key(COPY_SOURCE);
        let (answered, marking) = (client.execute(request), self.marking);
        Box::pin(async move {
            let mut answered = answered.await;
            if let (true, Ok(answer)) = (marking, &mut answered) {
                mark(answer.headers_mut());
            }
            let Some(left_open) = left_open else { return answered };
            let (answered, is_open) = looked_at(answered, takes_long).await;
            if is_open {
                left_open.store(true, Ordering::Relaxed);
            }
            answered
        })
    }
}

/// Marks the ETag of an answer that may be one of several contents.
fn mark(headers: &mut HeaderMap) {
    let said = headers.get(ETAG).and_then(|e_tag| e_tag.to_str().ok()).unwrap_or_default();
    let is_strong = !said.is_empty() && !said.starts_with(WEAK);
    if is_strong || times::is_dated(headers) {
        return;
    }
    // Ordered by nothing: it is another one each time.
    static ANSWERS: AtomicU64 = AtomicU64::new(0);
    let number = ANSWERS.fetch_add(1, Ordering::Relaxed);
    // It has no characters that a header cannot have.
    if let Ok(marked) = HeaderValue::from_str(&format!("{IN_DOUBT}{number}{IN_DOUBT}{said}")) {
        headers.insert(ETAG, marked);
    }
}

/// Whether a request to `host` asks for credentials, and changes nothing at the store: the library sends those through the same client, in the task of the call that needs them.
fn is_for_credentials(host: &str) -> bool {
    let is_one = |theirs: &&str| host == *theirs || theirs.ends_with('.') && host.starts_with(*theirs);
    is_of_the_machine(host) || CREDENTIALS.iter().any(is_one)
}

/// Whether `host` gives the machine its credentials.
fn is_of_the_machine(host: &str) -> bool {
    let is_of_the_link = |address| matches!(address, IpAddr::V4(address) if address.is_link_local());
    OF_THE_MACHINE.contains(&host) || here::address(host).is_some_and(is_of_the_link)
}

/// Whether the HTTP client may find a proxy: in the environment, or where other systems than Linux have it.
fn may_be_behind_proxies() -> bool {
    let is_proxy = |name: &OsStr| PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy));
    !cfg!(target_os = "linux") || std::env::vars_os().any(|(name, _)| is_proxy(&name))
}

/// Whether nobody is to be between the driver and `host`, who would see what is signed, or the credentials themselves.
fn goes_past_proxies(host: &str) -> bool {
    here::is_here(host) || is_of_the_machine(host)
}

/// Whether `error` says that there was no connection, also because that took too long: nobody heard of the request.
pub(super) fn is_unheard(error: &HttpError) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) {
            return true;
        }
        source = error.source();
    }
    error.kind() == HttpErrorKind::Connect
}

/// The answer to a request that may change something, and whether the server may carry it out yet. Of one that `takes_long` the library reads all of the answer.
async fn looked_at(
    answered: Result<HttpResponse, HttpError>,
    takes_long: bool,
) -> (Result<HttpResponse, HttpError>, bool) {
    match answered {
        Err(error) => {
            let is_open = !is_unheard(&error);
            (Err(error), is_open)
        }
        // A server of S3 begins to answer before it has done with such a request, and may say afterwards that it failed.
        Ok(response) if takes_long && response.status().is_success() => {
            let (head, body) = response.into_parts();
            match body.bytes().await {
                Ok(body) => {
                    let is_open = says(&body, INTERNAL_ERROR);
                    (Ok(HttpResponse::from_parts(head, body.into())), is_open)
                }
                Err(error) => (Err(error), true),
            }
        }
        // With this one it may say that it has not begun.
        Ok(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
            let (head, body) = response.into_parts();
            // The library looks at no more of it.
            let body = body.bytes().await.unwrap_or_default();
            let is_open = !says(&body, SLOW_DOWN);
            (Ok(HttpResponse::from_parts(head, body.into())), is_open)
        }
        Ok(response) => {
            let status = response.status();
            let says_no = matches!(
                status,
                StatusCode::NOT_IMPLEMENTED
                    | StatusCode::HTTP_VERSION_NOT_SUPPORTED
                    | StatusCode::INSUFFICIENT_STORAGE
            );
            let is_open = status == StatusCode::REQUEST_TIMEOUT || status.is_server_error() && !says_no;
            (Ok(response), is_open)
        }
    }
}

fn says(body: &[u8], code: &str) -> bool {
    body.windows(code.len()).any(|part| part == code.as_bytes())
}

#[cfg(test)]
mod tests {
    use nexus_actors::block_on;

    use super::*;

    fn answer(status: u16, body: &str) -> HttpResponse {
        let (mut head, body) = HttpResponse::new(body.to_owned().into()).into_parts();
        head.status = StatusCode::from_u16(status).expect("it is one");
        HttpResponse::from_parts(head, body)
    }

    #[test]
    fn who_asks_for_credentials_changes_nothing_at_the_store() {
        for host in [
            "169.254.169.254",
            "169.254.170.2",
            "[fd00:ec2::254]",
            "sts.amazonaws.com",
            "sts.eu-west-1.amazonaws.com",
            "login.microsoftonline.com",
        ] {
            assert!(is_for_credentials(host), "{host}");
        }
        for host in [
            "s3.amazonaws.com",
            "bkt.s3.amazonaws.com",
            "127.0.0.1",
            "a.blob.core.windows.net",
            "stsx.example",
            "",
        ] {
            assert!(!is_for_credentials(host), "{host}");
        }
    }

    #[test]
    fn no_two_answers_that_are_in_doubt_are_taken_for_the_same() {
        let marked = |said: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            said.map(|said| headers.insert(ETAG, HeaderValue::from_static(said)));
            mark(&mut headers);
            headers[ETAG].to_str().expect("it is text").to_owned()
        };
        for said in [None, Some("W/\"a~b\"")] {
            let (one, other) = (marked(said), marked(said));
            assert!(one != other && is_in_doubt(&one), "{one} {other}");
            assert_eq!(
                (as_said(&one), as_said(&other)),
                (said.unwrap_or_default(), said.unwrap_or_default())
            );
        }
        assert_eq!(marked(Some("\"strong\"")), "\"strong\"");
        assert!(!is_in_doubt("\"strong\"") && as_said("\"strong\"") == "\"strong\"");
    }

    #[test]
    fn what_is_of_this_machine_goes_past_proxies() {
        for host in
            ["localhost", "127.0.0.1", "127.1.2.3", "[::1]", "169.254.170.23", "metadata.google.internal"]
        {
            assert!(goes_past_proxies(host), "{host}");
        }
        for host in ["s3.amazonaws.com", "sts.amazonaws.com", "192.168.1.2", "localhost.example", ""] {
            assert!(!goes_past_proxies(host), "{host}");
        }
    }

    #[test]
    fn what_became_of_a_request_is_open_unless_its_server_has_said_it_or_never_heard_of_it() {
        let slow = "<Error><Code>SlowDown</Code></Error>";
        for (status, body, is_open) in [
            (200, "", false),
            (200, "<CopyObjectResult/>", false),
            (200, "<Error><Code>InternalError</Code></Error>", true),
            (204, "", false),
            (404, "", false),
            (408, "", true),
            (429, "", false),
            (500, "", true),
            (501, "", false),
            (502, "", true),
            (503, "", true),
            (503, slow, false),
            (504, "", true),
            (507, "", false),
        ] {
            let (answered, found) = block_on(looked_at(Ok(answer(status, body)), true));
            assert_eq!(found, is_open, "{status} {body}");
            let told = block_on(answered.expect("it was an answer").into_body().bytes());
            assert_eq!(told.expect("it is here"), body, "what the library is given of {status}");
        }
        for (kind, is_open) in [
            (HttpErrorKind::Connect, false),
            (HttpErrorKind::Request, true),
            (HttpErrorKind::Timeout, true),
            (HttpErrorKind::Interrupted, true),
        ] {
            let error = HttpError::new(kind, std::io::Error::other("broken"));
            assert_eq!(block_on(looked_at(Err(error), false)).1, is_open, "{kind:?}");
        }
    }
}
