//! Which servers are on this machine. What goes to them goes to no proxy: that would see credentials that nobody else is to see.

use std::net::IpAddr;

/// Whether `host`, as it stands in a URL, is this machine.
pub(crate) fn is_here(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

/// The address that a host in a URL is, if it is one.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    host.trim_matches(['[', ']']).parse().ok()
}
