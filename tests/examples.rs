//! Each example of embedding runs to its end, and finds what it expects.

use std::path::PathBuf;
use std::process::Command;

/// Where cargo puts the examples that it builds with the tests: beside the folder of this one.
fn built(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.ancestors().nth(2).expect("it is in target/PROFILE/deps");
    profile.join("examples").join(example).with_extension(std::env::consts::EXE_EXTENSION)
}

#[track_caller]
fn check(example: &str) {
    let program = built(example);
    let ran = Command::new(&program).output();
    let ran = ran
        .unwrap_or_else(|error| panic!("{}: {error} (`cargo build --examples` makes it)", program.display()));
    let (said, complained) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{example} ended with {}\n{said}{complained}", ran.status);
    assert_eq!(said.lines().last(), Some(&*format!("{example}: done")), "{said}{complained}");
}

#[test]
fn a_plain_tokio_program_runs() {
    check("tokio");
}

#[test]
fn a_supervisor_with_the_kernel_and_two_actors_runs() {
    check("supervised");
}

#[test]
fn an_actix_application_runs() {
    check("actix");
}

#[test]
fn a_synchronous_program_runs() {
    check("synchronous");
}
