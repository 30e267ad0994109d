//! What a server says instead of what was asked for, in the kernel's words.
//!
//! Nothing of the text of its answer is told on: servers repeat what they were sent.

use std::io::ErrorKind;

use nexus_kernel::hal::StoreError;

use super::super::failure::{of_the_backend, of_the_call};

/// What the status `status` means, which is none of success. `what` is being done to `path`.
pub(super) fn refused(status: u16, what: &str, path: &str, changing: bool) -> StoreError {
    let of_the_call = |kind, why: &str| of_the_call(kind, what, format!("the server answers {status}{why}"));
    match status {
        404 | 410 => StoreError::NotFound { what: path.into() },
        401 => of_the_call(ErrorKind::PermissionDenied, ": it does not know who asks"),
        403 => of_the_call(ErrorKind::PermissionDenied, ": it is not allowed"),
        405 | 501 => StoreError::NotSupported { what: "this: the server does not do it there" },
        412 => StoreError::Exists { what: path.into() },
        409 | 423 => StoreError::Locked { what: path.into() },
        413 => of_the_call(ErrorKind::FileTooLarge, ": it is too large"),
        414 => of_the_call(ErrorKind::InvalidFilename, ": its name is too long"),
        // A mount that is used too much is well.
        429 => {
            self::of_the_call(ErrorKind::ResourceBusy, what, "the server answers that it is asked too often")
        }
        507 => StoreError::Full,
        408 | 500.. => of_the_backend(changing, what, format!("the server answers {status}")),
        300..=399 => of_the_call(ErrorKind::Unsupported, ": it sends elsewhere, which is not followed"),
        400..=499 => of_the_call(ErrorKind::InvalidInput, ""),
        _ => of_the_backend(
            changing,
            what,
            format!("the server answers {status}, which was not to be expected"),
        ),
    }
}
