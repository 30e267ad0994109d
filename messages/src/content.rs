//! What identifies content.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Identifies one exact content.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ContentId {
    /// The BLAKE3 hash of the bytes: the same bytes have the same id anywhere.
    Blake3([u8; 32]),
    /// What a path-addressed backend calls this state of this path. Meaningful on that mount only.
    Tag(Arc<str>),
}

impl ContentId {
    /// The hash, when the content is addressed by it.
    pub fn blake3(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Blake3(hash) => Some(hash),
            Self::Tag(_) => None,
        }
    }

    /// The id that [`Display`](fmt::Display) wrote for a hash: 64 hexadecimal digits.
    pub fn parse_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let mut hash = [0u8; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (hex_value(pair[0])? << 4) | hex_value(pair[1])?;
        }
        Some(Self::Blake3(hash))
    }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blake3(hash) => hash.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
            Self::Tag(tag) => f.write_str(tag),
        }
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}
