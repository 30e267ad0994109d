//! Large content in parts, from buffers that are at hand.
//!
//! The buffers are handed on as they are; nothing is copied. A few parts are under way at once. The server shows nothing of it until the last step, so a reader
//! sees the old content or the new one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use nexus_actors::Env;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, PutResult};

/// How many parts of one content are under way at once.
const PARTS_AT_ONCE: usize = 4;

/// Writes `data` in parts of `part` bytes. Parts of one that fails, or is given up, are taken away, which may take up to `limit`.
pub(super) async fn put(
    env: Env,
    store: Arc<dyn ObjectStore>,
    at: Path,
    data: Vec<Bytes>,
    part: u64,
    limit: Duration,
) -> Result<PutResult, object_store::Error> {
    let upload = store.put_multipart_opts(&at, PutMultipartOptions::default()).await?;
    let mut begun = Begun { env, limit, upload: Some(upload) };
    let Some(upload) = begun.upload.as_mut() else { unreachable!("it was put there") };
    let parts: Vec<_> = parts(data, part).into_iter().map(|part| upload.put_part(part)).collect();
    stream::iter(parts).map(Ok).try_for_each_concurrent(PARTS_AT_ONCE, |part| part).await?;
    let put = upload.complete().await?;
    begun.upload = None;
    Ok(put)
}

/// `data` in pieces of `part` bytes, the last of which may be shorter.
fn parts(data: Vec<Bytes>, part: u64) -> Vec<PutPayload> {
    let part = usize::try_from(part).unwrap_or(usize::MAX);
    let (mut parts, mut held, mut room) = (Vec::new(), Vec::new(), part);
    for mut buffer in data {
        while !buffer.is_empty() {
            let piece = buffer.split_to(room.min(buffer.len()));
            room -= piece.len();
            held.push(piece);
            if room == 0 {
                parts.push(std::mem::take(&mut held).into_iter().collect());
                room = part;
            }
        }
    }
    if !held.is_empty() {
        parts.push(held.into_iter().collect());
    }
    parts
}

/// An upload that was begun. Unless it ends well, the server is told to forget it: it would keep, and bill, the parts that it has.
struct Begun {
    env: Env,
    limit: Duration,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(mut upload) = self.upload.take() else { return };
        let (env, limit) = (self.env.clone(), self.limit);
        self.env.spawn("remote.abort", async move {
            match env.timeout(limit, upload.abort()).await {
                Ok(Ok(())) => {}
                // Its text may repeat a request.
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!("parts of an upload that was given up may stay on the server");
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_one_size_and_keep_the_order() {
        let check = |buffers: &[&'static [u8]], expected: &[&[u8]]| {
            let data = buffers.iter().map(|buffer| Bytes::from_static(buffer)).collect();
            let parts: Vec<_> = parts(data, 3).into_iter().map(|part| Bytes::from(part).to_vec()).collect();
            assert_eq!(parts, expected);
        };
        check(&[], &[]);
        check(&[b"ab", b"", b"c"], &[b"abc"]);
        check(&[b"abcdefg", b"h", b"ij"], &[b"abc", b"def", b"ghi", b"j"]);
    }
}
