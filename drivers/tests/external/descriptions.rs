//! Descriptions that make no sense are refused, in words that name the file, the field and the cause; and all examples are good ones.

use nexus_actors::Env;
use nexus_drivers::catalogue;
use nexus_drivers::external::Connectors;
use nexus_kernel::hal::{ConnectorCategory, DriverContext, StoreError};
use nexus_messages::EntryType;
use nexus_messages::syscall::MountSpec;

use crate::server::{Answer, Server};
use crate::subjects::{described, example, open, try_open};

const CREDENTIAL: &str = "hunter22-in-the-clear";

fn refused(text: &str, saying: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(|_| Answer::of(404, ""));
    let error = try_open(&described(&server, folder.path(), text)).expect_err(saying);
    let said = error.to_string();
    assert!(matches!(error, StoreError::BadOption { .. }), "{error:?}");
    assert!(said.contains("described.toml") && said.contains(saying), "{said}");
    assert!(!said.contains(CREDENTIAL), "{said}");
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let read = "[[route]]\npath = \"a\"\nread = { url = \"/a\" }\n";
    refused("route = []", "route: there are 0");
    refused("[[route]]\npath = \"a\"", "route \"a\": it needs read");
    let below = "[[route]]\npath = \"{id}.x\"\nread = { url = \"/{id}\" }\n[[route]]\npath = \"{id}.x/y\"\nread = { url = \"/y\" }";
    refused(below, "route \"{..}.x\": read: it is a directory");
    refused(
        "[[route]]\npath = \"a/../b\"\nread = { url = \"/a\" }",
        "route \"a/../b\": path: \"..\" is no name",
    );
    refused("[[route]]\npath = \"a\"\nread = { url = \"/{b}\" }", "read: url: \"/{b}\" names {b}");
    refused("[[route]]\npath = \"a\"\nread = { url = \"a\" }", "read: url: it must begin with a slash");
    refused("[[route]]\npath = \"a\"\nread = { url = \"/a?b\" }", "read: url: it is no path of a URL");
    refused("[[route]]\npath = \"a\"\nread = { ulr = \"/a\" }", "line 5: unknown field `ulr`");
    refused(&format!("limits = {{ pages = 0 }}\n{read}"), "limits.pages: it is 0, and must be from 1");
    refused(&format!("rate = {{ requests = 0, per_ms = 1 }}\n{read}"), "rate.requests: it is 0");
    refused(&format!("headers = {{ \"a b\" = \"x\" }}\n{read}"), "headers.a b");
    let auth = format!("auth = {{ kind = \"bearer\", token = \"{CREDENTIAL}\" }}\n{read}");
    refused(&auth, "auth.token: a description holds no credential");
    let relative = format!("auth = {{ kind = \"bearer\", token = \"file:keys/one\" }}\n{read}");
    refused(&relative, "auth.token: \"file:keys/one\" must be an absolute path");
    refused(&format!("auth = {{ kind = \"magic\" }}\n{read}"), "unknown variant `magic`");
    refused(&format!("[auth]\nkind = \"bearer\"\ntoken = \"env:X_Y\"\nx = 1\n{read}"), "unknown field `x`");
    let list = "[[route]]\npath = \"a\"\nlist = { url = \"/a\", fields = { name = \"id\" } }";
    refused(list, "list: fields.name: \"id\" is no JSON pointer");
}

#[test]
fn a_server_must_be_one_that_nobody_listens_to() {
    let check = |base: &str, saying: &str| {
        let text = format!(
            "{{\"connector\": \"rest\", \"base\": \"{base}\", \"route\": [{{\"path\": \"a\", \"read\": {{\"url\": \"/a\"}}}}]}}"
        );
        let opened = try_open(&MountSpec::new("rest").option("description", text));
        match saying {
            "" => drop(opened.expect(base)),
            saying => {
                let said = opened.expect_err(base).to_string();
                assert!(
                    said.contains("base: ") && said.contains(saying) && !said.contains(CREDENTIAL),
                    "{said}"
                );
            }
        }
    };
    check("https://api.example", "");
    check("http://127.0.0.1:1/v1", "");
    check("http://[::1]:1", "");
    check("http://api.example", "allow_http");
    check(&format!("https://me:{CREDENTIAL}@api.example"), "password");
    check("https://api.example/?a=b", "query");
    check("ftp://api.example", "https://");
    check("api.example", "a URL");
}

#[test]
fn a_description_is_of_one_connector() {
    let said = |driver: &str, file: &str| {
        let spec = MountSpec::new(driver)
            .option("description", example(file))
            .option("parameters", "repo=/,base=http://localhost");
        try_open(&spec).expect_err("refused").to_string()
    };
    assert!(said("rest", "git.toml").contains("git.toml"));
    assert!(said("command", "files.toml").contains("files.toml"));
    let missing =
        try_open(&MountSpec::new("rest").option("description", "/no/such.toml")).expect_err("refused");
    assert!(missing.to_string().starts_with("description: the file \"/no/such.toml\""), "{missing}");
    let nothing = try_open(&MountSpec::new("rest")).expect_err("refused");
    assert!(nothing.to_string().contains("needs the option \"description\""), "{nothing}");
}

#[test]
fn every_example_is_a_good_one() {
    let open = |driver: &str, file: &str, parameters: &str| {
        let spec =
            MountSpec::new(driver).option("description", example(file)).option("parameters", parameters);
        open(&spec.option("token", "x").option("refresh_token", "x").option("client_secret", "x")).connector()
    };
    assert_eq!(open("rest", "files.toml", "base=https://files.example"), Some(ConnectorCategory::Api));
    assert_eq!(open("rest", "github.toml", "owner=a,repo=b"), Some(ConnectorCategory::Api));
    assert_eq!(open("rest", "calendar.toml", "client=a"), Some(ConnectorCategory::OAuth));
    assert_eq!(open("command", "git.toml", "repo=/"), Some(ConnectorCategory::Cli));
    assert_eq!(open("command", "folder.toml", "folder=/tmp"), Some(ConnectorCategory::Cli));
}

#[test]
fn what_a_connector_has_not_answered_yet_is_not_acknowledged() {
    let spec = MountSpec::new("rest")
        .option("description", example("files.toml"))
        .option("parameters", "base=https://files.example")
        .option("token", "x")
        .option("write_back", "yes");
    let refused = try_open(&spec).expect_err("refused").to_string();
    assert!(refused.contains("write_back") && refused.contains("connector"), "{refused}");
}

#[test]
fn the_description_in_the_readme_is_a_good_one() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).expect("it is there");
    let blocks = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let folder = tempfile::tempdir().expect("a folder");
    let mut found = 0;
    for block in blocks.filter(|block| block.starts_with("connector = ")) {
        let file = folder.path().join("readme.toml");
        std::fs::write(&file, block).expect("it is written");
        let spec = MountSpec::new("rest").option("description", file.to_str().expect("it is text"));
        open(&spec.option("token", "x"));
        found += 1;
    }
    assert_eq!(found, 1);
}

#[test]
fn connectors_are_known_by_name_and_category() {
    let mut connectors = Connectors::built_in();
    assert_eq!(connectors.of(ConnectorCategory::Api).collect::<Vec<_>>(), ["rest"]);
    assert_eq!(connectors.of(ConnectorCategory::OAuth).collect::<Vec<_>>(), ["rest"]);
    assert_eq!(connectors.of(ConnectorCategory::Cli).collect::<Vec<_>>(), ["command"]);
    let again = connectors.get("rest").expect("it is there");
    assert!(matches!(connectors.add(again), Err(StoreError::Exists { .. })));
    let catalogue = catalogue();
    assert_eq!(catalogue.mount_type("rest"), EntryType::ExternalStorage);
    assert_eq!(catalogue.mount_type("memory"), EntryType::Mount);
    assert_eq!(catalogue.mount_type("floppy"), EntryType::Mount);
}

#[test]
fn a_simulation_has_neither_servers_nor_programs() {
    let (env, _simulation) = Env::seeded(1);
    for (driver, file) in [("rest", "files.toml"), ("command", "git.toml")] {
        let context = DriverContext::new(env.clone(), env.pool("mount", 1, 1), None);
        let factory = catalogue().get(driver).expect("it is there");
        let opening = factory.open(&MountSpec::new(driver).option("description", example(file)), context);
        let opened = env.blocking_wait(opening);
        assert!(matches!(opened, Err(StoreError::NotSupported { .. })), "{opened:?}");
    }
}

#[test]
fn the_file_of_a_description_is_the_same_wherever_the_kernel_works() {
    let settled = |driver: &str, given: &str| {
        let spec = catalogue().settled(MountSpec::new(driver).option("description", given));
        spec.options["description"].clone()
    };
    let here = std::env::current_dir().expect("there is one");
    for driver in ["rest", "command"] {
        assert_eq!(settled(driver, "a/b.toml"), here.join("a/b.toml").to_str().expect("it is text"));
        for same in ["/a/b.toml", " {\"connector\": \"rest\"}"] {
            assert_eq!(settled(driver, same), same);
        }
    }
}

#[test]
fn the_file_of_a_secret_is_remembered_as_an_absolute_path() {
    let check = |driver: &str, key: &str, given: &str, expected: &str| {
        let settled = catalogue().settled(MountSpec::new(driver).option(key, given));
        assert_eq!(settled.options[key], expected, "{driver} {key} {given}");
        assert_eq!(catalogue().settled(settled.clone()).options, settled.options, "twice is once");
    };
    let here = std::path::absolute("keys/one").expect("it has a folder");
    let absolute = format!("file:{}", here.display());
    for (driver, key) in [("rest", "token"), ("command", "client_secret"), ("s3", "secret_key")] {
        if catalogue().get(driver).is_none() {
            continue;
        }
        check(driver, key, "file:keys/one", &absolute);
        for same in ["file:/keys/one", "file:", "env:KEY", "keys/one"] {
            check(driver, key, same, same);
        }
    }
    check("rest", "parameters", "file:keys/one", "file:keys/one"); // It is no secret, and so no place of one.
}
