//! Object stores on other machines, against real servers that the tests start.

#[cfg(test)]
#[path = "remote/around.rs"]
mod around;
#[cfg(test)]
#[path = "remote/conforms.rs"]
mod conforms;
#[cfg(test)]
#[path = "remote/deleting.rs"]
mod deleting;
#[cfg(test)]
#[path = "remote/faults.rs"]
mod faults;
#[cfg(test)]
#[path = "remote/large.rs"]
mod large;
#[cfg(test)]
#[path = "remote/late.rs"]
mod late;
#[cfg(test)]
#[path = "remote/listings.rs"]
mod listings;
#[cfg(test)]
#[path = "remote/opening.rs"]
mod opening;
#[cfg(test)]
#[path = "remote/races.rs"]
mod races;
#[cfg(test)]
#[path = "remote/renaming.rs"]
mod renaming;
#[cfg(test)]
#[path = "remote/restart.rs"]
mod restart;
#[cfg(test)]
#[path = "remote/secrets.rs"]
mod secrets;
#[cfg(test)]
mod servers;
#[cfg(test)]
#[path = "remote/subjects.rs"]
mod subjects;
#[cfg(test)]
#[path = "remote/uploads.rs"]
mod uploads;
#[cfg(all(test, feature = "http"))]
#[path = "remote/web.rs"]
mod web;
