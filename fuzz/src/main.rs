//! One fuzzer for all targets: `NEXUS_FUZZ` names the one that is fuzzed, and without it all names are printed. See `.ci/fuzz`.

#![no_main]

use std::sync::OnceLock;

use arbitrary::Unstructured;
use libfuzzer_sys::{Corpus, fuzz_target};
use nexus::fuzzing::{Target, all};

fn target() -> Target {
    static TARGET: OnceLock<Target> = OnceLock::new();
    *TARGET.get_or_init(|| {
        let named = std::env::var("NEXUS_FUZZ").ok();
        all().find(|(name, _)| named.as_deref() == Some(name)).unwrap_or_else(|| {
            all().for_each(|(name, _)| println!("{name}"));
            std::process::exit(i32::from(named.is_some()));
        })
    })
}

fuzz_target!(init: { let _ = target(); }, |input: &[u8]| -> Corpus {
    match (target().1)(&mut Unstructured::new(input)) {
        Ok(()) => Corpus::Keep,
        // It does not reach for a whole case.
        Err(_) => Corpus::Reject,
    }
});
