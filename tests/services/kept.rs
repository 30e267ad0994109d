//! What becomes of the state of a service under a swap, by its mode, and under a swap back.

use std::time::Duration;

use nexus::actors::{Behaviour, Cx, Handle, LocalBoxFuture, Message, Reply, Start};
use nexus::service::{Carry, Declaration, Service, ServiceRef, Setup};
use nexus::{Config, ExitReason, Kill, Nexus, SwapMode, SwapOptions};
use tokio::sync::{Mutex, Semaphore};

use crate::counter::SOON;

/// Adds one and gives the sum.
struct Add;

/// Gives the sum.
struct Sum;

macro_rules! asked {
    ($($message:ident, $name:literal;)*) => {$(
        impl Message for $message {
            type Reply = u64;
            const NAME: &'static str = $name;
        }
    )*};
}

asked! { Add, "purse.add"; Sum, "purse.sum"; }

/// How many versions have taken a state over and are yet to say that they are fit.
static TAKEN: Semaphore = Semaphore::const_new(0);

/// How many of them may say so.
static FIT: Semaphore = Semaphore::const_new(0);

/// The gate is one.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Keeps a sum in its state alone.
struct Purse {
    sum: u64,
    taken: bool,
}

impl Behaviour for Purse {
    type Args = Setup<Self>;
    const NAME: &'static str = "purse";

    fn init(setup: Setup<Self>, start: Start<Self>) -> LocalBoxFuture<'static, Result<Self, ExitReason>> {
        Box::pin(async move {
            setup.publish(start.generation(), ()).map_err(ExitReason::error)?;
            Ok(Self { sum: 0, taken: false })
        })
    }
}

impl Service for Purse {
    const VERSION: &'static str = "1.0.0";
    type Config = ();
    type View = ();

    fn declare((): &()) -> Declaration<Self> {
        Declaration::new().swap_within(Duration::from_secs(600)).probation(Duration::from_secs(600))
    }

    fn export(&mut self) -> Result<Carry, ExitReason> {
        Carry::of(1, &self.sum)
    }

    fn import(&mut self, carry: Carry) -> Result<(), ExitReason> {
        (self.sum, self.taken) = (carry.take()?, true);
        Ok(())
    }

    fn probe(&mut self) -> LocalBoxFuture<'static, Result<(), ExitReason>> {
        let taken = self.taken;
        Box::pin(async move {
            if taken {
                TAKEN.add_permits(1);
                FIT.acquire().await.map_err(ExitReason::error)?.forget();
            }
            Ok(())
        })
    }
}

impl Handle<Add> for Purse {
    fn handle(&mut self, _: Add, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        self.sum += 1;
        Reply::Now(self.sum)
    }
}

impl Handle<Sum> for Purse {
    fn handle(&mut self, _: Sum, _: &mut Cx<'_, Self>) -> Reply<Self, u64> {
        Reply::Now(self.sum)
    }
}

async fn one_in_a_purse() -> (Nexus, ServiceRef<Purse>) {
    let nx = nexus::connect(Config::in_memory()).await.expect("it boots");
    let purse = nx.register::<Purse>("purse", ()).await.expect("it is registered");
    assert_eq!(purse.call(Add, SOON).await.expect("it answers"), 1);
    (nx, purse)
}

#[tokio::test]
async fn overlap_may_lose_what_the_old_version_acknowledges_after_the_copy_of_its_state() {
    let _alone = ALONE.lock().await;
    let (nx, purse) = one_in_a_purse().await;
    let adding = async {
        TAKEN.acquire().await.unwrap().forget();
        assert_eq!(purse.call(Add, SOON).await.unwrap(), 2, "nobody waits, and it is acknowledged");
        FIT.add_permits(1);
    };
    let options = SwapOptions::new().mode(SwapMode::Overlap);
    let (swapped, ()) = tokio::join!(nx.swap_with::<Purse>("purse", (), options), adding);
    assert_eq!(swapped.unwrap().waited, 0);
    assert_eq!(purse.call(Sum, SOON).await.unwrap(), 1, "as it was when it was copied");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn exclusive_loses_nothing_that_was_acknowledged_since_who_comes_after_the_copy_waits() {
    let _alone = ALONE.lock().await;
    let (nx, purse) = one_in_a_purse().await;
    let adding = async {
        TAKEN.acquire().await.unwrap().forget();
        let mut add = std::pin::pin!(purse.call(Add, SOON));
        assert!(futures_util::poll!(add.as_mut()).is_pending());
        FIT.add_permits(1);
        add.await
    };
    let options = SwapOptions::new().mode(SwapMode::Exclusive);
    let (swapped, added) = tokio::join!(nx.swap_with::<Purse>("purse", (), options), adding);
    assert_eq!((swapped.unwrap().waited, added.unwrap()), (1, 2));
    assert_eq!(purse.call(Sum, SOON).await.unwrap(), 2);
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_swap_back_undoes_what_the_new_version_acknowledged_in_either_mode() {
    let _alone = ALONE.lock().await;
    for mode in [SwapMode::Overlap, SwapMode::Exclusive] {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let purse = nx.register::<Purse>("purse", ()).await.unwrap();
        assert_eq!(purse.call(Add, SOON).await.unwrap(), 1);
        FIT.add_permits(1);
        nx.swap_with::<Purse>("purse", (), SwapOptions::new().mode(mode)).await.unwrap();
        TAKEN.acquire().await.unwrap().forget();
        assert_eq!(purse.call(Add, SOON).await.unwrap(), 2);
        assert!(nx.kill("nexus/services/purse@2", Kill::Panic).await.unwrap());
        let back = async {
            while nx.services().unwrap()[0].serving.as_ref().unwrap().number != 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, back).await.expect("it is swapped back");
        assert_eq!(purse.call(Sum, SOON).await.unwrap(), 1, "{mode:?}: as it was when it was replaced");
        nx.shutdown().await.unwrap();
    }
}
