//! Symbolic links.

use crate::script::{ROWS, check, check_on};

#[test]
fn a_call_through_a_link_acts_on_its_target() {
    check(
        "write /d/f one
         link /l /d/f = created
         read /l = one
         write /l two = 3 over 3
         read /d/f = two
         append /l + = 1 over 3
         lstat /l = link /d/f
         stat /l = file 4
         where /l = /d/f
         chmod /l 600 = [Mode]
         mode /d/f = 600",
    );
}

#[test]
fn a_link_to_a_directory_leads_on() {
    check(
        "write /d/f one
         link /l d
         read /l/f = one
         ls /l = f
         write /l/g two
         read /d/g = two
         is_directory /l = true
         link /d/up ..
         read /l/up/d/f = one
         write /file x
         link /wrong file
         read /wrong/f ! ENOTDIR",
    );
}

#[test]
fn a_relative_target_is_taken_from_the_folder_of_the_link() {
    check(
        "write /a/b/f one
         link /a/l b/f
         read /a/l = one
         link /a/b/up ../b/f
         read /a/b/up = one
         lstat /a/b/up = link ../b/f
         link /above ../../a/b/f
         read /above = one",
    );
}

#[test]
fn a_link_that_leads_nowhere_is_made_good_by_a_write() {
    check(
        "link /l /d/f
         read /l ! ENOENT
         stat /l ! ENOENT
         exists /l = false
         lstat /l = link /d/f
         write_new /l x ! EEXIST
         overwrite /l x ! ENOENT
         write /l x = created 1
         read /d/f = x
         lstat /l = link /d/f",
    );
}

#[test]
fn removing_and_moving_a_link_leaves_its_target_alone() {
    check(
        "write /f x
         link /l /f
         rename /l /m = moved
         lstat /m = link /f
         unlink /m = 1
         read /f = x
         mkdir /d
         link /e /d
         rmdir /e ! ENOTDIR
         unlink /e = 1
         stat /d = directory",
    );
}

#[test]
fn a_link_is_made_where_nothing_is() {
    check(
        "link /l /f = created
         link /l /f = there
         link /l /g ! EEXIST
         write /f x
         link /f /g ! EEXIST
         read /f = x
         link /bad \"\" ! EINVAL
         link /l2 /l2 ! ELOOP
         mkdir /l ! EEXIST",
    );
}

#[test]
fn forty_links_lead_on_and_forty_one_do_not() {
    let mut script = String::from("write /l0 end\n");
    for n in 1..=41 {
        script += &format!("link /l{n} /l{}\n", n - 1);
    }
    script += "read /l40 = end
               stat /l40 = file 3
               read /l41 ! ELOOP
               write /l41 x ! ELOOP
               stat /l41 ! ELOOP
               lstat /l41 = link /l40
               link /x /y
               link /y /x
               read /x ! ELOOP
               ls /x ! ELOOP
               write /x/f z ! ELOOP";
    check(&script);
}

#[test]
fn a_listing_does_not_follow_links() {
    check(
        "write /d/f x
         link /d/loop /d
         walk / = /d /d/f /d/loop",
    );
}

#[test]
fn a_link_counts_its_target_as_its_size() {
    check_on(&ROWS, "link /l /some/where\n versions /l ! ENOENT\n lstat /l = link /some/where");
}
