//! Credentials: where they come from, and that nobody sees them.

use std::fmt;

/// What is read of a file that holds a credential.
#[cfg(any(feature = "remote", feature = "connectors"))]
const FILE_MAX: u64 = 64 << 10;

/// Shorter ones are not looked for in texts: they would be found everywhere.
const SCRUBBED_MIN: usize = 4;

/// A credential. `Debug` and `Display` print nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Wraps it.
    pub fn new(secret: impl Into<Box<str>>) -> Self {
        Self(secret.into())
    }

    /// What the option `key` gives: the credential itself, or where it is: `env:NAME`, a variable of the environment, or `file:PATH`, a file whose last line
    /// may have an end. Errors tell the key and the place alone. Blocks for the file.
    #[cfg(any(feature = "remote", feature = "connectors"))]
    pub(crate) fn given(key: &str, text: &str) -> Result<Self, nexus_kernel::hal::StoreError> {
        use std::io::Read;

        let bad = |why: String| nexus_kernel::hal::StoreError::BadOption { why: format!("{key}: {why}") };
        let found = if let Some(name) = text.strip_prefix("env:") {
            std::env::var(name)
                .map_err(|_| bad(format!("there is no variable {name:?} in the environment")))?
        } else if let Some(path) = text.strip_prefix("file:") {
            let mut found = String::new();
            let read =
                std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut found));
            read.map_err(|error| bad(format!("the file {path:?} cannot be read: {}", error.kind())))?;
            found.trim_end_matches(['\r', '\n']).to_owned()
        } else {
            text.to_owned()
        };
        if found.is_empty() { Err(bad("it is empty".into())) } else { Ok(Self(found.into())) }
    }

    /// The credential, for who signs with it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// `text` without any of `secrets`: libraries and servers repeat what they were told.
pub(crate) fn scrubbed(text: &str, secrets: &[Secret]) -> String {
    let looked_for = secrets.iter().filter(|secret| secret.0.len() >= SCRUBBED_MIN);
    looked_for.fold(text.to_owned(), |text, secret| text.replace(&*secret.0, "(hidden)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_printed_by_nothing() {
        let secret = Secret::new("hunter22");
        assert_eq!(secret.expose(), "hunter22");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "(hidden) (hidden) Some((hidden))");
        assert_eq!(scrubbed("key=hunter22&x", &[secret]), "key=(hidden)&x");
    }

    #[cfg(any(feature = "remote", feature = "connectors"))]
    #[test]
    fn a_secret_may_lie_in_a_file_or_in_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "hunter22\n").unwrap();
        let given = |text: &str| Secret::given("secret_key", text);
        assert_eq!(given(&format!("file:{}", file.display())).unwrap().expose(), "hunter22");
        assert!(!given("env:PATH").unwrap().expose().is_empty());
        for text in ["env:NEXUS_NO_SUCH_VARIABLE", "file:/nowhere/at/all", ""] {
            let error = given(text).unwrap_err().to_string();
            assert!(error.starts_with("secret_key: "), "{error}");
        }
    }
}
