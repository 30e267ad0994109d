//! A service that keeps what is costly to make in the cache, filed under what it is made of.

use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus::service::{Declaration, Service, Setup};
use nexus::{ExitReason, SysRead, SysStat, VPath};

/// The sum of the bytes at a path.
#[derive(Debug, Clone)]
pub(crate) struct Digest(pub(crate) VPath);

impl Message for Digest {
    type Reply = nexus::Result<u64>;
    const NAME: &'static str = "digests.digest";
}

pub(crate) struct Digests {
    setup: Setup<Self>,
}

impl Behaviour for Digests {
    type Args = Setup<Self>;
    const NAME: &'static str = "digests";

    fn init(setup: Setup<Self>, _: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(std::future::ready(Ok(Self { setup })))
    }
}

impl Service for Digests {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = ();

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new().exports::<Digest>()
    }
}

impl Handle<Digest> for Digests {
    fn handle(&mut self, Digest(path): Digest, _: &mut Cx<'_, Self>) -> Reply<Self, nexus::Result<u64>> {
        let setup = self.setup.clone();
        Reply::later(async move { digest(&setup, &path).await })
    }
}

async fn digest(setup: &Setup<Digests>, path: &VPath) -> nexus::Result<u64> {
    let (calls, cache) = (setup.calls(), setup.cache());
    let content = calls.send(SysStat::at(path)).await?.content_id.clone();
    // What a content sums up to never changes, so what is old is as good as what is new.
    let key = format!("sum/{content:?}");
    let kept = cache.get(&key).await.and_then(|sum| sum[..].try_into().ok()).map(u64::from_le_bytes);
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let read = calls.send(SysRead::at(path)).await?;
    let sum = read.data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    // Somebody may have written in between: then it is another content's.
    if calls.send(SysStat::at(path)).await?.content_id == content {
        cache.put(&key, sum.to_le_bytes().to_vec(), None).await;
    }
    Ok(sum)
}
