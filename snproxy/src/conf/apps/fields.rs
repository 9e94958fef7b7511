//! Which field of which object means what.

use super::json::Member;
use crate::conf::keys::Key;
use crate::conf::port_keys::PORT_KEYS;
use crate::conf::suggest::hint;
use crate::conf::text::Findings;

/// What a field of the file means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Known {
    Apps,
    Name,
    Ports,
    Targets,
    Srv,
    Key,
    Addr,
    Weight,
    MaxConn,
    SendProxy,
}

pub(super) type Names = &'static [(&'static str, Known)];

pub(super) const OF_FILE: Names = &[("Apps", Known::Apps)];
pub(super) const OF_APP: Names = &[
    ("Name", Known::Name),
    ("Ports", Known::Ports),
    ("Targets", Known::Targets),
    ("Srv", Known::Srv),
];
pub(super) const OF_SRV: Names = &[
    ("Key", Known::Key),
    ("MaxConn", Known::MaxConn),
    ("SendProxy", Known::SendProxy),
];
pub(super) const OF_TARGET: Names = &[
    ("Addr", Known::Addr),
    ("Weight", Known::Weight),
    ("MaxConn", Known::MaxConn),
    ("SendProxy", Known::SendProxy),
];

/// Fields of one object that were seen.
pub(super) struct Fields {
    names: Names,
    /// Whose fields they are, for messages.
    of: &'static str,
    seen: Vec<(Known, u32)>,
}

impl Fields {
    pub(super) fn new(names: Names, of: &'static str) -> Self {
        Self {
            names,
            of,
            seen: Vec::new(),
        }
    }

    pub(super) fn has(&self, known: Known) -> bool {
        self.seen.iter().any(|(seen, _)| *seen == known)
    }

    /// What a member is; what it is not, is a finding. `null` leaves a field unset, as for Go.
    pub(super) fn known(
        &mut self,
        member: &Member<'_>,
        findings: &mut Findings<'_>,
    ) -> Option<Known> {
        let name = &member.name;
        let found = |(known, _): &&(&str, Known)| known.eq_ignore_ascii_case(name.text());
        let Some((known, field)) = self.names.iter().find(found) else {
            let keys = app_keys().map(|key| key.name);
            let keys = keys.filter(|_| self.names == OF_APP);
            let known = self.names.iter().map(|(known, _)| *known);
            let what = format_args!("unknown field {} of {}", name.field(), self.of);
            findings.unknown(name.place, what, hint(known.chain(keys), name.text()));
            return None;
        };
        if member.value.is_null() {
            return None;
        }
        match self.seen.iter_mut().find(|(seen, _)| seen == field) {
            Some((_, line)) => {
                let message =
                    format_args!("`{known}` is already given in line {line}: this one counts");
                findings.warning(name.place, message);
                *line = name.place.line;
            }
            None => self.seen.push((*field, name.place.line)),
        }
        Some(*field)
    }
}

/// The key of proxy.conf for ports that a field of an app stands for.
pub(super) fn port_key(name: &str) -> Option<&'static Key> {
    app_keys().find(|key| key.name.eq_ignore_ascii_case(name))
}

/// The keys that an app may set: no other host is asked, whatever LOCALITY says.
fn app_keys() -> impl Iterator<Item = &'static Key> {
    PORT_KEYS.iter().filter(|key| key.name != "LOCALITY")
}
