//! Connectors against servers and programs that run here: nothing of it needs a network, or anything to be installed but git.

#[path = "external/api.rs"]
mod api;
#[path = "external/commands.rs"]
mod commands;
#[path = "external/conforms.rs"]
mod conforms;
#[path = "external/descriptions.rs"]
mod descriptions;
#[path = "external/git.rs"]
mod git;
#[path = "external/hostile.rs"]
mod hostile;
#[path = "external/oauth.rs"]
mod oauth;
#[path = "external/pages.rs"]
mod pages;
#[path = "external/server.rs"]
mod server;
#[path = "external/subjects.rs"]
mod subjects;
