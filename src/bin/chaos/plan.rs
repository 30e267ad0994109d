//! What a run does to its kernels, drawn from a seed before anything happens. Pure: the same seed gives the same plan.

use std::time::Duration;

use nexus::Kill;
use nexus::actors::{Inject, Moment};
use nexus_drivers::faults::{Fault, Where};
use serde::{Deserialize, Serialize};

/// Kernels that are killed with their process in a run, at least.
pub(crate) const PROCESS_KILLS: usize = 3;

/// The mean time between two faults.
const FAULT_EVERY: Duration = Duration::from_millis(24);

/// The mean time between two wedges. Each costs the time of the watchdog, and many are not seen: their supervisors are killed meanwhile. No two are more than twice
/// as far apart.
const WEDGE_EVERY: Duration = Duration::from_secs(2);

/// The mean time between two swaps of one of the run's own services, and how many of ten are to fail.
const SWAP_EVERY: Duration = Duration::from_millis(180);
const FLAWED_OF_TEN: u64 = 3;

/// The mean time between two swaps of one of the services that are real.
const REAL_SWAP_EVERY: Duration = Duration::from_millis(700);

/// The mean time between two faults of the driver that fails at will.
const DRIVER_FAULT_EVERY: Duration = Duration::from_millis(150);

/// Random numbers: SplitMix64, by Steele, Lea and Flood (2014).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is above 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// A time around `mean`: up to twice as long.
    pub(crate) fn around(&mut self, mean: Duration) -> Duration {
        mean * u32::try_from(self.below(2_000)).unwrap_or(0) / 1_000
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        let at = usize::try_from(self.below(all.len() as u64)).unwrap_or(0);
        all[at]
    }
}

/// Everything that a run does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) lives: Vec<Life>,
}

/// What is done to one kernel, from its boot to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) lasts: Duration,
    pub(crate) end: End,
    pub(crate) faults: Vec<ActorFault>,
    pub(crate) swaps: Vec<Swap>,
    pub(crate) driver_faults: Vec<DriverFault>,
    /// What the clients draw from.
    pub(crate) seed: u64,
}

/// How a kernel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its process is killed, with SIGKILL.
    Killed,
    /// The root of its tree is killed, which nobody restarts.
    RootDies,
    /// It is shut down.
    InOrder,
}

/// A fault of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActorFault {
    /// When, counted from the moment when the kernel serves.
    pub(crate) at: Duration,
    pub(crate) target: Target,
    /// Which of the actors of this kind.
    pub(crate) pick: u64,
    pub(crate) how: Kill,
}

macro_rules! targets {
    ($($name:ident $weight:literal $striking:literal $wedges:literal $kind:literal;)*) => {
        /// A kind of actor that is killed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub(crate) enum Target { $($name),* }

        impl Target {
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];

            /// Where actors of the kind are in the tree, as [`kind_of`] says it.
            pub(crate) fn kind(self) -> &'static str {
                match self { $(Self::$name => $kind),* }
            }

            /// How often it is chosen, against the others.
            fn weight(self) -> u64 {
                match self { $(Self::$name => $weight),* }
            }

            /// How many of ten faults are to strike it while it handles a message.
            fn striking(self) -> u64 {
                match self { $(Self::$name => $striking),* }
            }

            /// Whether a watchdog looks after it that is quick. Nobody ends what blocks the thread of the supervisors; the committer's actor has none; that of the real services
            /// waits for ten seconds.
            fn wedges(self) -> bool {
                match self { $(Self::$name => $wedges),* }
            }
        }
    };
}

// The committer, the upkeep and the locks serve their callers without a message, so there is none to strike; pipes are opened, watches taken up and streams removed too
// seldom for a fault to wait for it.
targets! {
    Store 1 0 false "nexus/store";
    Kernel 2 0 false "nexus/kernel";
    RegistryBranch 2 0 false "nexus/registry";
    Drivers 4 6 false "nexus/drivers";
    Services 4 6 false "nexus/services";
    Committer 9 0 false "nexus/store/committer";
    Upkeep 5 0 false "nexus/store/upkeep";
    Router 14 7 true "nexus/kernel/router";
    Locks 10 0 true "nexus/kernel/locks";
    Advisory 8 0 true "nexus/kernel/advisory";
    Dispatch 14 7 true "nexus/kernel/dispatch";
    Watcher 8 0 true "nexus/kernel/watcher";
    Pipes 6 0 true "nexus/kernel/pipes";
    Streams 6 0 true "nexus/kernel/streams";
    Children 4 0 true "nexus/kernel/children";
    Observers 2 0 false "nexus/kernel/observers";
    Observer 6 5 true "nexus/kernel/observers/*";
    Registry 10 7 true "nexus/registry/services";
    Lifecycle 10 7 true "nexus/registry/lifecycle";
    Driver 8 5 true "nexus/drivers/*";
    Counter 22 9 true "nexus/services/counter";
    Policy 22 9 true "nexus/services/policy";
    Audit 7 6 false "nexus/services/audit";
    Quota 7 6 false "nexus/services/quota";
    Garbage 5 5 true "nexus/garbage";
    Scrub 5 5 true "nexus/scrub";
}

/// The kind of the actor at `path` of the tree: the drivers of all mounts are of one, so are the observers, and the versions of a service.
pub(crate) fn kind_of(path: &str) -> &str {
    if path.starts_with("nexus/drivers/") {
        return Target::Driver.kind();
    }
    if path.starts_with("nexus/kernel/observers/") {
        return Target::Observer.kind();
    }
    path.split('@').next().unwrap_or(path)
}

impl Target {
    /// Who is at `path` of the tree; none when nobody kills such.
    pub(crate) fn at(path: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|target| target.kind() == kind_of(path))
    }
}

/// A swap of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Swap {
    pub(crate) at: Duration,
    pub(crate) service: Which,
    pub(crate) flaw: Flaw,
}

/// The services of the run: one whose calls wait for a swap, one whose versions serve side by side, and two that are real.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Which {
    Counter,
    Policy,
    Audit,
    Quota,
}

/// What is wrong with a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Flaw {
    #[default]
    None,
    StartFails,
    StartPanics,
    ProbeFails,
    ProbePanics,
    ImportFails,
    ImportPanics,
    /// It comes to serve, and breaks then.
    Breaks,
}

impl Flaw {
    const ALL: [Self; 7] = [
        Self::StartFails,
        Self::StartPanics,
        Self::ProbeFails,
        Self::ProbePanics,
        Self::ImportFails,
        Self::ImportPanics,
        Self::Breaks,
    ];
}

/// A fault of the driver that fails at will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DriverFault {
    pub(crate) at: Duration,
    pub(crate) place: Where,
    pub(crate) fault: Fault,
}

impl Plan {
    /// The plan of a run of `seed` that takes about so long.
    pub(crate) fn new(seed: u64, lasts: Duration) -> Self {
        let mut dice = Dice::new(seed);
        let mut ends = vec![End::Killed; PROCESS_KILLS];
        let at = usize::try_from(dice.below(ends.len() as u64 + 1)).unwrap_or(0);
        ends.insert(at, End::RootDies);
        ends.push(End::InOrder);
        let each = lasts / u32::try_from(ends.len()).unwrap_or(1);
        let lives = ends.into_iter().map(|end| {
            // Between half and one and a half of its share, so that the end meets another moment each time.
            let lasts = each / 2 + dice.around(each / 2);
            Life::new(&mut dice, lasts, end)
        });
        Self { lives: lives.collect() }
    }
}

impl Life {
    pub(crate) fn new(dice: &mut Dice, lasts: Duration, end: End) -> Self {
        let mut faults = Vec::new();
        for at in moments(dice, lasts, FAULT_EVERY) {
            let target = target(dice, |_| true);
            faults.push(ActorFault { at, target, pick: dice.roll(), how: how(dice, target) });
        }
        for at in moments(dice, lasts, WEDGE_EVERY) {
            let target = target(dice, Target::wedges);
            faults.push(ActorFault { at, target, pick: dice.roll(), how: wedge(dice) });
        }
        faults.sort_by_key(|fault| fault.at);
        let mut swaps = Vec::new();
        for service in [Which::Counter, Which::Policy] {
            for at in moments(dice, lasts, SWAP_EVERY) {
                let flawed = dice.below(10) < FLAWED_OF_TEN;
                let flaw = if flawed { dice.one_of(&Flaw::ALL) } else { Flaw::None };
                swaps.push(Swap { at, service, flaw });
            }
        }
        for service in [Which::Audit, Which::Quota] {
            let swap = |at| Swap { at, service, flaw: Flaw::None };
            swaps.extend(moments(dice, lasts, REAL_SWAP_EVERY).into_iter().map(swap));
        }
        let mut driver_faults = Vec::new();
        for at in moments(dice, lasts, DRIVER_FAULT_EVERY) {
            let place = dice.one_of(&[
                Where::Look,
                Where::Look,
                Where::Change,
                Where::Change,
                Where::Open,
                Where::Probe,
            ]);
            driver_faults.push(DriverFault { at, place, fault: dice.one_of(&Fault::ALL) });
        }
        Self { lasts, end, faults, swaps, driver_faults, seed: dice.roll() }
    }
}

fn moments(dice: &mut Dice, lasts: Duration, mean: Duration) -> Vec<Duration> {
    let mut moments = Vec::new();
    let mut at = dice.around(mean);
    while at < lasts {
        moments.push(at);
        at += dice.around(mean);
    }
    moments
}

/// One of those that may be.
fn target(dice: &mut Dice, may_be: impl Fn(Target) -> bool) -> Target {
    let weight = |target: Target| if may_be(target) { target.weight() } else { 0 };
    let mut left = dice.below(Target::ALL.iter().map(|target| weight(*target)).sum());
    for target in Target::ALL {
        match left.checked_sub(weight(*target)) {
            Some(rest) => left = rest,
            None => return *target,
        }
    }
    Target::Router
}

fn wedge(dice: &mut Dice) -> Kill {
    dice.one_of(&[
        Kill::Wedge,
        Kill::Wedge,
        Kill::Handling(Inject::Wedge, Moment::Before),
        Kill::Handling(Inject::Wedge, Moment::After),
    ])
}

fn how(dice: &mut Dice, target: Target) -> Kill {
    if dice.below(10) < target.striking() {
        let fault = dice.one_of(&[Inject::Panic, Inject::Error, Inject::Kill]);
        return Kill::Handling(fault, dice.one_of(&[Moment::Before, Moment::After]));
    }
    dice.one_of(&[Kill::Panic, Kill::Error, Kill::Brutal])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn one_seed_gives_one_plan() {
        assert_eq!(Plan::new(7, MINUTE), Plan::new(7, MINUTE));
        assert_ne!(Plan::new(7, MINUTE), Plan::new(8, MINUTE));
    }

    #[test]
    fn a_plan_of_a_minute_has_enough_of_everything() {
        for seed in 0..50 {
            let plan = Plan::new(seed, MINUTE);
            let faults: Vec<_> = plan.lives.iter().flat_map(|life| &life.faults).collect();
            // Some escape, such as those of a version that is replaced meanwhile.
            assert!(faults.len() > 1_300, "{}", faults.len());
            let wedges = faults.iter().filter(|fault| is_wedge(fault.how)).count();
            assert!(wedges > 12, "{wedges} under {seed}");
            for target in Target::ALL {
                assert!(faults.iter().any(|fault| fault.target == *target), "{target:?} under {seed}");
            }
            let swaps = || plan.lives.iter().flat_map(|life| &life.swaps);
            assert!(swaps().filter(|swap| swap.flaw == Flaw::None).count() > 200);
            assert!(swaps().filter(|swap| swap.flaw != Flaw::None).count() > 60);
            for which in [Which::Audit, Which::Quota] {
                assert!(swaps().filter(|swap| swap.service == which).count() > 40);
            }
            let kills = plan.lives.iter().filter(|life| life.end == End::Killed).count();
            assert_eq!(kills, PROCESS_KILLS);
        }
    }

    #[test]
    fn an_actor_is_known_by_its_path_and_one_that_is_new_by_nobody() {
        assert_eq!(Target::at("nexus/drivers/root-1"), Some(Target::Driver));
        assert_eq!(Target::at("nexus/services/audit@17"), Some(Target::Audit));
        assert_eq!(Target::at("nexus/services"), Some(Target::Services));
        assert_eq!(Target::at("nexus/kernel/observers/deaf@7"), Some(Target::Observer));
        assert_eq!(Target::at("nexus/registry/services"), Some(Target::Registry));
        assert_eq!(
            (Target::at("nexus/kernel/federation"), kind_of("nexus/kernel/federation")),
            (None, "nexus/kernel/federation")
        );
    }

    fn is_wedge(kill: Kill) -> bool {
        matches!(kill, Kill::Wedge | Kill::Handling(Inject::Wedge, _))
    }

    #[test]
    fn no_supervisor_is_wedged() {
        let plan = Plan::new(1, 20 * MINUTE);
        for fault in plan.lives.iter().flat_map(|life| &life.faults).filter(|fault| is_wedge(fault.how)) {
            assert!(fault.target.wedges());
        }
    }
}
