//! The files in which Amazon's own tools keep credentials, by profile.
//!
//! Of a profile its keys are taken. One that says how others are to be asked for (a role, a single sign-on, a program) is for those tools: who names it is told so.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};
use nexus_kernel::hal::StoreError;

use crate::secret::Secret;

/// What names the profile, and which it is when nothing does.
const NAME: (&str, &str) = ("AWS_PROFILE", "default");

/// What says where the files are, and where they are below the user's folder when nothing does.
const CREDENTIALS: (&str, &str) = ("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials");
const CONFIG: (&str, &str) = ("AWS_CONFIG_FILE", ".aws/config");

/// What comes before the files.
const BEFORE: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"];

/// What is read of a file.
const FILE_MAX: u64 = 1 << 20;

/// What a profile gives.
pub(super) struct Profile {
    pub(super) access_key: Secret,
    pub(super) secret_key: Secret,
    pub(super) session_token: Option<Secret>,
    pub(super) region: Option<String>,
}

impl Profile {
    /// The profile that is meant where no credentials are given, if there is one with keys. Blocks for the files.
    ///
    /// # Errors
    /// When `AWS_PROFILE` names one that has none, and when a file cannot be read.
    pub(super) fn of_the_environment() -> Result<Option<Self>, StoreError> {
        let said = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        if BEFORE.iter().any(|name| said(name).is_some()) {
            return Ok(None);
        }
        let place = |(variable, below): (&str, &str)| {
            let home = || std::env::home_dir().filter(|home| home.is_absolute());
            said(variable).map(PathBuf::from).or_else(|| Some(home()?.join(below)))
        };
        let named = said(NAME.0);
        let (Some(credentials), config) = (place(CREDENTIALS), place(CONFIG)) else { return Ok(None) };
        let found = Self::among(&read(&credentials)?, named.as_deref().unwrap_or(NAME.1))?;
        match (found, named) {
            (Some(mut profile), named) => {
                if let (None, Some(config)) = (&profile.region, config) {
                    profile.region = region(&read(&config)?, named.as_deref().unwrap_or(NAME.1))?;
                }
                Ok(Some(profile))
            }
            (None, None) => Ok(None),
            (None, Some(named)) => {
                let place = credentials.display();
                Err(bad(format!(
                    "it is {named:?}, and {place} has no keys of that profile; nothing else of it is used"
                )))
            }
        }
    }

    fn among(text: &str, name: &str) -> Result<Option<Self>, StoreError> {
        let files = parsed(text)?;
        let Some(profile) = files.section(Some(name)) else { return Ok(None) };
        let secret = |key: &str| profile.get(key).filter(|text| !text.is_empty()).map(Secret::new);
        let keys = secret("aws_access_key_id").zip(secret("aws_secret_access_key"));
        Ok(keys.map(|(access_key, secret_key)| Self {
            access_key,
            secret_key,
            session_token: secret("aws_session_token"),
            region: profile.get("region").map(str::to_owned),
        }))
    }
}

/// The region of the profile `name` in the text of the other file.
fn region(text: &str, name: &str) -> Result<Option<String>, StoreError> {
    let section = if name == NAME.1 { name.to_owned() } else { format!("profile {name}") };
    Ok(parsed(text)?.get_from(Some(section), "region").map(str::to_owned))
}

fn parsed(text: &str) -> Result<Ini, StoreError> {
    let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    // What is wrong with it may be repeated by who found that: where it is must do.
    Ini::load_from_str_opt(text, options)
        .map_err(|error| bad(format!("the profile's file cannot be understood, from line {} on", error.line)))
}

/// What the file has; nothing when it is not there.
fn read(path: &Path) -> Result<String, StoreError> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text)) {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(bad(format!("{} cannot be read: {}", path.display(), error.kind()))),
    }
}

fn bad(why: String) -> StoreError {
    StoreError::BadOption { why: format!("{}: {why}", NAME.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# mine\n[default]\naws_access_key_id = one\naws_secret_access_key=a+b/c==\n\n[other]\naws_access_key_id=two\naws_secret_access_key = \\d\"\naws_session_token=t\nregion = eu-west-3\n[role]\nrole_arn = arn:aws:iam::1:role/r\n";

    #[test]
    fn keys_are_found_by_profile_as_they_are() {
        let check = |name: &str, expected: Option<[&str; 4]>| {
            let found = Profile::among(TEXT, name).unwrap().map(|found| {
                let plain =
                    |secret: Option<Secret>| secret.map_or(String::new(), |it| it.expose().to_owned());
                let region = found.region.unwrap_or_default();
                [
                    plain(Some(found.access_key)),
                    plain(Some(found.secret_key)),
                    plain(found.session_token),
                    region,
                ]
            });
            assert_eq!(found, expected.map(|all| all.map(str::to_owned)), "{name}");
        };
        check("default", Some(["one", "a+b/c==", "", ""]));
        check("other", Some(["two", "\\d\"", "t", "eu-west-3"]));
        check("role", None);
        check("none", None);
        let config = "[default]\nregion=us-west-1\n[profile other]\nregion = eu-north-1\n";
        assert_eq!(region(config, "default").unwrap().as_deref(), Some("us-west-1"));
        assert_eq!(region(config, "other").unwrap().as_deref(), Some("eu-north-1"));
        assert_eq!(region(config, "none").unwrap(), None);
        let error = Profile::among("[default\naws_secret_access_key=hunter2", "default").err().unwrap();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
