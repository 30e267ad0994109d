//! What the environment of the process may say, and what it may not: each test runs itself again in an environment of its own.

use std::process::Command;
use std::time::Duration;

use nexus_actors::block_on;
use nexus_drivers::catalogue;
use nexus_kernel::hal::{DriverContext, PathWrite};
use nexus_messages::syscall::MountSpec;

use crate::servers::s3::{BUCKET, KEY, request};
use crate::servers::small::Small;
use crate::subjects::{env, open, read, s3, try_open, write};

/// Set in the process that a test starts: the port of the server that is meant.
const CHILD: &str = "NEXUS_TEST_SERVER";

const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The port that is meant, in the process that was started for it.
fn meant() -> Option<u16> {
    std::env::var(CHILD).ok().map(|port| port.parse().expect("it is a port"))
}

/// Runs the test `name` by itself: `meant` is the server that it is to speak to, `proxy` is between it and all others, and `around` is in its environment.
fn by_itself(name: &str, meant: &Small, proxy: &Small, around: &[(&str, String)]) {
    let mut child = Command::new(std::env::current_exe().expect("it runs"));
    child.args(["--exact", name]).env(CHILD, meant.port().to_string());
    for variable in PROXIES {
        child.env(variable, format!("http://127.0.0.1:{}", proxy.port()));
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy");
    child.envs(around.iter().map(|(name, value)| (name, value)));
    let ended = child.output().expect("it can be started");
    let (said, failed) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && said.contains("1 passed"), "{said}{failed}");
}

/// One that gives up at once.
fn hasty(driver: &str) -> MountSpec {
    MountSpec::new(driver).option("retries", "0").option("timeout_ms", "3000").option("allow_http", "true")
}

/// Mounts that take their credentials from the environment, as they are remembered: no server is said, so it is the provider's own.
fn remembered() -> Vec<MountSpec> {
    vec![
        hasty("s3").option("bucket", BUCKET),
        #[cfg(feature = "azure")]
        hasty("azure").option("container", BUCKET).option("account", "nobody"),
        #[cfg(feature = "gcs")]
        hasty("gcs").option("bucket", BUCKET),
    ]
}

#[test]
fn the_server_of_a_mount_is_the_one_that_is_written_down_whatever_the_environment_says() {
    let name = "around::the_server_of_a_mount_is_the_one_that_is_written_down_whatever_the_environment_says";
    let Some(port) = meant() else {
        let [meant, proxy, other] = [(); 3].map(|()| Small::start(Duration::ZERO));
        let there = format!("http://127.0.0.1:{}", other.port());
        let key = r#"{"private_key": "k", "private_key_id": "k", "client_email": "nobody", "disable_oauth": true, "gcs_base_url": "URL"}"#;
        let around = [
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL_S3", there.clone()),
            ("AWS_ENDPOINT_URL", there.clone()),
            ("AZURE_STORAGE_ACCOUNT_KEY", "bm9ib2R5".to_owned()),
            ("AZURE_STORAGE_ENDPOINT", there.clone()),
            ("AZURITE_BLOB_STORAGE_URL", there.clone()),
            ("AZURE_STORAGE_USE_EMULATOR", "true".to_owned()),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", key.replace("URL", &there)),
            ("GOOGLE_BASE_URL", there.clone()),
        ];
        by_itself(name, &meant, &proxy, &around);
        assert_eq!(other.requests(), 0, "it was asked");
        assert!(meant.requests() > 0 && proxy.requests() >= 3, "those that are written down are asked");
        return;
    };
    let said = hasty("s3").option("bucket", BUCKET).option("endpoint", format!("http://127.0.0.1:{port}"));
    let store = open(&said);
    write(&*store, "f", "there", PathWrite::Whole).expect("it is written");
    assert!(request(port, "GET /bkt/f HTTP/1.1").starts_with("HTTP/1.1 200"), "it went elsewhere");
    for spec in remembered() {
        // What is remembered is not checked again.
        let factory = catalogue().get(&spec.driver).expect("it is there").clone();
        let context = DriverContext::new(env(), env().pool("mount", 2, 8), None);
        let error = block_on(factory.open(&spec, context))
            .expect_err("it is on another machine, behind a proxy that lets nobody through");
        assert!(error.is_backend_failure(), "{spec:?}: {error:?}");
    }
    // Before a mount is made, the environment may say where it is to be.
    for spec in remembered() {
        let said = catalogue().settled(spec).options.get("endpoint").cloned();
        assert!(said.is_some_and(|said| said.starts_with("http://127.0.0.1:")));
    }
}

/// Where it says more than can be written down.
#[cfg(feature = "azure")]
#[test]
fn a_mount_is_not_made_whose_server_only_the_environment_knows() {
    let name = "around::a_mount_is_not_made_whose_server_only_the_environment_knows";
    if meant().is_none() {
        let [meant, proxy] = [(); 2].map(|()| Small::start(Duration::ZERO));
        by_itself(name, &meant, &proxy, &[("AZURE_STORAGE_USE_EMULATOR", "true".to_owned())]);
        return;
    }
    let spec = hasty("azure").option("container", BUCKET).option("account", "nobody");
    let error = catalogue().check(&spec).expect_err("it is refused");
    assert!(error.to_string().contains("AZURE_STORAGE_USE_EMULATOR"), "{error}");
    for (key, value) in [("endpoint", "http://127.0.0.1:1"), ("access_key", "bm9ib2R5")] {
        catalogue().check(&spec.clone().option(key, value)).expect("then it does not count");
    }
}

#[test]
fn what_goes_to_this_machine_goes_to_no_proxy() {
    let name = "around::what_goes_to_this_machine_goes_to_no_proxy";
    let Some(port) = meant() else {
        let [meant, proxy] = [(); 2].map(|()| Small::start(Duration::ZERO));
        by_itself(name, &meant, &proxy, &[]);
        assert!(meant.requests() > 0);
        assert_eq!(proxy.requests(), 0, "it has seen what was signed");
        return;
    };
    let store = open(&s3(port));
    write(&*store, "f", "there", PathWrite::Whole).expect("it is written");
    assert_eq!(&read(&*store, "f").expect("it is read")[..], b"there");
    #[cfg(feature = "http")]
    assert_eq!(&read(&*open(&crate::web::mount(port)), "bkt/f").expect("it is read")[..], b"there");
}

/// As Amazon's own tools have them. Without them the machine is asked, which is no machine of Amazon's.
#[test]
fn credentials_are_found_in_the_profile_that_is_named() {
    let name = "around::credentials_are_found_in_the_profile_that_is_named";
    let Some(port) = meant() else {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("credentials");
        let text = "[mine]\naws_access_key_id = me\naws_secret_access_key = hunter2\n";
        std::fs::write(&file, text).expect("there is room");
        let [meant, proxy] = [(); 2].map(|()| Small::start(Duration::ZERO));
        let around = |profile: &str| {
            let file = file.to_str().expect("it is text").to_owned();
            [("AWS_SHARED_CREDENTIALS_FILE", file), ("AWS_PROFILE", profile.to_owned())]
        };
        by_itself(name, &meant, &proxy, &around("mine"));
        by_itself(name, &meant, &proxy, &around("nobody"));
        return;
    };
    let spec = hasty("s3").option("bucket", BUCKET).option("endpoint", format!("http://127.0.0.1:{port}"));
    if std::env::var("AWS_PROFILE").is_ok_and(|profile| profile == "mine") {
        write(&*open(&spec), "f", "there", PathWrite::Whole).expect("it is written");
        return;
    }
    let refused = try_open(&spec).expect_err("there is no such profile");
    assert!(refused.to_string().contains("AWS_PROFILE: it is \"nobody\""), "{refused}");
}
