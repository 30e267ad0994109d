//! What one version of a service hands to the next.

use bytes::Bytes;
use nexus_actors::ExitReason;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A copy of a service's state, on its way to the version that takes its place.
///
/// It travels as bytes with a format number, because the next version may be another type, made by somebody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carry {
    format: u32,
    bytes: Bytes,
}

impl Carry {
    /// No state: the next version begins as if it were the first.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// `state` in the format that the service numbers `format`, above zero.
    ///
    /// # Errors
    /// When the state cannot be written down; the swap then fails and the old version serves on.
    pub fn of<T: Serialize>(format: u32, state: &T) -> Result<Self, ExitReason> {
        let bytes = postcard::to_allocvec(state);
        let bytes = bytes.map_err(|why| ExitReason::error(format!("writing the state down: {why}")))?;
        Ok(Self { format, bytes: bytes.into() })
    }

    /// Whether there is nothing to take over.
    pub fn is_nothing(&self) -> bool {
        self.format == 0
    }

    /// The number of the format, as the service that exported it numbers them.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// The state, which must have been written from the same type.
    ///
    /// # Errors
    /// When the bytes are not such a state; the swap then fails and the old version serves on.
    pub fn take<T: DeserializeOwned>(&self) -> Result<T, ExitReason> {
        let failed =
            |why: String| ExitReason::error(format!("taking over a state of format {}: {why}", self.format));
        match postcard::take_from_bytes(&self.bytes) {
            Ok((state, [])) => Ok(state),
            Ok((_, rest)) => Err(failed(format!("{} bytes behind it", rest.len()))),
            Err(why) => Err(failed(why.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_as_it_was_given() {
        let carry = Carry::of(3, &(7_u64, "seven")).unwrap();
        assert_eq!((carry.format(), carry.is_nothing()), (3, false));
        assert!(carry.take::<u64>().is_err(), "it has more than that");
        assert_eq!(carry.take::<(u64, String)>().unwrap(), (7, "seven".to_owned()));
    }

    #[test]
    fn a_state_of_another_shape_is_an_error_and_no_panic() {
        let carry = Carry::of(1, &"short").unwrap();
        assert!(carry.take::<(String, u64, u64)>().is_err());
        assert!(Carry::nothing().is_nothing());
    }
}
