//! The condition under which an upload in parts is put together: S3 has it, and the library has no words for it.
//!
//! It goes as a header of the one request that puts the parts together, added on the way out. What is signed are the headers that the library knows of; S3
//! wants no more than these to be.

use std::future::Future;
use std::pin::Pin;

use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, HeaderValue, UpdateVersion};
use reqwest::Method;
use reqwest::header::{HeaderName, IF_MATCH, IF_NONE_MATCH};

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
}

/// Runs `completing`, a request of a client that was made with [`Conditional`], under `condition`.
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

/// Makes clients whose requests take the header of their task.
#[derive(Debug)]
#[cfg_attr(not(feature = "s3"), allow(dead_code, reason = "S3 alone has such conditions"))]
pub(super) struct Conditional;

impl HttpConnector for Conditional {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Through(inner)))
    }
}

#[derive(Debug)]
struct Through(HttpClient);

impl HttpService for Through {
    fn call<'life0, 'async_trait>(
        &'life0 self,
        mut request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        // Of a completion without parts, which first makes an empty one, only the completion.
        if request.method() == Method::POST {
            // A task that has none asks for nothing.
            let _ =
                HEADER.try_with(|(name, value)| request.headers_mut().insert(name.clone(), value.clone()));
        }
        Box::pin(self.0.execute(request))
    }
}
