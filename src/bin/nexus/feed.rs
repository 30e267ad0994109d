//! Content of the host on its way in: at once when it is small, else piece by piece.

use std::io::{self, Read};

use nexus::syscall::{SysWrite, Written};
use nexus::{Bytes, Error, ErrorKind, Nexus, Op, Result};
use parking_lot::Mutex;

/// Content up to this many bytes goes in the call, where hooks see it; more is streamed.
pub(crate) const AT_ONCE_MAX: u64 = 1 << 20;

/// How much of what is streamed is read at once.
const PIECE: u64 = 1 << 20;

/// Does what `call`, which has no bytes, says with those that `reader` gives. The outer error is that of the reader.
pub(crate) async fn write(
    nx: &Nexus,
    mut call: SysWrite,
    mut reader: impl Read + Send,
) -> io::Result<Result<Written>> {
    let first = piece(&mut reader, AT_ONCE_MAX + 1)?;
    if first.len() as u64 <= AT_ONCE_MAX {
        call.data = vec![first];
        return Ok(nx.send(call).await);
    }
    let broken = Mutex::new(None);
    let rest = std::iter::from_fn(|| match piece(&mut reader, PIECE) {
        Ok(piece) => (!piece.is_empty()).then_some(Ok(piece)),
        Err(error) => {
            *broken.lock() = Some(error);
            Some(Err(Error::global(Op::Write, ErrorKind::Io)))
        }
    });
    let pieces = std::iter::once(Ok(first)).chain(rest);
    let written = nx.send_stream(call, futures_util::stream::iter(pieces)).await;
    broken.into_inner().map_or(Ok(written), Err)
}

/// The next bytes: fewer than asked for only at the end.
fn piece(reader: &mut impl Read, max: u64) -> io::Result<Bytes> {
    let mut data = Vec::new();
    reader.take(max).read_to_end(&mut data)?;
    Ok(data.into())
}
