//! What a client may be: never more than the socket's owner grants.

use std::sync::Arc;

use nexus_kernel::service::AGENT_PREFIX;
use nexus_messages::{Caller, Error, ErrorKind, NAME_MAX, Op, Result, ZoneId};

/// What who attaches may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grant {
    /// All that the administrator may.
    #[default]
    Administrator,
    /// What the agent of this name may, and only as that agent.
    Agent(String),
}

/// How a kernel serves the socket of its data folder; see [`Config::serve`](crate::Config::serve).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    pub(crate) grant: Grant,
    pub(crate) zone: ZoneId,
    pub(crate) connections_max: usize,
    pub(crate) in_flight_max: u32,
}

/// Clients at once, when nothing is said.
const CONNECTIONS_MAX: usize = 64;

/// Calls of one client at once, when nothing is said.
const IN_FLIGHT_MAX: u32 = 64;

impl Serving {
    fn to(grant: Grant) -> Self {
        Self { grant, zone: ZoneId::root(), connections_max: CONNECTIONS_MAX, in_flight_max: IN_FLIGHT_MAX }
    }

    /// Who attaches is an administrator. Only processes of the same user, and of root, can attach.
    pub fn administrator() -> Self {
        Self::to(Grant::Administrator)
    }

    /// Who attaches is the agent called `name`, and nobody else.
    pub fn agent(name: impl Into<String>) -> Self {
        Self::to(Grant::Agent(name.into()))
    }

    /// Who attaches is in this zone.
    #[must_use]
    pub fn zone(mut self, zone: ZoneId) -> Self {
        self.zone = zone;
        self
    }

    /// At most this many clients at once; at least 1. Further ones are told that there are too many.
    #[must_use]
    pub fn connections_max(mut self, max: usize) -> Self {
        self.connections_max = max.max(1);
        self
    }

    /// At most this many calls of one client at once; at least 1. Further ones wait with the client.
    #[must_use]
    pub fn in_flight_max(mut self, max: u32) -> Self {
        self.in_flight_max = max.max(1);
        self
    }

    /// As whom a client calls that asks for nothing less.
    ///
    /// # Errors
    /// `EINVAL` for what does not name an agent.
    pub(crate) fn caller(&self) -> Result<Caller> {
        let administrator = Caller { zone: self.zone.clone(), ..Caller::administrator() };
        match &self.grant {
            Grant::Administrator => Ok(administrator),
            Grant::Agent(name) => as_agent(&administrator, name),
        }
    }
}

impl Default for Serving {
    fn default() -> Self {
        Self::administrator()
    }
}

/// The agent called `name` in the zone of `caller`.
///
/// # Errors
/// `EINVAL` for a name that is empty, longer than 255 bytes, or has `/` or control characters in it, and for those under which the
/// kernel and its services act.
pub(crate) fn as_agent(caller: &Caller, name: &str) -> Result<Caller> {
    if name == Caller::KERNEL || name.starts_with(AGENT_PREFIX) {
        let why = format!("{name:?} is the kernel's, or a service's");
        return Err(Error::global(Op::Connect, ErrorKind::InvalidArgument).because(why));
    }
    let bad = |c: char| c == '/' || c.is_control();
    if name.is_empty() || name.len() > NAME_MAX || name.contains(bad) {
        let why = format!(
            "{name:?} does not name an agent: 1 to {NAME_MAX} bytes without '/' and control characters"
        );
        return Err(Error::global(Op::Connect, ErrorKind::InvalidArgument).because(why));
    }
    Ok(Caller::agent(name, caller.zone.clone()).acting_for(caller.user.clone()))
}

/// The same caller for the user called `name`.
///
/// # Errors
/// `EINVAL` for a name that is empty, longer than 255 bytes, or has control characters in it.
pub(crate) fn acting_for(caller: &Caller, name: &str) -> Result<Caller> {
    if name.is_empty() || name.len() > NAME_MAX || name.contains(char::is_control) {
        let why = format!("{name:?} does not name a user: 1 to {NAME_MAX} bytes without control characters");
        return Err(Error::global(Op::Connect, ErrorKind::InvalidArgument).because(why));
    }
    Ok(caller.clone().acting_for(Some(name.into())))
}

/// Whether who was granted to be `granted` may call as `asked`.
///
/// # Errors
/// `EACCES` when that is more; `EINVAL` for what does not name an agent, or a user.
pub(crate) fn lessened(granted: &Arc<Caller>, asked: Caller) -> Result<Arc<Caller>> {
    if asked == **granted {
        return Ok(granted.clone());
    }
    if let Some(user) = asked.user.as_deref().filter(|_| granted.admin) {
        acting_for(&asked, user)?;
    }
    if granted.admin && asked.admin && asked.agent == granted.agent {
        return Ok(Arc::new(asked));
    }
    if granted.admin && !asked.admin {
        return as_agent(&asked, &asked.agent).map(Arc::new);
    }
    let error = Error::global(Op::Connect, ErrorKind::PermissionDenied);
    Err(error.because(format!("who attaches may call as {} alone", granted.agent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> ZoneId {
        ZoneId::parse(name).expect("it names one")
    }

    fn check(serving: &Serving, asked: Caller, good: bool) {
        let granted = Arc::new(serving.caller().expect("it names an agent"));
        assert_eq!(lessened(&granted, asked.clone()).is_ok(), good, "{asked:?} of {granted:?}");
    }

    #[test]
    fn whom_one_acts_for_an_administrator_says_and_nobody_else() {
        let (admin, agent) = (Caller::administrator(), Caller::agent("a", ZoneId::root()));
        for (asked, good) in [("ada", true), ("ada/lovelace@example", true), ("", false), ("a\nb", false)] {
            let asked = Some(Arc::from(asked));
            check(&Serving::administrator(), admin.clone().acting_for(asked.clone()), good);
            check(&Serving::administrator(), agent.clone().acting_for(asked.clone()), good);
            check(&Serving::agent("a"), agent.clone().acting_for(asked), false);
        }
        let for_ada = acting_for(&admin, "ada").unwrap();
        assert_eq!(as_agent(&for_ada, "a").unwrap().user.as_deref(), Some("ada"), "and so its agents do");
    }

    #[test]
    fn nobody_gets_more_than_was_granted() {
        let admin = Caller::administrator();
        let in_team = Caller { zone: zone("team"), ..admin.clone() };
        let agent = Caller::agent("a", ZoneId::root());
        let all = Serving::administrator();
        for asked in [admin.clone(), in_team.clone(), agent.clone(), Caller::agent("b", zone("team"))] {
            check(&all, asked, true);
        }
        check(&all, Caller { agent: "root".into(), ..admin.clone() }, false);
        for reserved in ["a/b", "nexus", "service:audit"] {
            check(&all, Caller::agent(reserved, ZoneId::root()), false);
        }
        let one = Serving::agent("a");
        check(&one, agent.clone(), true);
        for asked in [
            admin,
            in_team,
            Caller { admin: true, ..agent },
            Caller::agent("b", ZoneId::root()),
            Caller::agent("a", zone("team")),
        ] {
            check(&one, asked, false);
        }
        check(&Serving::agent("a").zone(zone("team")), Caller::agent("a", zone("team")), true);
        Serving::agent("").caller().unwrap_err();
    }
}
