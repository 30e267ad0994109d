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
    /// The BLAKE3 hash of the list of the chunks that large content is kept in. It is not the hash of the bytes; but the same bytes have the
    /// same id, however they were written, for as long as content is divided in the same way.
    Chunks([u8; 32]),
}

impl ContentId {
    /// What stands before the hash of a chunk list.
    const CHUNKS: &'static str = "chunks:";

    /// The hash of the bytes, when the content is addressed by it.
    pub fn blake3(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Blake3(hash) => Some(hash),
            Self::Tag(_) | Self::Chunks(_) => None,
        }
    }

    /// The hash of the chunk list, when the content is addressed by it.
    pub fn chunks(&self) -> Option<&[u8; 32]> {
        match self {
            Self::Chunks(hash) => Some(hash),
            Self::Blake3(_) | Self::Tag(_) => None,
        }
    }

    /// The id that [`Display`](fmt::Display) wrote for a hash of bytes, 64 hexadecimal digits, or for that of a chunk list, with `chunks:` before
    /// them.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(Self::CHUNKS) {
            Some(digits) => hash_in(digits).map(Self::Chunks),
            None => hash_in(text).map(Self::Blake3),
        }
    }

    /// The id that [`Display`](fmt::Display) wrote for a hash of bytes: 64 hexadecimal digits.
    pub fn parse_hex(text: &str) -> Option<Self> {
        hash_in(text).map(Self::Blake3)
    }
}

fn hash_in(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0u8; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (hex_value(pair[0])? << 4) | hex_value(pair[1])?;
    }
    Some(hash)
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = match self {
            Self::Blake3(hash) => hash,
            Self::Tag(tag) => return f.write_str(tag),
            Self::Chunks(hash) => {
                f.write_str(Self::CHUNKS)?;
                hash
            }
        };
        // Not byte by byte: each blob that is read is named by it.
        let mut digits = [0; 64];
        for (two, byte) in digits.chunks_exact_mut(2).zip(hash) {
            two.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_what_it_is_the_hash_of() {
        let hash: [u8; 32] = std::array::from_fn(|n| u8::try_from(n * 8 + 1).unwrap());
        let (bytes, chunks) = (ContentId::Blake3(hash), ContentId::Chunks(hash));
        assert_eq!(chunks.to_string(), format!("chunks:{bytes}"));
        assert_eq!(ContentId::parse(&bytes.to_string()), Some(bytes.clone()));
        assert_eq!(ContentId::parse(&chunks.to_string()), Some(chunks.clone()));
        assert_eq!((bytes.chunks(), chunks.blake3()), (None, None));
        assert_eq!((bytes.blake3(), chunks.chunks()), (Some(&hash), Some(&hash)));
        for bad in ["", "chunks:", "chunks:00", &format!("chunks:chunks:{bytes}"), &format!("{bytes}0")] {
            assert_eq!(ContentId::parse(bad), None, "{bad}");
        }
    }
}
