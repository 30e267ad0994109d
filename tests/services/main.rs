//! Services as their users see them: registered, called, swapped while they serve, crashed, and swapped back.

#![expect(clippy::disallowed_methods, reason = "users spawn their own tasks")]

mod counter;
mod deaths;
mod declared;
mod gate;
mod hooks;
mod kept;
mod load;
mod older;
mod policy;
mod registering;
mod removing;
mod shadow;
mod subtree;
mod swaps;
mod told;
mod weighed;
