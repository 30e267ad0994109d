//! Where the audit log stands in the way of calls: it protects its files, and hears of what was refused.

use nexus_kernel::dispatch::OpSet;
use nexus_kernel::service::ServiceHook;
use nexus_messages::syscall::Syscall;
use nexus_messages::{EntryType, ErrorKind, HookContext, VPath, Verdict};

use super::service::{Audit, AuditView};

/// Behind all others, which may rewrite paths.
const LAST: i32 = i32::MAX;

/// Refuses changes of its files by anybody else. Inline: it must hold while the service is being restarted too.
pub(super) fn protect() -> ServiceHook<Audit> {
    ServiceHook::before("audit.protect", OpSet::MUTATIONS, |view: &AuditView, context| decide(view, context))
        .order(LAST)
}

/// Hears of changes that did not come about.
pub(super) fn refusals() -> ServiceHook<Audit> {
    ServiceHook::mailed_after("audit.refusals", OpSet::MUTATIONS)
}

fn decide(view: &AuditView, context: &HookContext) -> Verdict {
    if view.is_open_to_administrators() && context.caller.admin {
        return Verdict::Continue;
    }
    let directory = view.directory();
    // As the caller wrote it, which a hook may have rewritten since it was resolved; and where it led.
    let written = (context.call.path(), context.call.other_path());
    let led = context.resolved.as_ref().map(|led| (&led.path, led.other.as_ref()));
    let touched = |(path, other): (&VPath, Option<&VPath>)| touches(&context.call, path, other, directory);
    if touched(written) || led.is_some_and(touched) {
        let why = format!("{directory} is the audit log's");
        return Verdict::refuse_as(ErrorKind::PermissionDenied, why);
    }
    Verdict::Continue
}

/// Whether the call, with these paths, changes something in `directory`, or takes the whole of it away.
fn touches(call: &Syscall, path: &VPath, other: Option<&VPath>, directory: &VPath) -> bool {
    let within = |path: &VPath| path.is_within(directory);
    let around = |path: &VPath| within(path) || directory.is_within(path);
    match call {
        // What is copied is only read.
        Syscall::Copy(_) => other.is_some_and(within),
        Syscall::Rename(_) => around(path) || other.is_some_and(around),
        Syscall::Unlink(_) => around(path),
        Syscall::Setattr(call) if call.entry_type == Some(EntryType::Mount) => around(path),
        _ => within(path),
    }
}

#[cfg(test)]
mod tests {
    use nexus_messages::syscall::{MountSpec, SysCopy, SysRename, SysSetattr, SysUnlink, SysWrite};

    use super::*;

    fn path(text: &str) -> VPath {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_in_the_directory_and_what_carries_it_is_protected() {
        let check = |call: Syscall, expected: bool| {
            let found = touches(&call, call.path(), call.other_path(), &path("/logs/audit"));
            assert_eq!(found, expected, "{call:?}");
        };
        check(SysWrite::at(path("/logs/audit/root/x"), "y").into(), true);
        check(SysWrite::at(path("/logs/auditor"), "y").into(), false);
        check(SysUnlink::at(path("/logs")).recursive().into(), true);
        check(SysUnlink::at(path("/log")).recursive().into(), false);
        check(SysRename::new(path("/logs"), path("/old")).into(), true);
        check(SysRename::new(path("/new"), path("/logs")).into(), true);
        check(SysRename::new(path("/new"), path("/logs/other")).into(), false);
        check(SysCopy::new(path("/logs/audit/root/x"), path("/copy")).into(), false);
        check(SysCopy::new(path("/copy"), path("/logs/audit/root/x")).into(), true);
        check(SysSetattr::mount(path("/logs"), MountSpec::new("memory")).into(), true);
        check(SysSetattr::at(path("/logs")).into(), false);
    }
}
