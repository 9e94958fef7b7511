//! From the text of an apps file to apps.

mod service;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::path::Path;

use super::fields::{Fields, Known, OF_APP, OF_FILE, OF_TARGET, port_key};
use super::json::{self, Document, Member, Value};
use super::{
    App, MAX_ALL_TARGETS, MAX_APPS, MAX_FILE, MAX_NAME, MAX_PORT_ITEMS, MAX_TARGETS, MAX_WEIGHT,
    PortRange, Target,
};
use crate::addr::PortSet;
use crate::conf::hosts;
use crate::conf::keys::{Key, Scope};
use crate::conf::port::{MAX_KINDS, PortConfs};
use crate::conf::proxy::NOWHERE;
use crate::conf::text::{Field, Findings};
use crate::conf::value::{by_name, hint_of, names, number};
use crate::conf::{Locality, Origin, SendProxy};
use crate::diag::{Place, Severity, Source, printable};

/// What is said of all ports of an app: a key of proxy.conf and its value.
type Setting<'a> = (&'static Key, Value<'a>);

/// Reads all apps: the bad parts are findings, the good ones the value.
///
/// What an app says of its ports goes into `ports`, over what proxy.conf says of them, and to `origins`.
pub(in crate::conf) fn read(
    source: &Source,
    ports: &mut PortConfs,
    origins: &mut Vec<Origin>,
    findings: &mut Findings<'_>,
) -> Vec<App> {
    if source.text.len() > MAX_FILE {
        let message = format_args!("file is larger than {MAX_FILE} bytes");
        findings.whole(Severity::Error, message);
        return Vec::new();
    }
    let document = Document::new(&source.text);
    let whole = match document.whole() {
        Ok(whole) => whole,
        Err((place, message)) => {
            findings.error(place, message);
            return Vec::new();
        }
    };
    let mut reader = Reader {
        findings,
        ports,
        origins,
        path: &source.path,
        claimed: Claimed::default(),
        names: HashMap::new(),
        targets: 0,
    };
    let mut apps = Vec::new();
    let Some(members) = reader.object(whole, "an object with the list `Apps`") else {
        return apps;
    };
    let mut fields = Fields::new(OF_FILE, "the file");
    for member in members {
        if fields.known(&member, reader.findings) != Some(Known::Apps) {
            continue;
        }
        let Some(list) = reader.list(member.value, MAX_APPS, "apps") else {
            continue;
        };
        // Of two lists the second counts.
        apps = list.filter_map(|app| reader.app(app)).collect();
    }
    reader.keep_here(&apps);
    if !fields.has(Known::Apps) {
        let message = "no list `Apps`: there is nothing to serve";
        reader.findings.whole(Severity::Error, message);
    }
    apps
}

/// Which item has which port.
#[derive(Default)]
struct Claimed {
    /// By port: number of the claim plus one; empty while there are none.
    by_port: Vec<u32>,
    claims: Vec<Claim>,
}

/// Who has a port, and where that was said.
struct Claim {
    app: Box<str>,
    line: u32,
    col: u32,
}

impl Claimed {
    /// Claims the ports of a range that nobody has; the first that somebody has, and who.
    fn claim(&mut self, app: &str, range: PortRange) -> Option<(u16, &Claim)> {
        if self.by_port.is_empty() {
            self.by_port = vec![0; 65_536];
        }
        self.claims.push(Claim {
            app: app.into(),
            line: range.line,
            col: range.col,
        });
        let number = u32::try_from(self.claims.len()).unwrap_or(u32::MAX);
        let mut taken = None;
        for port in range.first..=range.last {
            let claim = &mut self.by_port[usize::from(port)];
            match *claim {
                0 => *claim = number,
                other => taken = taken.or(Some((port, other))),
            }
        }
        let (port, other) = taken?;
        Some((port, self.claims.get(other as usize - 1)?))
    }
}

struct Reader<'f, 's> {
    findings: &'f mut Findings<'s>,
    ports: &'f mut PortConfs,
    origins: &'f mut Vec<Origin>,
    path: &'f Path,
    claimed: Claimed,
    /// Names of apps, and where they stand.
    names: HashMap<String, (u32, u32)>,
    /// Of all apps.
    targets: usize,
}

impl Reader<'_, '_> {
    fn object<'a>(
        &mut self,
        value: Value<'a>,
        expected: &str,
    ) -> Option<impl Iterator<Item = Member<'a>> + use<'a>> {
        let members = value.members();
        if members.is_none() {
            let message = format_args!("expected {expected}, found {}", value.kind());
            self.findings.error(value.place, message);
        }
        members
    }

    fn list<'a>(
        &mut self,
        value: Value<'a>,
        most: usize,
        of: &str,
    ) -> Option<impl Iterator<Item = Value<'a>> + use<'a>> {
        let Some((len, items)) = value.items() else {
            let message = format_args!("expected a list of {of}, found {}", value.kind());
            self.findings.error(value.place, message);
            return None;
        };
        if len > most {
            let message = format_args!("{len} {of} are more than {most}");
            self.findings.error(value.place, message);
        }
        Some(items.take(most))
    }

    fn app(&mut self, value: Value<'_>) -> Option<App> {
        let place = value.place;
        let members = self.object(value, "an app")?;
        let mut fields = Fields::new(OF_APP, "an app");
        let mut name = None;
        let mut ranges = None;
        let mut targets = None;
        let mut srv = None;
        let mut settings: Vec<Setting<'_>> = Vec::new();
        for member in members {
            if let Some(key) = port_key(member.name.text()) {
                self.setting(key, &member, &mut settings);
                continue;
            }
            match fields.known(&member, self.findings) {
                Some(Known::Name) => name = self.name(member.value),
                Some(Known::Ports) => ranges = Some(self.ranges(member.value)),
                Some(Known::Targets) => targets = Some(self.targets(member.value)),
                Some(Known::Srv) => srv = self.srv(member.value),
                _ => {}
            }
        }
        let mut missing = |message| self.findings.error(place, message);
        if !fields.has(Known::Name) {
            missing("the app has no `Name`");
        }
        if !fields.has(Known::Ports) {
            missing("the app has no `Ports`");
        }
        match (fields.has(Known::Targets), fields.has(Known::Srv)) {
            (false, false) => missing("the app has no `Targets`"),
            (true, true) => missing("the app has both `Targets` and `Srv`: who names its targets?"),
            _ => {}
        }
        let name = name?;
        let ports = self.claim(&name, ranges?);
        self.set(&ports, settings);
        let targets = targets.unwrap_or_default();
        let has_targets = !targets.is_empty() || srv.is_some();
        (!ports.is_empty() && has_targets).then_some(App {
            name: name.into(),
            ports,
            targets,
            srv,
            line: place.line,
            col: place.col,
        })
    }

    /// No other host is asked for ports of apps.
    fn keep_here(&mut self, apps: &[App]) {
        let mut ports = PortSet::new();
        for range in apps.iter().flat_map(|app| &app.ports) {
            ports.insert_range(range.first, range.last);
        }
        if ports.is_empty() {
            return;
        }
        let refined = self
            .ports
            .refine(&ports, |conf| conf.locality = Locality::Only);
        self.check_kinds(refined);
    }

    fn check_kinds(&mut self, refined: bool) {
        if !refined {
            let message = format_args!("more than {MAX_KINDS} different kinds of ports");
            self.findings.whole(Severity::Error, message);
        }
    }

    /// Takes note of a key for all ports of an app.
    fn setting<'a>(
        &mut self,
        key: &'static Key,
        member: &Member<'a>,
        settings: &mut Vec<Setting<'a>>,
    ) {
        if member.value.is_null() {
            return;
        }
        let place = member.name.place;
        if let Some((_, before)) = settings.iter().find(|(other, _)| other.name == key.name) {
            let (name, line) = (member.name.field(), before.place.line);
            let message = format_args!("{name} is already given in line {line}: this one counts");
            self.findings.warning(place, message);
        }
        settings.retain(|(other, _)| other.name != key.name);
        settings.push((key, member.value));
    }

    /// Puts what an app says of its ports into force.
    fn set(&mut self, ranges: &[PortRange], settings: Vec<Setting<'_>>) {
        let mut ports = PortSet::new();
        for range in ranges {
            ports.insert_range(range.first, range.last);
        }
        let file = printable(&self.path.to_string_lossy()).into_owned();
        let mut good = Vec::new();
        for (key, value) in settings {
            let Scope::Ports { apply, show } = key.scope else {
                continue;
            };
            let text = value.text();
            let field = match (&text, value.raw().bytes().next()) {
                (Some(text), _) => text.field(),
                // A number needs no quotes.
                (None, Some(b'0'..=b'9')) => value.field(),
                _ => {
                    let message = format_args!(
                        "expected the value of {} as a text, found {}",
                        key.name,
                        value.kind()
                    );
                    self.findings.error(value.place, message);
                    continue;
                }
            };
            // Once for what is wrong with it, and for how it is shown.
            let mut shown = self.ports.common().clone();
            apply(&mut shown, field, self.findings);
            self.origins.push(Origin {
                key: key.name,
                place: format!("{file}:{}", value.place.line),
                ports: Some(format!("{ports} {}", show(&shown))),
            });
            good.push((apply, field.text.to_owned(), field.place));
        }
        if good.is_empty() {
            return;
        }
        let refined = self.ports.refine(&ports, |conf| {
            for (apply, text, place) in &good {
                let (text, place) = (text.as_str(), *place);
                apply(conf, Field { text, place }, &mut Findings::new(&NOWHERE));
            }
        });
        self.check_kinds(refined);
    }

    fn name(&mut self, value: Value<'_>) -> Option<String> {
        let text = value.text();
        let good = text.as_ref().map(json::Text::text).filter(|name| {
            !name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_control)
        });
        let Some(name) = good else {
            let found =
                text.map_or_else(|| value.kind().to_owned(), |text| text.field().to_string());
            let message =
                format_args!("expected a name of 1 to {MAX_NAME} printable bytes, found {found}");
            self.findings.error(value.place, message);
            return None;
        };
        match self.names.entry(name.to_owned()) {
            Entry::Occupied(before) => {
                let (line, col) = before.get();
                let message = format_args!("an app of this name is already at {line}:{col}");
                self.findings.error(value.place, message);
                None
            }
            Entry::Vacant(entry) => {
                entry.insert((value.place.line, value.place.col));
                Some(name.to_owned())
            }
        }
    }

    /// The ports of an app as they are said, each once.
    fn ranges(&mut self, value: Value<'_>) -> Vec<PortRange> {
        let mut ranges: Vec<PortRange> = Vec::new();
        let mut said = PortSet::new();
        let place = value.place;
        let Some(items) = self.list(value, MAX_PORT_ITEMS, "ports") else {
            return ranges;
        };
        let mut empty = true;
        for item in items {
            empty = false;
            let place = item.place;
            let Some((first, last)) = self.range(&item) else {
                continue;
            };
            let before = ranges.len();
            let mut run = None;
            // What was said before is left out.
            for port in first..=last {
                match (&mut run, said.contains(port)) {
                    (_, true) => ranges.extend(run.take()),
                    (Some(PortRange { last, .. }), false) => *last = port,
                    (None, false) => {
                        run = Some(PortRange {
                            first: port,
                            last: port,
                            line: place.line,
                            col: place.col,
                        });
                    }
                }
            }
            ranges.extend(run);
            let new: u32 = ranges[before..]
                .iter()
                .map(|range| u32::from(range.last - range.first) + 1)
                .sum();
            if new < u32::from(last - first) + 1 {
                self.findings
                    .warning(place, "already in the list: said once is enough");
            }
            said.insert_range(first, last);
        }
        if empty {
            self.findings.error(place, "the app has no port");
        }
        ranges
    }

    fn range(&mut self, item: &Value<'_>) -> Option<(u16, u16)> {
        let text = item.text();
        let (written, shown) = match &text {
            Some(text) => (text.text(), text.field()),
            None => (item.raw(), item.field()),
        };
        let (first, last) = match written.split_once('-') {
            Some(range) if text.is_some() => range,
            _ => (written, written),
        };
        match (number::<u16>(first), number::<u16>(last)) {
            (Some(first), Some(last)) if first > last => {
                let turned = format_args!("range runs backwards: write `\"{last}-{first}\"`");
                self.findings.error(item.place, turned);
                None
            }
            (Some(first @ 1..), Some(last)) => Some((first, last)),
            _ => {
                let expected = "expected a port (1-65535) or a range such as \"5300-5399\"";
                let message = format_args!("{expected}, found {shown}");
                self.findings.error(item.place, message);
                None
            }
        }
    }

    /// The ranges that no other app has.
    fn claim(&mut self, app: &str, mut ranges: Vec<PortRange>) -> Vec<PortRange> {
        ranges.retain(|range| {
            let Some((port, other)) = self.claimed.claim(app, *range) else {
                return true;
            };
            let Claim { app, line, col } = other;
            let app = Field {
                text: app,
                place: Place {
                    line: *line,
                    col: *col,
                    start: 0,
                    end: 0,
                },
            };
            let message =
                format_args!("port {port} is claimed twice: app {app} has it at {line}:{col}");
            self.findings
                .at(Severity::Error, range.line, range.col, message);
            false
        });
        ranges
    }

    fn targets(&mut self, value: Value<'_>) -> Vec<Target> {
        let mut targets = Vec::new();
        let mut known = HashMap::new();
        let place = value.place;
        let Some(items) = self.list(value, MAX_TARGETS, "targets") else {
            return targets;
        };
        let mut empty = true;
        for item in items {
            empty = false;
            let place = item.place;
            let Some(target) = self.target(item) else {
                continue;
            };
            match known.entry((target.host.to_ascii_lowercase(), target.port)) {
                Entry::Occupied(before) => {
                    let line: &u32 = before.get();
                    let message =
                        format_args!("the target is already in line {line}: said once is enough");
                    self.findings.warning(place, message);
                    continue;
                }
                Entry::Vacant(entry) => entry.insert(place.line),
            };
            self.targets += 1;
            if self.targets > MAX_ALL_TARGETS {
                let message = format_args!("more than {MAX_ALL_TARGETS} targets");
                self.findings.error(place, message);
                break;
            }
            targets.push(target);
        }
        if empty {
            self.findings.error(place, "the app has no target");
        }
        targets
    }

    fn target(&mut self, value: Value<'_>) -> Option<Target> {
        let place = value.place;
        if value.text().is_some() {
            return self.address(value);
        }
        let members = self.object(value, "a target: \"host:port\", or an object with `Addr`")?;
        let mut fields = Fields::new(OF_TARGET, "a target");
        let mut target = None;
        let mut weight = Some(1);
        let mut max_conn = Some(u32::MAX);
        let mut send_proxy = Some(SendProxy::No);
        for member in members {
            let value = member.value;
            match fields.known(&Member { value, ..member }, self.findings) {
                Some(Known::Addr) => target = self.address(value),
                Some(Known::Weight) => weight = self.number(value, MAX_WEIGHT, "weight"),
                Some(Known::MaxConn) => max_conn = self.number(value, u32::MAX, "limit"),
                Some(Known::SendProxy) => send_proxy = self.send_proxy(value),
                _ => {}
            }
        }
        if !fields.has(Known::Addr) {
            self.findings.error(place, "the target has no `Addr`");
        }
        if max_conn == Some(0) {
            let message = "`MaxConn` 0 allows no connection: always busy";
            self.findings.warning(place, message);
        }
        Some(Target {
            weight: weight?,
            max_conn: max_conn?,
            send_proxy: send_proxy?,
            ..target?
        })
    }

    /// `host:port`.
    fn address(&mut self, value: Value<'_>) -> Option<Target> {
        let Some(text) = value.text() else {
            let message = format_args!("expected host:port, found {}", value.kind());
            self.findings.error(value.place, message);
            return None;
        };
        let (host, port) = hosts::endpoint(text.field(), self.findings)?;
        let addr = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        // The kernel takes an unspecified address for this host.
        if addr.is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            let message = format_args!("{} is no address to dial", text.field());
            self.findings.error(value.place, message);
            return None;
        }
        Some(Target {
            host: host.into(),
            addrs: addr.into_iter().collect(),
            port,
            weight: 1,
            max_conn: u32::MAX,
            send_proxy: SendProxy::No,
            line: text.place.line,
            col: text.place.col,
        })
    }

    fn number(&mut self, value: Value<'_>, most: u32, what: &str) -> Option<u32> {
        let number = number(value.raw()).filter(|number| *number <= most);
        if number.is_none() {
            let message = format_args!("expected a {what} (0-{most}), found {}", value.field());
            self.findings.error(value.place, message);
        }
        number
    }

    /// `"v1"`, `"v2"`, or as in portmappings.conf `true` and `false`, in quotes or not.
    fn send_proxy(&mut self, value: Value<'_>) -> Option<SendProxy> {
        let text = value.text();
        let written = text.as_ref().map_or(value.raw(), json::Text::text);
        let send_proxy = by_name(written);
        if send_proxy.is_none() {
            let names = names::<SendProxy>();
            let hint = hint_of::<SendProxy>(written);
            let message = format_args!("expected {names}, found {}{hint}", value.field());
            self.findings.error(value.place, message);
        }
        send_proxy
    }
}
