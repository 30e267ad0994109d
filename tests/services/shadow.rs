//! A version on trial in shadow: it is given copies of real calls, and its answers reach nobody.

use nexus::{Config, ErrorKind, SwapOptions};

use crate::counter::{self, Counter, Counter2, Fault, Next, SOON};
use crate::policy::{Policy, Rule};

#[tokio::test]
async fn a_version_that_agrees_is_promoted() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    let counter = nx.register::<Counter>("counter", counter::Config::exclusive()).await.unwrap();
    for sum in 1..=5 {
        assert_eq!(counter.call(Next, SOON).await.unwrap(), sum);
    }
    let options = SwapOptions::new().shadow(20);
    let swap = nx.swap_with::<Counter2>("counter", counter::Config::exclusive(), options);
    let calls = async {
        for sum in 6.. {
            if nx.services().unwrap()[0].swaps == 1 {
                return sum;
            }
            assert_eq!(counter.call(Next, SOON).await.unwrap(), sum, "callers are answered by the old one");
        }
        unreachable!("the loop has no end")
    };
    let (report, sum) = tokio::join!(swap, calls);
    let report = report.unwrap();
    assert!(report.agreed.is_some_and(|agreed| agreed >= 20), "{report:?}");
    assert_eq!(report.to.version, "2.0.0");
    assert_eq!(counter.call(Next, SOON).await.unwrap(), sum, "with the state of the old one at the end");
    nx.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_version_that_answers_otherwise_never_serves() {
    for (fault, says) in
        [(Fault::Wrong, "its answer to counter.next was another"), (Fault::Serving, "it ended: panicked")]
    {
        let nx = nexus::connect(Config::in_memory()).await.unwrap();
        let counter = nx.register::<Counter>("counter", counter::Config::default()).await.unwrap();
        let options = SwapOptions::new().shadow(10);
        let swap = nx.swap_with::<Counter2>("counter", counter::Config::fault(fault), options);
        let calls = async {
            for sum in 1.. {
                if nx.services().unwrap()[0].failed_swaps == 1 {
                    return;
                }
                assert_eq!(counter.call(Next, SOON).await.unwrap(), sum, "its answers reach nobody");
            }
        };
        let (refused, ()) = tokio::join!(swap, calls);
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::PreconditionFailed, "{refused}");
        let told = refused.to_string();
        assert!(told.contains(says) || told.contains("gave no answer"), "{told}");
        let status = nx.services().unwrap().remove(0);
        assert_eq!((status.serving.unwrap().number, status.swaps), (1, 0));
        nx.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_policy_that_allows_more_is_found_on_trial() {
    let nx = nexus::connect(Config::in_memory()).await.unwrap();
    nx.register::<Policy>("policy", Rule::Forbid).await.unwrap();
    for (rule, promoted) in [(Rule::AllowAll, false), (Rule::Panics, false), (Rule::Forbid, true)] {
        let options = SwapOptions::new().shadow(10);
        let swap = nx.swap_with::<Policy>("policy", rule, options);
        let mut swap = std::pin::pin!(swap);
        let swapped = loop {
            nx.write("/a", "x").await.expect("it is allowed");
            nx.write("/forbidden/a", "x").await.expect_err("it is forbidden");
            if let std::task::Poll::Ready(swapped) = futures_util::poll!(swap.as_mut()) {
                break swapped;
            }
        };
        assert_eq!(swapped.is_ok(), promoted, "{rule:?}: {swapped:?}");
    }
    nx.shutdown().await.unwrap();
}
