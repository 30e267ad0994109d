//! What went wrong on the way to a server, in the kernel's words.

use std::error::Error as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nexus_kernel::hal::StoreError;
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;

use super::doubts::Change;
use super::requests::is_unheard;
use crate::secret::{Secret, scrubbed};

/// How much of what a library says is told on.
const SAID_MAX: usize = 200;

/// One operation, as errors tell of it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// What is being done.
    pub(super) what: &'static str,
    /// To which key.
    pub(super) key: String,
    /// Whether something may be changed by it.
    pub(super) changing: bool,
    /// Whether it is made under a condition, which may not hold.
    pub(super) conditional: bool,
    /// How much it moves.
    pub(super) bytes: u64,
    /// What it changes at which keys, where that is noted when it may be carried out behind its end.
    pub(super) noted: Option<(Change, Vec<Path>)>,
}

impl Call {
    pub(super) fn look(what: &'static str, key: &str, bytes: u64) -> Self {
        Self { what, key: key.into(), changing: false, conditional: false, bytes, noted: None }
    }

    pub(super) fn change(what: &'static str, key: &str, bytes: u64) -> Self {
        Self { what, key: key.into(), changing: true, conditional: false, bytes, noted: None }
    }

    pub(super) fn under_a_condition(mut self) -> Self {
        self.conditional = true;
        self
    }

    /// One that leaves its keys in doubt, unless it is known to be over when it ends.
    pub(super) fn noted(mut self, change: Change, keys: &[Path]) -> Self {
        self.noted = Some((change, keys.to_vec()));
        self
    }

    pub(super) fn in_words(&self) -> String {
        format!("{} {:?}", self.what, self.key)
    }
}

/// The status of an answer that was an error, if there was an answer. The library's own type for it is private: it says so in its text.
pub(super) fn status(error: &Error) -> Option<u16> {
    let text = error.to_string();
    let (_, after) = text.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// What became of the connection, when that is what failed.
fn transport(error: &Error) -> Option<HttpErrorKind> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return Some(if is_unheard(error) { HttpErrorKind::Connect } else { error.kind() });
        }
        source = error.source();
    }
    None
}

/// Whether the server answered, and with success, and the library did not like what it said.
pub(super) fn is_of_the_answer(error: &Error) -> bool {
    matches!(error, Error::Generic { .. } | Error::NotSupported { .. })
        && status(error).is_none()
        && transport(error).is_none()
}

/// The innermost cause, short, and without secrets: what stands around it names requests in full.
fn said(error: &Error, secrets: &[Secret]) -> String {
    let text = error.to_string();
    // The error code of S3 and Azure, and nothing else of what they answer: that may repeat what was signed.
    let code = text.split_once("<Code>").and_then(|(_, after)| after.split_once("</Code>"));
    if let Some((code, _)) = code {
        return format!("the server says {}", cut(code, secrets));
    }
    if status(error).is_some() {
        return "the server says nothing of it".into();
    }
    let (mut innermost, mut source) = (text, error.source());
    while let Some(error) = source {
        innermost = error.to_string();
        source = error.source();
    }
    cut(&innermost, secrets)
}

fn cut(text: &str, secrets: &[Secret]) -> String {
    scrubbed(text, secrets).chars().take(SAID_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// In what the library says of an answer whose length it was not told.
const LENGTH: &str = "Content-Length";

/// What a server of S3 says that takes no more requests just now.
pub(super) const SLOW_DOWN: &str = "SlowDown";

/// What it says of a request that failed within it, also behind a 200.
pub(super) const INTERNAL_ERROR: &str = "InternalError";

/// Of a listing that one of its keys keeps from being given.
pub(super) fn no_path(what: String) -> StoreError {
    let cause = "a key there is no path: it has an empty name, `.`, `..` or a control character in it";
    StoreError::Io { what, source: Arc::new(io::Error::new(io::ErrorKind::InvalidFilename, cause)) }
}

/// Of what the server refuses with a status from 400 to 499, for what this one call is: the server is well.
fn of_the_call(what: String, status: u16, said: &str) -> StoreError {
    let kind = match status {
        413 => io::ErrorKind::FileTooLarge,
        414 => io::ErrorKind::InvalidFilename,
        409 | 423 => io::ErrorKind::ResourceBusy,
        _ if said.contains("EntityTooLarge") => io::ErrorKind::FileTooLarge,
        _ if said.contains("KeyTooLong") => io::ErrorKind::InvalidFilename,
        _ => io::ErrorKind::InvalidInput,
    };
    let cause = format!("the server answers {status}: {said}");
    StoreError::Io { what, source: Arc::new(io::Error::new(kind, cause)) }
}

/// What the kernel is told. `left_open` says that the server may carry out a request of the call yet.
pub(super) fn translated(
    error: &Error,
    call: &Call,
    limit: Duration,
    secrets: &[Secret],
    left_open: bool,
) -> StoreError {
    let told = of_the_last(error, call, limit, secrets);
    if call.changing && left_open && !told.is_unknown() {
        // Whatever it is told now: the attempt before may have been carried out, and this one may have met what that one did.
        return StoreError::Unknown { what: call.in_words(), cause: said(error, secrets) };
    }
    told
}

/// What the last request alone says.
fn of_the_last(error: &Error, call: &Call, limit: Duration, secrets: &[Secret]) -> StoreError {
    let what = call.in_words();
    let said = || said(error, secrets);
    let denied = |why: &str| {
        let cause = format!("the server refuses it ({why}): {}", said());
        let source = Arc::new(io::Error::new(io::ErrorKind::PermissionDenied, cause));
        StoreError::Io { what: call.in_words(), source }
    };
    match error {
        Error::NotFound { .. } => return StoreError::NotFound { what: call.key.clone() },
        Error::AlreadyExists { .. } | Error::Precondition { .. } if call.conditional => {
            return StoreError::Exists { what: call.key.clone() };
        }
        // So the library says each 409, and this call has asked for nothing that could not hold.
        Error::AlreadyExists { .. } => return of_the_call(what, 409, &said()),
        Error::Precondition { .. } => return of_the_call(what, 412, &said()),
        Error::PermissionDenied { .. } => return denied("403"),
        Error::Unauthenticated { .. } => return denied("401"),
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            return StoreError::NotSupported { what: call.what };
        }
        Error::InvalidPath { .. } => return no_path(what),
        _ => {}
    }
    let (cause, is_certain) = match (status(error), transport(error)) {
        (Some(401), _) => return denied("401"),
        (Some(403), _) => return denied("403"),
        (Some(507), _) => return StoreError::Full,
        (Some(405 | 501), _) => return StoreError::NotSupported { what: call.what },
        // It has more to do than it wants, and has not begun with this.
        (Some(status), _) if status == 429 || said().contains(SLOW_DOWN) => {
            (format!("the server answers {status}: {}", said()), true)
        }
        (Some(status @ (408 | 500..)), _) => (format!("the server answers {status}: {}", said()), false),
        // A key that is not there is told otherwise: there is no such bucket.
        (Some(404), _) => (format!("the server answers 404: {}", said()), true),
        (Some(status @ 400..=499), _) => return of_the_call(what, status, &said()),
        (Some(status), _) => (format!("the server answers {status}: {}", said()), true),
        (None, Some(HttpErrorKind::Timeout)) => {
            return StoreError::TimedOut { what, limit, changing: call.changing };
        }
        (None, Some(HttpErrorKind::Connect)) => (format!("the server cannot be reached: {}", said()), true),
        (None, None) if !call.changing && said().contains(LENGTH) => {
            // The server is well, and what it has there has no end that it could tell.
            let cause = format!("its length is not told: {}", said());
            return StoreError::Io {
                what,
                source: Arc::new(io::Error::new(io::ErrorKind::InvalidInput, cause)),
            };
        }
        (None, _) => (said(), false),
    };
    if call.changing && !is_certain {
        StoreError::Unknown { what, cause }
    } else {
        StoreError::Backend { what, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn what_may_have_been_done_is_told_so_when_something_was_to_be_changed() {
        let told = |error: &Error, changing: bool, left_open: bool| {
            let call = if changing { Call::change("writing", "k", 0) } else { Call::look("writing", "k", 0) };
            translated(error, &call, Duration::from_secs(1), &[], left_open)
        };
        let check = |error: &Error, changing: bool| told(error, changing, false);
        let broken = answered(
            "Server returned non-2xx status code: 503 Service Unavailable: <Code>InternalError</Code>",
        );
        assert!(matches!(check(&broken, true), StoreError::Unknown { .. }));
        assert!(matches!(check(&broken, false), StoreError::Backend { .. }));
        for busy in ["503 Service Unavailable: <Code>SlowDown</Code>", "429 Too Many Requests"] {
            let busy = answered(&format!("Server returned non-2xx status code: {busy}"));
            assert!(matches!(check(&busy, true), StoreError::Backend { .. }), "{busy}");
        }
        let endless = answered("Content-Length Header missing from response");
        assert!(!check(&endless, false).is_backend_failure(), "{:?}", check(&endless, false));
        assert!(matches!(check(&endless, true), StoreError::Unknown { .. }));
        let refused = answered("Server returned non-2xx status code: 400 Bad Request: ");
        assert!(matches!(check(&refused, true), StoreError::Io { .. }));
        let connect =
            HttpError::new(HttpErrorKind::Connect, io::Error::from(io::ErrorKind::ConnectionRefused));
        let connect = Error::Generic { store: "S3", source: Box::new(connect) };
        assert!(matches!(check(&connect, true), StoreError::Backend { .. }), "nobody heard of it");
        assert!(matches!(told(&connect, true, true), StoreError::Unknown { .. }), "nor of the last request");
        assert!(matches!(told(&connect, false, true), StoreError::Backend { .. }));
        // The answer to the first attempt was lost: it may have been what removed the upload, or the permission.
        for status in ["400 Bad Request", "404 Not Found", "403 Forbidden"] {
            let text = format!("status code: {status}");
            let gone = Error::NotFound { path: "k".into(), source: text.clone().into() };
            for error in [answered(&text), gone] {
                assert!(matches!(told(&error, true, true), StoreError::Unknown { .. }), "{status}");
                assert!(!told(&error, false, true).is_unknown(), "{status}");
            }
        }
        assert!(matches!(check(&answered("x"), true), StoreError::Unknown { .. }));
        let denied = check(&answered("status code: 403 Forbidden"), true);
        assert!(!denied.is_backend_failure() && !denied.is_unknown(), "{denied:?}");
    }

    #[test]
    fn what_is_in_the_way_is_there_for_who_asked_that_nothing_be() {
        // So the library gives each 409, also that of a server that has another change of the key under way.
        let busy = || Error::AlreadyExists { path: "k".into(), source: "status code: 409 Conflict".into() };
        let told = |call: &Call| translated(&busy(), call, Duration::from_secs(1), &[], false);
        let plain = told(&Call::change("writing", "k", 0));
        assert!(
            matches!(&plain, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy),
            "{plain:?}"
        );
        let conditional = told(&Call::change("making", "k", 0).under_a_condition());
        assert!(matches!(conditional, StoreError::Exists { .. }), "{conditional:?}");
    }

    #[test]
    fn who_asks_for_what_the_server_refuses_takes_the_mount_from_nobody() {
        let check = |answer: &str, kind: io::ErrorKind| {
            let error = answered(&format!("Server returned non-2xx status code: {answer}"));
            let call = Call::change("writing", "k", 0);
            let error = translated(&error, &call, Duration::from_secs(1), &[], false);
            assert!(!error.is_backend_failure() && !error.is_unknown(), "{answer}: {error:?}");
            assert!(
                matches!(&error, StoreError::Io { source, .. } if source.kind() == kind),
                "{answer}: {error:?}"
            );
        };
        check("400 Bad Request: <Code>KeyTooLongError</Code>", io::ErrorKind::InvalidFilename);
        check("400 Bad Request: <Code>EntityTooLarge</Code>", io::ErrorKind::FileTooLarge);
        check("400 Bad Request: ", io::ErrorKind::InvalidInput);
        check("409 Conflict: <Code>OperationAborted</Code>", io::ErrorKind::ResourceBusy);
        check("414 URI Too Long: ", io::ErrorKind::InvalidFilename);
    }

    #[test]
    fn a_bucket_that_is_not_there_is_no_fault_of_who_asks() {
        let error =
            answered("Server returned non-2xx status code: 404 Not Found: <Code>ContainerNotFound</Code>");
        let told = translated(&error, &Call::change("writing", "k", 0), Duration::from_secs(1), &[], false);
        assert!(matches!(told, StoreError::Backend { .. }), "{told:?}");
    }

    #[test]
    fn nothing_is_told_of_what_was_signed() {
        let text = "non-2xx status code: 400 Bad Request: <Error><Code>SignatureDoesNotMatch</Code><StringToSign>hunter22</StringToSign></Error>";
        let call = Call::look("reading", "k", 0);
        let secrets = [Secret::given("secret_key", "hunter22").unwrap()];
        for text in [text, "status code: 400: hunter22", "https://host/k?sig=hunter22"] {
            let error = translated(&answered(text), &call, Duration::from_secs(1), &secrets, false);
            assert!(!format!("{error} {error:?}").contains("hunter22"), "{error}");
        }
    }
}
