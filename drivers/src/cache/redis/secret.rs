//! A password that nobody prints.

use std::fmt;

/// What stands in its place.
const HIDDEN: &str = "***";

/// A secret: neither `Debug` nor `Display` print anything of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without it: servers repeat what they do not understand.
    pub(super) fn hide(&self, text: &str) -> String {
        if self.0.is_empty() { text.into() } else { text.replace(&self.0, HIDDEN) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}
