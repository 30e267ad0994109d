//! Paths: what is one, and that nothing else gets past the door.

use crate::script::check;

/// Every call that takes a path, with `PATH` in its place.
const CALLS: [&str; 22] = [
    "write PATH x",
    "append PATH x",
    "overwrite PATH x",
    "write_new PATH x",
    "pwrite PATH 0 x",
    "edit PATH a b",
    "read PATH",
    "stat PATH",
    "lstat PATH",
    "exists PATH",
    "mkdir PATH",
    "mkdir_new PATH",
    "touch PATH",
    "link PATH /f",
    "rmdir PATH",
    "unlink PATH",
    "remove_all PATH",
    "rename PATH /g",
    "rename /f PATH",
    "copy PATH /g",
    "copy /f PATH",
    "ls PATH",
];

#[test]
fn what_is_no_path_is_refused_by_every_call() {
    let long_name = format!("/{}", "n".repeat(256));
    let long_path = "/abc".repeat(1_025);
    let bad = [
        ("\"\"", "EINVAL"),
        ("rel/path", "EINVAL"),
        (".", "EINVAL"),
        ("/a/../f", "EINVAL"),
        ("/..", "EINVAL"),
        ("/./f", "EINVAL"),
        ("/f\\0", "EINVAL"),
        (long_name.as_str(), "ENAMETOOLONG"),
        (long_path.as_str(), "ENAMETOOLONG"),
    ];
    let mut script = String::from("write /f content\n");
    for (path, errno) in bad {
        for call in CALLS {
            script += &format!("{} ! {errno}\n", call.replace("PATH", path));
        }
    }
    check(&script);
}

#[test]
fn repeated_and_trailing_slashes_mean_nothing() {
    check(
        "write //c.txt one = created 3
         read /c.txt = one
         write /c.txt/ two = 3 over 3
         read ///c.txt// = two
         mkdir /d//e/
         ls // = c.txt d
         ls /d/ = e",
    );
}

#[test]
fn dots_within_a_name_are_a_name() {
    check(
        "write /foo..bar a
         write /... b
         write /.hidden c
         ls / = ... .hidden foo..bar
         read /foo..bar = a",
    );
}

#[test]
fn the_longest_names_and_any_characters_do() {
    let name = "n".repeat(255);
    check(&format!("write /{name}/{name} x\n read /{name}/{name} = x\n ls / = {name}"));
    check(
        "write /späß/日本 ü
         read /späß/日本 = ü
         write /a\\sb\\n x
         ls / = a\\sb\\n späß
         write /*?[x] y
         read /*?[x] = y",
    );
}

#[test]
fn names_are_ordered_by_their_bytes() {
    check(
        "write /b x
         write /B x
         write /ä x
         write /a-b x
         write /a/b x
         write /a.b x
         ls / = B a a-b a.b b ä
         walk / = /B /a /a/b /a-b /a.b /b /ä",
    );
}
