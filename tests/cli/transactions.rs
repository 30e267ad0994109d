//! `tx`: several changes as one, described in JSON.

use serde_json::{Value, json};

use crate::fixture::{Ended, Nexus};

fn tx(nexus: &Nexus, options: &str, plan: &Value) -> Ended {
    nexus.feed(&format!("{options} tx -"), &plan.to_string())
}

fn printed(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|why| panic!("{why}: {ended:?}"))
}

#[test]
fn a_description_is_executed_as_one() {
    let nexus = Nexus::new();
    std::fs::write(nexus.host("picture"), [0, 159, 146, 150]).expect("there is room");
    let plan = json!({ "ops": [
        { "op": "write", "path": "/plan.md", "text": "1. think\n", "mode": "600" },
        { "op": "append", "path": "/plan.md", "text": "2. act\n" },
        { "op": "create", "path": "/picture", "file": "picture" },
        { "op": "mkdir", "path": "/done" },
        { "op": "rename", "from": "/picture", "to": "/done/picture" },
        { "op": "edit", "path": "/plan.md", "old": "think", "new": "look" },
    ]});
    std::fs::write(nexus.host("plan.json"), plan.to_string()).expect("there is room");
    assert!(nexus.good("tx plan.json").starts_with("6 operations committed as "));
    assert_eq!(nexus.good("cat /plan.md"), "1. look\n2. act\n");
    assert_eq!(nexus.good("ls -R /"), "/done\n/done/picture\n/plan.md\n");

    let ended = tx(
        &nexus,
        "--json",
        &json!({ "op_id": "c0ffee", "ops": [
            { "op": "check", "path": "/done/picture", "if_version": 1 },
            { "op": "unlink", "path": "/done", "recursive": true },
            { "op": "setattr", "path": "/plan.md", "mode": "644", "if_version": 3 },
        ]}),
    );
    assert_eq!((ended.status, &*ended.err), (0, ""));
    let first = printed(&ended);
    assert_eq!((&first["repeated"], &first["durability"]), (&json!(false), &json!("strong")));
    let results = first["results"].as_array().expect("there are three");
    assert_eq!((&results[0]["op"], &results[0]["version"]), (&json!("check"), &json!(1)));
    assert_eq!((&results[1]["op"], &results[1]["removed"]), (&json!("unlink"), &json!(2)));
    assert_eq!(results[2]["version"], 3);
    let again = printed(&tx(
        &nexus,
        "--json",
        &json!({ "op_id": "c0ffee", "ops": [
            { "op": "unlink", "path": "/plan.md" },
        ]}),
    ));
    assert_eq!((&again["repeated"], &again["lsn"]), (&json!(true), &first["lsn"]));
    assert_eq!(nexus.good("ls /"), "plan.md\n");
}

#[test]
fn it_is_told_what_became_of_an_operation() {
    let nexus = Nexus::new();
    let plan = json!({ "op_id": "c0ffee", "ops": [{ "op": "write", "path": "/a", "text": "x" }] });
    let committed = printed(&tx(&nexus, "--json", &plan));
    let told: Value = serde_json::from_str(&nexus.good("--json outcome c0ffee")).expect("it is an object");
    assert_eq!((&told["outcome"], &told["lsn"]), (&json!("committed"), &committed["lsn"]));
    assert_eq!((&told["op"], &told["path"], &told["kept"]), (&json!("tx"), &json!("/a"), &json!(65_536)));
    assert!(nexus.good("outcome c0ffee").starts_with(&format!("committed at {}, strong", told["lsn"])));
    let other = nexus.run("outcome beef --since 1");
    assert_eq!((other.status, &*other.out, &*other.err), (1, "not executed\n", ""));
    let other = nexus.run("--json outcome beef");
    assert_eq!((other.status, &printed(&other)["outcome"]), (1, &json!("not_executed")));
    assert_eq!(nexus.run("outcome x").status, 2);
}

#[test]
fn who_comes_too_late_is_told_what_was_found_and_nothing_is_done() {
    let nexus = Nexus::new();
    nexus.feed("write /a", "one");
    nexus.feed("write /a", "two");
    let plan = json!({ "ops": [
        { "op": "write", "path": "/b", "text": "x" },
        { "op": "write", "path": "/a", "text": "three", "if_version": 1 },
    ]});
    let ended = tx(&nexus, "", &plan);
    assert_eq!((ended.status, &*ended.out), (1, ""));
    assert_eq!(
        ended.err,
        "nexus: tx ops[1]: write /a: not in the state expected: expected version 1, found version 2 (ECANCELED)\n"
    );
    assert_eq!(nexus.good("ls /"), "a\n");
    let error = &printed(&tx(&nexus, "--json", &plan))["error"];
    assert_eq!(
        (&error["item"], &error["path"], &error["errno"]),
        (&json!(1), &json!("/a"), &json!("ECANCELED"))
    );
    assert_eq!((&error["expected"], &error["found"]["version"]), (&json!({ "version": 1 }), &json!(2)));
    let absent = json!({ "ops": [
        { "op": "check", "path": "/nothing", "if_absent": true },
        { "op": "write", "path": "/c", "text": "x" },
        { "op": "check", "path": "/a", "if_absent": true },
    ]});
    let ended = tx(&nexus, "", &absent);
    assert_eq!(
        ended.err,
        "nexus: tx ops[2]: stat /a: not in the state expected: expected nothing, found version 2 (ECANCELED)\n"
    );
    let gone = json!({ "ops": [{ "op": "unlink", "path": "/a" }, { "op": "unlink", "path": "/a" }] });
    let error = &printed(&tx(&nexus, "--json", &gone))["error"];
    assert_eq!(
        (&error["item"], &error["errno"], &error["found"]),
        (&json!(1), &json!("ENOENT"), &json!(null))
    );
    assert_eq!(nexus.good("cat /a"), "two");
}

#[test]
fn what_makes_no_sense_is_told_with_its_line_before_anything_is_done() {
    let nexus = Nexus::new();
    let text = "{\"ops\": [\n  {\"op\": \"write\", \"path\": \"/a\", \"text\": \"x\"},\n  {\"op\": \"wrte\", \"path\": \"/b\"}\n]}";
    let ended = nexus.feed("tx", text);
    assert_eq!((ended.status, &*ended.out), (2, ""));
    assert!(
        ended.err.starts_with("nexus: tx standard input: ops[1], line 3: unknown variant `wrte`"),
        "{}",
        ended.err
    );
    // For programs too.
    for (text, item, cause) in
        [(text, 1.into(), "ops[1], line 3: unknown variant `wrte`"), ("{", Value::Null, "EOF while parsing")]
    {
        let ended = nexus.feed("tx --json", text);
        assert_eq!(ended.status, 2, "{ended:?}");
        let told: Value = serde_json::from_str(&ended.out).expect("it is one object");
        let error = &told["error"];
        assert_eq!((&error["item"], &error["op"], &error["errno"]), (&item, &"tx".into(), &"EINVAL".into()));
        assert!(error["cause"].as_str().is_some_and(|told| told.starts_with(cause)), "{told}");
        assert!(ended.err.starts_with(&format!("nexus: tx standard input: {cause}")), "{}", ended.err);
    }
    let ended = nexus.run("tx nowhere.json");
    assert_eq!(ended.status, 1);
    assert_eq!(ended.err, "nexus: tx nowhere.json: no such file or directory (ENOENT)\n");
    assert_eq!(nexus.good("ls /"), "");
}

#[test]
fn its_help_tells_the_format() {
    let help = Nexus::new().good("help tx");
    for part in ["\"op\": \"rename\"", "if_version", "Example", "- for standard input", "EXDEV", "--json"] {
        assert!(help.contains(part), "{part} is not in:\n{help}");
    }
}
