//! Where settings come from, and which source is stronger.

use figment::Jail;
use nexus::{Config, ErrorKind, Profile, blocking};

#[expect(clippy::result_large_err, reason = "the signature of figment's jail")]
/// Runs in an empty current folder, with this environment and these files.
fn jailed(environment: &[(&str, &str)], files: &[(&str, &str)], check: impl FnOnce()) {
    Jail::expect_with(|jail| {
        jail.clear_env();
        environment.iter().for_each(|(name, value)| jail.set_env(name, value));
        for (name, content) in files {
            if let Some((folder, _)) = name.rsplit_once('/') {
                jail.create_dir(folder)?;
            }
            jail.create_file(name, content)?;
        }
        check();
        Ok(())
    });
}

#[track_caller]
fn check_shows(config: &Config, expected: &[&str]) {
    let shown = format!("{config:?}");
    for part in expected {
        assert!(shown.contains(part), "{part} is not in {shown}");
    }
}

#[track_caller]
fn check_refused(environment: &[(&str, &str)], files: &[(&str, &str)], expected: &[&str]) {
    jailed(environment, files, || {
        let error = Config::load().expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        let text = error.to_string();
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    });
}

const FILE: (&str, &str) = (
    "nexus-data/nexus.toml",
    "profile = \"full\"\nio_threads = 5\nsearch_threads = 6\nroot_driver = \"memory\"\n",
);

#[test]
fn code_is_stronger_than_the_environment_and_that_than_the_file() {
    jailed(&[("NEXUS_SEARCH_THREADS", "7"), ("NEXUS_PROFILE", "slim")], &[FILE], || {
        let config = Config::load().unwrap();
        check_shows(
            &config,
            &[
                "profile: Some(Slim)",
                "io_threads: Some(5)",
                "search_threads: Some(7)",
                "kernel_threads: None",
            ],
        );
        check_shows(
            &config.search_threads(8).profile(Profile::Lite),
            &["search_threads: Some(8)", "Some(Lite)"],
        );
    });
}

#[test]
fn the_data_folder_is_said_by_code_or_environment_or_is_the_usual_one() {
    jailed(&[], &[], || check_shows(&Config::load().unwrap(), &["data_folder: Some(\"nexus-data\")"]));
    let elsewhere = ("elsewhere/nexus.toml", "io_threads = 3");
    jailed(&[("NEXUS_DATA_DIR", "elsewhere")], &[FILE, elsewhere], || {
        check_shows(&Config::load().unwrap(), &["data_folder: Some(\"elsewhere\")", "io_threads: Some(3)"]);
        let config = Config::load_from("nexus-data").unwrap();
        check_shows(&config, &["data_folder: Some(\"nexus-data\")", "io_threads: Some(5)"]);
    });
}

#[test]
fn a_file_can_be_named() {
    let named = ("my.toml", "data_folder = \"from-file\"\nio_threads = 9");
    jailed(&[("NEXUS_CONFIG", "my.toml")], &[FILE, named], || {
        check_shows(&Config::load().unwrap(), &["data_folder: Some(\"from-file\")", "io_threads: Some(9)"]);
    });
    jailed(&[], &[FILE, named], || {
        check_shows(&Config::load_file("my.toml").unwrap(), &["io_threads: Some(9)"]);
        assert_eq!(Config::load_file("missing.toml").unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
fn code_alone_reads_neither_file_nor_environment() {
    jailed(&[("NEXUS_IO_THREADS", "0"), ("NEXUS_NONSENSE", "1")], &[FILE], || {
        check_shows(&Config::new("nexus-data"), &["io_threads: None", "profile: None"]);
        let nx = blocking::connect(Config::new("nexus-data")).unwrap();
        assert_eq!(nx.mounts().unwrap()[0].driver, "cas-local");
    });
}

#[test]
fn a_kernel_boots_from_what_was_loaded() {
    jailed(&[("NEXUS_METADATA_CACHE_ENTRIES", "1000")], &[FILE], || {
        let nx = blocking::connect(Config::load().unwrap()).unwrap();
        assert_eq!(nx.mounts().unwrap()[0].driver, "memory");
        assert!(std::path::Path::new("nexus-data/meta.redb").is_file());
    });
}

#[test]
fn other_programs_may_use_the_prefix_too() {
    jailed(&[("NEXUS_URL", "somewhere"), ("NEXUS_IO_THREADS", "3")], &[], || {
        check_shows(&Config::load().unwrap(), &["io_threads: Some(3)"]);
    });
}

#[test]
fn what_is_unknown_or_wrong_is_named_with_its_source() {
    let file = |content| [("nexus-data/nexus.toml", content)];
    check_refused(&[], &file("colour = 1"), &["connect nexus-data: ", "colour", "nexus.toml", "io_threads"]);
    check_refused(&[], &file("io_threads = \"many\""), &["io_threads", "nexus.toml"]);
    check_refused(&[("NEXUS_PROFILE", "fat")], &[], &["fat", "slim", "NEXUS_"]);
    check_refused(&[], &file("io_threads ="), &["nexus.toml"]);
}

#[test]
fn the_cache_is_set_like_the_rest_and_its_password_is_not_shown() {
    jailed(&[("NEXUS_CACHE", "memory")], &[], || {
        check_shows(&Config::load().unwrap(), &["cache: Some(memory)"]);
    });
    let file = ("nexus-data/nexus.toml", "cache = \"redis://:hush-4711@there\"\n");
    jailed(&[("NEXUS_REDIS_PASSWORD", "hush-4712")], &[file], || {
        let shown = format!("{:?}", Config::load().unwrap());
        assert!(shown.contains("cache: Some(a URL)") && !shown.contains("hush"), "{shown}");
    });
    let table = "[cache]\nhost = \"there\"\nport = 7000\ntls = true\npassword = \"hush-4713\"\n";
    jailed(&[], &[("nexus-data/nexus.toml", table)], || {
        let shown = format!("{:?}", Config::load().unwrap());
        assert!(shown.contains("cache: Some(options)") && !shown.contains("hush"), "{shown}");
    });
    jailed(&[("NEXUS_CACHE", "{socket=\"/s\",password=\"hush-4714\",calls_max=[1]}")], &[], || {
        let error = format!("{:?}", Config::load().expect_err("that is no option"));
        assert!(!error.contains("hush"), "{error}");
    });
}

#[test]
fn what_cannot_be_read_is_told_without_its_value() {
    let check = |environment: &[(&str, &str)], file: &str, expected: &[&str]| {
        jailed(environment, &[("nexus-data/nexus.toml", file)], || {
            let error = Config::load().expect_err("it is refused").to_string();
            assert!(!error.contains("4711"), "{error}");
            for part in expected {
                assert!(error.contains(part), "{part:?} is not in {error:?}");
            }
        });
    };
    let at = ["secret_key", "nexus.toml", "expected a string"];
    check(&[], "root_options = { secret_key = 4711 }", &at);
    check(&[], "root_options = \"secret_key=4711\"", &["root_options", "nexus.toml", "expected a map"]);
    check(&[], "cache = \"redis://:4711@h", &["nexus.toml", "line 1, column", "invalid"]);
    check(&[], "io_threads = 1\n[cache]\npassword = 4711x", &["nexus.toml", "line 3, column"]);
    let environment = |value| [("NEXUS_ROOT_OPTIONS", value)];
    check(&environment("{secret_key=4711}"), "", &["NEXUS_", "expected a string"]);
    check(&environment("secret_key=4711"), "", &["NEXUS_", "expected a map"]);
}
