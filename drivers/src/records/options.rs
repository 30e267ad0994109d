//! What options say.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use nexus_kernel::hal::RecordError;

/// The longest time that an option says: a day.
const MS_MAX: u32 = 86_400_000;

/// The number that an option says, from 1 to `most`.
pub(super) fn number<T>(
    options: &BTreeMap<String, String>,
    key: &str,
    most: T,
) -> Result<Option<T>, RecordError>
where
    T: FromStr + PartialOrd + From<u8> + Display,
{
    let Some(text) = options.get(key) else { return Ok(None) };
    match text.parse::<T>() {
        Ok(number) if number >= T::from(1) && number <= most => Ok(Some(number)),
        _ => Err(RecordError::BadOption { why: format!("{key:?} is a whole number from 1 to {most}") }),
    }
}

/// The time that an option says in milliseconds.
pub(super) fn millis(
    options: &BTreeMap<String, String>,
    key: &str,
    otherwise: Duration,
) -> Result<Duration, RecordError> {
    Ok(number::<u32>(options, key, MS_MAX)?.map_or(otherwise, |ms| Duration::from_millis(ms.into())))
}
