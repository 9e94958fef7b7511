//! Which way a connection would go now, by the same code that routes one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::addr::{Action, ClusterPort};
use crate::admin::api;
use crate::conf::{Locality, PortConf};
use crate::flow::limits::Thing;
use crate::flow::{asker, random};
use crate::route::Table;
use crate::route::load::Limit;
use crate::route::peers::{self, Answers};
use crate::route::plan::Reason;
use crate::route::search::{Choice, Over};
use crate::route::service::{Asker, Service, Standing, Tried};

use super::Daemon;

/// Candidates that are listed.
const MOST_CANDIDATES: usize = 100;

/// One port as it is looked at.
struct Look<'t> {
    table: &'t Table,
    port: u16,
    conf: &'t PortConf,
    service: Option<Service<'t>>,
    answers: Option<Arc<Answers>>,
    asker: Asker,
    now: Instant,
}

impl Daemon {
    /// The way of a connection to `port` from this address, or from somewhere.
    pub(super) fn explain(&self, port: u16, from: Option<IpAddr>) -> api::Explain {
        let table = self.shared.table.load_full();
        let now = Instant::now();
        let conf = table.conf.of_port(port);
        let mut lot = self.steerer.plan().lot(port);
        if port == self.started_with.port {
            // It may be outside CLUSTERPORTS.
            lot.reason = Reason::ProxyPort;
        }
        let client = SocketAddr::new(from.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0);
        let cluster_port = ClusterPort::new(port);
        let asker = cluster_port.map_or_else(Asker::default, |cluster_port| {
            asker(&self.shared, conf, cluster_port, client)
        });
        let crosses = conf.locality != Locality::Only;
        let answers = crosses.then(|| table.peers.answers(port, now)).flatten();
        let look = Look {
            table: &table,
            port,
            conf,
            service: table.service(port),
            answers,
            asker,
            now,
        };
        let state = self.steerer.state_of(port);
        let kernel = self.verdict_of_kernel(lot, state);
        let (mut candidates, verdict) = look.candidates();
        let is_tried = kernel.is_none();
        let limited = || self.verdict_of_limits(&table, port);
        let verdict = kernel.or_else(limited).unwrap_or(verdict);
        let action = self.action_now(lot, state);
        let mut limits = self.limits(&table, port);
        let mut headers = self.headers(&table, port, from);
        if action == Action::Pass {
            candidates.clear();
            limits.clear();
            headers.clear();
        } else if !is_tried {
            for candidate in &mut candidates {
                candidate.place = None;
            }
        }
        let places = candidates.iter().filter(|it| it.place.is_some()).count();
        api::Explain {
            port,
            from: from.map(|from| from.to_string()),
            action: action.to_string(),
            reason: if self.has_ended_steering() {
                "draining".to_owned()
            } else {
                lot.reason.to_string()
            },
            states: self.states(state),
            balance: conf.balance.to_string(),
            by_chance: places > 1 && conf.balance.policy.is_by_chance(),
            limits,
            headers,
            candidates,
            verdict,
        }
    }

    fn limits(&self, table: &Table, port: u16) -> Vec<String> {
        let conf = table.conf.of_port(port);
        let limits = &self.shared.limits;
        let of = |name, active, most: Option<u32>, reopen| {
            let most = most?;
            let room = limits_text(Limit::new(Some(most), reopen), active);
            Some(format!("{name}: {active} of {most}{room}"))
        };
        let common = table.conf.ports.common();
        let most = limits.max_conn(&table.conf);
        let name = table.conf.name_of_max_conn();
        let all = of(name, limits.all(), most, common.reopen);
        let one = of(
            "PORTMAXCONN",
            limits.active(port),
            conf.max_conn,
            conf.reopen,
        );
        let lines = limits.lines().into_iter();
        let line = table.line(port);
        let concerns = |thing: &Thing| match thing {
            Thing::Any => true,
            Thing::Port(other) => *other == port,
            Thing::Pod(other) => *other == line,
        };
        let waiting = lines
            .filter(|(thing, _)| concerns(thing))
            .map(|(thing, waiting)| format!("{} wait for {thing}", waiting.len()));
        let rates = [
            conf.port_rate.map(|_| "PORTRATE"),
            conf.source_rate.map(|_| "SOURCERATE"),
        ];
        let rates = rates.into_iter().flatten();
        let rates = rates.map(|key| format!("{key} limits new connections"));
        let source = conf
            .source_max_conn
            .map(|limit| format!("SOURCEMAXCONN: {} of one source at once", limit.count));
        all.into_iter()
            .chain(one)
            .chain(source)
            .chain(rates)
            .chain(waiting)
            .collect()
    }
}

fn limits_text(limit: Limit, active: u32) -> String {
    if limit.reopen < 100 && active > 0 {
        format!(" (once full, closed until below {}%)", limit.reopen)
    } else {
        String::new()
    }
}

impl Look<'_> {
    /// In the order in which they would be tried, then those that would not, and how it would end if all failed.
    fn candidates(&self) -> (Vec<api::Candidate>, String) {
        let mut found = Vec::new();
        let mut tried = Vec::new();
        let over = match &self.answers {
            Some(answers) => self.search(answers, &mut found, &mut tried),
            None => self.pods_only(&mut found, &mut tried),
        };
        if let Some(service) = self.service {
            for pod in 0..service.pods.len() {
                if !tried.contains(&Choice::Pod(pod)) {
                    found.push(self.pod(service, pod, None));
                }
            }
        }
        if self.answers.is_some() {
            for at in 0..self.table.peers.list().len() {
                if !tried.contains(&Choice::Peer(at)) {
                    found.push(self.host(at, None));
                }
            }
        }
        found.truncate(MOST_CANDIDATES);
        let is_none = found.iter().all(|candidate| candidate.place.is_none());
        let queue = match self.conf.queue {
            0 => String::new(),
            most => format!(", after a wait in the queue (at most {most})"),
        };
        let refused = self.conf.over_limit;
        let end = match over {
            Over::NotMapped => "nobody serves it: reset, end not_mapped".to_owned(),
            Over::NoUpstream => "nobody can be reached: reset, end no_upstream".to_owned(),
            Over::SourcePorts => "no source port is left: reset, end source_ports".to_owned(),
            Over::Loop => "a pod here is a port of this proxy: reset, end loop".to_owned(),
            Over::Busy => format!("no place is free: {refused}{queue}, end busy"),
        };
        let verdict = if is_none {
            format!("now: {end}")
        } else {
            format!("if all of these fail: {end}")
        };
        (found, verdict)
    }

    fn search(
        &self,
        answers: &Arc<Answers>,
        found: &mut Vec<api::Candidate>,
        tried: &mut Vec<Choice>,
    ) -> Over {
        let search = self
            .table
            .search(self.port, self.asker, Arc::clone(answers));
        let mut search = search.dry();
        let mut over = Over::NotMapped;
        while found.len() < MOST_CANDIDATES {
            let choice = search.choose(true, random(), self.now);
            let place = Some(found.len() + 1);
            match (choice, self.service) {
                (Choice::Pod(pod), Some(service)) => found.push(self.pod(service, pod, place)),
                (Choice::Peer(at), _) => found.push(self.host(at, place)),
                (Choice::Await, _) => search.stop_waiting(),
                (Choice::LastPods, Some(service)) => self.last_pods(service, found, tried),
                (Choice::Pod(_) | Choice::LastPods | Choice::Hold(_), _) => {}
                (Choice::Over(end), _) => {
                    over = end;
                    break;
                }
            }
            tried.push(choice);
        }
        over
    }

    fn pods_only(&self, found: &mut Vec<api::Candidate>, tried: &mut Vec<Choice>) -> Over {
        let Some(service) = self.service else {
            return Over::NotMapped;
        };
        let mut done = Tried::default();
        while found.len() < MOST_CANDIDATES
            && let Some(pod) = service.pick(self.asker, random(), service.turn(), self.now, &done)
        {
            done.add(pod);
            found.push(self.pod(service, pod, Some(found.len() + 1)));
            tried.push(Choice::Pod(pod));
        }
        if tried.is_empty() {
            self.last_pods(service, found, tried);
        }
        service.exhausted(&done).into()
    }

    /// Those that are down, which are tried where no other candidate is left.
    fn last_pods(
        &self,
        service: Service<'_>,
        found: &mut Vec<api::Candidate>,
        tried: &mut Vec<Choice>,
    ) {
        let left = MOST_CANDIDATES.saturating_sub(found.len());
        for pod in service.last_pods(0, &Tried::default()).take(left) {
            found.push(self.pod(service, pod, Some(found.len() + 1)));
            tried.push(Choice::Pod(pod));
        }
    }

    fn pod(&self, service: Service<'_>, number: usize, place: Option<usize>) -> api::Candidate {
        let pod = &service.pods[number];
        let addr = pod.upstream.addr;
        let mut why = Vec::new();
        if self.asker.kept == Some(addr) {
            why.push("PERSIST: the client's network was here last".to_owned());
        }
        match service.standing(number) {
            Standing::Open => {}
            Standing::Full => why.push("full".to_owned()),
            Standing::Weightless => why.push("weight 0 takes nothing new".to_owned()),
            Standing::Down => {
                let last = pod.upstream.last().and_then(|last| last.error);
                let why_down = last.map_or_else(String::new, |error| format!(": {error}"));
                why.push(format!("down{why_down}"));
            }
        }
        if let (Some(time), Some(came)) = (self.conf.slow_start, pod.upstream.health().since()) {
            let age = self.now.saturating_duration_since(came);
            if age < time && !self.conf.balance.policy.hashes() {
                why.push(format!(
                    "SLOWSTART: {} s of {} s",
                    age.as_secs(),
                    time.as_secs()
                ));
            }
        }
        why.push(format!("weight {}", pod.weight));
        why.push(match pod.max_conn {
            u32::MAX => format!("{} connections", pod.load.active()),
            most => format!("{} of {most} connections", pod.load.active()),
        });
        api::Candidate {
            place,
            kind: "pod".to_owned(),
            address: addr.to_string(),
            why: why.join(", "),
        }
    }

    fn host(&self, at: usize, place: Option<usize>) -> api::Candidate {
        let peer = &self.table.peers.list()[at];
        let mut why = Vec::new();
        if self.asker.kept == Some(peer.addr()) {
            why.push("PERSIST: the client's network was here last".to_owned());
        }
        if peer.drains(self.now) {
            why.push("it drains".to_owned());
        } else if !peer.is_up() {
            why.push("its proxy is not reached".to_owned());
        }
        if let Some(answers) = &self.answers {
            let told = answers.told();
            let said = told.as_ref().and_then(|told| told.of(at));
            let is_told = said.is_some_and(|said| said.is_sure);
            why.push(match answers.standing(at, self.now) {
                peers::Standing::Unknown => "unknown: asked first".to_owned(),
                peers::Standing::Serves(pods) => format!("serves it, pods {pods}"),
                peers::Standing::Busy => "all of its pods are full".to_owned(),
                peers::Standing::NotHere => "does not serve it".to_owned(),
                peers::Standing::Silent => "silent just now".to_owned(),
            });
            if is_told {
                why.push("says the cluster directory".to_owned());
            }
            why.push(format!("{} connections of ours", answers.live(Some(at))));
        }
        api::Candidate {
            place,
            kind: "host".to_owned(),
            address: format!("{} ({})", peer.name, peer.addr()),
            why: why.join(", "),
        }
    }
}
