//! What every driver must do, as claims that a driver either meets or not.
//!
//! A suite takes a maker of fresh subjects and checks each claim on one of its own. It knows nothing of the driver but its trait.
//!
//! ```no_run
//! # fn make() -> nexus_kernel::hal::conformance::metastore::Subject { loop {} }
//! nexus_kernel::hal::conformance::metastore::check(&make).assert_passed();
//! ```

pub mod cache_store;
pub mod metastore;
pub mod object_store;
pub mod record_store;
pub mod stream_store;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What became of one claim; the text says what was found instead.
pub type Verdict = Result<(), String>;

/// What a suite found.
#[derive(Debug, Clone)]
pub struct Report {
    suite: &'static str,
    verdicts: Vec<(&'static str, Verdict)>,
}

impl Report {
    /// Whether every claim holds.
    pub fn passed(&self) -> bool {
        self.verdicts.iter().all(|(_, verdict)| verdict.is_ok())
    }

    /// The claims that do not hold.
    pub fn failed(&self) -> Vec<&'static str> {
        self.verdicts.iter().filter(|(_, verdict)| verdict.is_err()).map(|(claim, _)| *claim).collect()
    }

    /// How many claims were checked.
    pub fn claims(&self) -> usize {
        self.verdicts.len()
    }

    /// Panics with the whole report unless every claim holds.
    pub fn assert_passed(&self) {
        assert!(self.passed(), "{self}");
    }

    /// Panics with the whole report unless `claim` is among those that do not hold.
    pub fn assert_rejected_by(&self, claim: &str) {
        assert!(self.verdicts.iter().any(|(name, _)| *name == claim), "there is no claim {claim}");
        assert!(self.failed().contains(&claim), "{claim} holds\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.failed().len();
        writeln!(f, "{}: {} of {} claims hold", self.suite, self.claims() - failed, self.claims())?;
        for (claim, verdict) in &self.verdicts {
            if let Err(found) = verdict {
                writeln!(f, "  {claim}: {found}")?;
            }
        }
        Ok(())
    }
}

/// A claim of a suite whose subjects are `S`.
type Claim<S> = (&'static str, fn(S) -> Verdict);

/// Lists functions as claims under their own names.
macro_rules! claims {
    ($($claim:ident),* $(,)?) => { &[$((stringify!($claim), $claim)),*] };
}
use claims;

/// Checks each claim on a fresh subject. A claim in which the driver panics does not hold.
fn check_claims<S>(suite: &'static str, claims: &[Claim<S>], make: &dyn Fn() -> S) -> Report {
    let verdict = |claim: &fn(S) -> Verdict| {
        catch_unwind(AssertUnwindSafe(|| claim(make()))).unwrap_or_else(|_| Err("the driver panicked".into()))
    };
    Report { suite, verdicts: claims.iter().map(|(name, claim)| (*name, verdict(claim))).collect() }
}

/// `got` is `want`.
fn same<T: PartialEq + fmt::Debug>(what: &str, got: T, want: T) -> Verdict {
    match got == want {
        true => Ok(()),
        false => Err(format!("{what}: got {got:?}, want {want:?}")),
    }
}

/// `holds`, or else `what` is wrong.
fn ensure(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

/// The value of a call that has no reason to fail.
fn done<T, E: fmt::Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what}: {error}"))
}
