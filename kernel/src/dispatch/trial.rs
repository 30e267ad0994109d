//! Interceptors of a version on trial: shown what the version that serves was shown, and compared with it.

use std::sync::Arc;

use nexus_messages::{HookContext, Verdict};

use crate::caught::catch;
use crate::service::{Before, HookKey, Intercepting, Run, Trial};

/// Shows the version on trial what the caller's version was shown, and compares.
pub(super) fn try_on(
    trial: &Arc<Trial>,
    key: &HookKey,
    mut shown: HookContext,
    (verdict, cx): (&Verdict, &HookContext),
) {
    let tried = trial.generation.clone();
    let Some(Run::Intercept(Intercepting { before: Some(before), .. })) =
        tried.find_hook(key).and_then(|index| tried.hook(index))
    else {
        return trial.differs(format!("it has no hook {:?}", key.name));
    };
    let expected = (verdict.clone(), cx.call.clone());
    let path = shown.call.path().clone();
    match before {
        Before::Inline(run) => match catch(|| run(&mut shown)) {
            Ok(Some(verdict)) => {
                let equal = agree(&(verdict, shown.call), &expected);
                trial.compare(equal, format!("its hook {:?} decided otherwise on {path}", key.name));
            }
            Ok(None) => trial.differs(format!("its hook {:?} has nothing to decide by", key.name)),
            Err(panicked) => trial.differs(format!("its hook {:?} {panicked}", key.name)),
        },
        Before::Mailed { ask, deadline, .. } => {
            let (asked, trial, name): (_, _, &'static str) =
                (ask(&shown, *deadline), trial.clone(), key.name);
            let env = tried.env().clone();
            env.spawn("service.shadow", async move {
                match asked.await {
                    Ok(answer) => {
                        let equal = agree(&(answer.verdict, answer.call), &expected);
                        trial.compare(equal, format!("its hook {name:?} decided otherwise on {path}"));
                    }
                    Err(error) => trial.differs(format!("its hook {name:?} gave no answer: {error}")),
                }
            });
        }
    }
}

/// Whether two decisions are the same to a caller: the words of a refusal may differ.
fn agree<C: PartialEq>(a: &(Verdict, C), b: &(Verdict, C)) -> bool {
    let verdict = |verdict: &Verdict| match verdict {
        Verdict::Refuse { kind, .. } => Some(*kind),
        _ => None,
    };
    verdict(&a.0) == verdict(&b.0) && a.1 == b.1
}
