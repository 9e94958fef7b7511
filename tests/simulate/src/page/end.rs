//! Where each way stops making sense.

use snproxy_pages::table::{Table, number};

use super::{percent, whole};
use crate::paper;
use crate::study::{
    ALL_PORTS, BUDGET, CHANGES, MEMBER_BUDGET, MEMBERS, PODS, PROCESSORS, Study, USED, cluster,
    load, most_hosts,
};

/// What a host pays for probing, as a part of a processor.
pub(crate) fn probing(hosts: u32, ports: u32) -> f64 {
    let asked = paper::asked(load(hosts, ports, 1.0));
    paper::cost(asked.questions, asked.questions, asked.connects).cpu
}

/// How busy the processors of a member are.
fn member(hosts: u32, changes: f64) -> f64 {
    paper::kept(cluster(hosts, ALL_PORTS, changes)).member_cpu / PROCESSORS
}

/// Whether the directory takes less of all machines, members included, than probing does.
fn is_cheaper(hosts: u32, ports: u32, changes: f64) -> bool {
    let kept = paper::kept(cluster(hosts, ALL_PORTS, changes));
    let directory = f64::from(hosts) * kept.host_cpu + f64::from(MEMBERS) * kept.member_cpu;
    directory < f64::from(hosts) * probing(hosts, ports)
}

pub(super) fn summary(study: &Study) -> String {
    let mut hosts = Table::new([
        "ports that a host's clients use",
        "probing takes less than 5 % of a processor up to",
        "the directory takes less of all machines together from",
    ]);
    for ports in USED {
        let most = most_hosts(BUDGET, |hosts| probing(hosts.max(2), ports));
        let least = (2..4096).find(|hosts| is_cheaper(*hosts, ports, 20.0));
        let part = f64::from(ports) / f64::from(ALL_PORTS) * 100.0;
        hosts.row([
            format!("{} ({part} % of 60,000)", whole(ports)),
            format!("{} hosts", whole(most)),
            least.map_or_else(String::new, |least| format!("{} hosts", whole(least))),
        ]);
    }
    let mut members = Table::new([
        "changes/s in the cluster",
        "three members of four processors are at most half busy up to",
    ]);
    let most = |changes: f64| round(most_hosts(MEMBER_BUDGET, |hosts| member(hosts, changes)));
    for changes in CHANGES {
        members.row([whole(changes), format!("{} hosts", whole(most(changes)))]);
    }
    let cpu = |one: Option<f64>| one.map(percent).unwrap_or_default();
    let many = cpu(study.probed(1000, 60).map(|one| one.cost.cpu));
    let few = cpu(study.watched(1000, 20.0).map(|one| one.paper.host_cpu));
    format!(
        "{PODS} hosts serve each port, each port in use gets one connection a second, and 20 pods a second come or go:

{hosts}
{members}
- **Up to some 30 hosts: probing alone.** It needs nothing else, and 30 hosts with 60 ports in use each pay {} of a processor for it.
- **From 100 hosts on: the directory.** In between, and up to 300 where hosts use very few ports, the number of ports in use decides. With 1,000 hosts and 60 ports in use each, probing would take {many} of a processor at every
  host; the directory takes {few}, tells all hosts of a change within a tenth of a second, and has ports that nobody serves refused at the first SYN.
- **The directory ends at etcd**, which tells every host of every change: hosts × changes/s are what counts, {} of them at 20 changes a second. Beyond that a cluster is to be split (`CLUSTER`).
",
        percent(probing(30, 60)),
        number(f64::from(most(20.0)) * 20.0),
    )
}

/// To two digits.
fn round(count: u32) -> u32 {
    let unit = 10u32.pow(count.max(1).ilog10().saturating_sub(1));
    count / unit * unit
}
