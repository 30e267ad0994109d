//! Pipes and streams in shared memory, used by several processes, each of which is killed (`kill -9`) in the middle of it.
//!
//! This target is its own children: started with a role, it owns a kernel, writes or reads until it is killed, and says on its standard output what was acknowledged.
//! A child may die between an acknowledgement and its word of it, so of each one that was killed one message, or append, may be there of which it did not tell.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "this target has no harness but its own, and looks at other processes in real time"
)]

#[cfg(target_os = "linux")]
mod child;
#[cfg(target_os = "linux")]
mod cleaning;
#[cfg(target_os = "linux")]
mod pipes;
#[cfg(target_os = "linux")]
mod streams;

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("child", role)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return child::run(role);
    }
    let tests: [(&str, fn()); 16] = [
        (
            "a_writer_that_is_killed_loses_doubles_and_tears_nothing",
            pipes::a_writer_that_is_killed_loses_doubles_and_tears_nothing,
        ),
        (
            "a_reader_that_is_killed_takes_along_one_message_at_most",
            pipes::a_reader_that_is_killed_takes_along_one_message_at_most,
        ),
        (
            "others_go_on_when_the_owner_is_killed_and_the_next_one_finds_what_is_left",
            pipes::others_go_on_when_the_owner_is_killed_and_the_next_one_finds_what_is_left,
        ),
        (
            "whoever_holds_the_lock_and_is_gone_is_taken_over_from_and_nobody_else",
            pipes::whoever_holds_the_lock_and_is_gone_is_taken_over_from_and_nobody_else,
        ),
        (
            "all_who_wait_in_a_process_have_the_same_threads",
            streams::all_who_wait_in_a_process_have_the_same_threads,
        ),
        (
            "pipes_from_before_the_start_take_room_until_they_go",
            cleaning::pipes_from_before_the_start_take_room_until_they_go,
        ),
        ("ends_in_other_processes_are_the_pipes_ends", pipes::ends_in_other_processes_are_the_pipes_ends),
        (
            "an_appender_that_is_killed_leaves_each_append_whole",
            streams::an_appender_that_is_killed_leaves_each_append_whole,
        ),
        (
            "records_outlive_their_owner_and_who_waits_hears_of_them",
            streams::records_outlive_their_owner_and_who_waits_hears_of_them,
        ),
        (
            "a_reader_that_is_overtaken_is_told_the_oldest",
            streams::a_reader_that_is_overtaken_is_told_the_oldest,
        ),
        (
            "members_of_a_group_hear_of_what_other_processes_append",
            streams::members_of_a_group_hear_of_what_other_processes_append,
        ),
        (
            "a_take_of_a_group_that_is_full_ends_in_time_while_another_process_appends",
            streams::a_take_of_a_group_that_is_full_ends_in_time_while_another_process_appends,
        ),
        (
            "nothing_is_mapped_past_who_is_to_see_what_is_written",
            streams::nothing_is_mapped_past_who_is_to_see_what_is_written,
        ),
        (
            "a_copy_of_a_data_folder_has_memory_of_its_own",
            cleaning::a_copy_of_a_data_folder_has_memory_of_its_own,
        ),
        (
            "memory_goes_with_its_entry_and_with_its_kernel",
            cleaning::memory_goes_with_its_entry_and_with_its_kernel,
        ),
        (
            "garbage_in_the_memory_is_an_error_and_harms_nothing_else",
            cleaning::garbage_in_the_memory_is_an_error_and_harms_nothing_else,
        ),
    ];
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut count = 0;
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            // One that fails ends all of it, with its reason.
            test();
            println!("test {name} ... ok");
            count += 1;
        }
    }
    println!("\ntest result: ok. {count} passed");
}
