//! Decides which hooks a call passes.

mod hook;
mod pattern;
mod table;
mod view;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use hook::{
    HookId, HookKind, Interceptor, MountHook, Observer, OpSet, Registration, Resolution, Resolver,
};
pub use pattern::{PATTERN_DEPTH_MAX, Pattern, PatternError};
pub use table::{HOOKS_MAX, HookError, HookInfo, HookTable};
pub use view::{DispatchView, HookRefusal, HookSummary, PublishedHooks};
