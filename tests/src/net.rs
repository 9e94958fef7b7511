use crate::{Client, Host, Namespace};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

/// A cluster of its own: a namespace per host and per client, joined by a switch.
///
/// Shape: hosts are `10.77.0.1` and `fd77::1`, then `.2` and so on in the order given; clients are `10.77.0.101` and
/// `fd77::101`, then `.102`.
/// Every net has the same addresses: they never meet.
pub struct Net {
    // Fields drop in this order: what runs inside first, the switch last.
    hosts: Vec<Host>,
    clients: Vec<Arc<Client>>,
    switch: Namespace,
}

impl Net {
    /// One host, `host`, and one client.
    pub fn one() -> Self {
        Self::hosts(["host"])
    }

    /// These hosts and one client.
    pub fn hosts<const N: usize>(names: [&str; N]) -> Self {
        Self::new(&names, 1)
    }

    /// These hosts and several clients, each in a namespace of its own; at least one.
    pub fn new(hosts: &[&str], clients: u8) -> Self {
        raise_nofile();
        let switch = Namespace::new("switch");
        switch.ip("link add switch type bridge forward_delay 0");
        switch.ip("link set switch up");
        let addresses = |first: u8| (first..).map(Addresses::numbered);
        let all_hosts: Vec<_> = hosts.iter().copied().zip(addresses(1)).collect();
        let clients: Vec<_> = addresses(101)
            .take(usize::from(clients).max(1))
            .map(|at| {
                Arc::new(Client::new(
                    join(&switch, &format!("client{}", at.v4.octets()[3]), at),
                    at,
                ))
            })
            .collect();
        let hosts = all_hosts.iter().map(|&(name, at)| {
            Host::new(
                name,
                join(&switch, name, at),
                at,
                &all_hosts,
                Arc::clone(&clients[0]),
            )
        });
        let hosts = hosts.collect();
        Self {
            hosts,
            clients,
            switch,
        }
    }

    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        self.hosts
            .iter()
            .find(|host| host.name() == name)
            .unwrap_or_else(|| panic!("no host {name} in this net"))
    }

    /// All hosts, in the order given.
    pub fn all_hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Pulls the cable of a host: it reaches nobody, and nobody is told.
    #[track_caller]
    pub fn unplug(&self, host: &str) {
        self.set_port(host, "down");
    }

    /// Puts the cable of a host back.
    #[track_caller]
    pub fn plug(&self, host: &str) {
        self.set_port(host, "up");
    }

    #[track_caller]
    fn set_port(&self, host: &str, state: &str) {
        let port = switch_port(self.host(host).addresses());
        self.switch.ip(&format!("link set {port} {state}"));
    }

    /// The first client.
    pub fn client(&self) -> &Client {
        self.nth_client(0)
    }

    #[track_caller]
    pub fn nth_client(&self, index: usize) -> &Client {
        self.clients
            .get(index)
            .unwrap_or_else(|| panic!("no client {index} in this net"))
    }
}

/// The addresses of one member of a net.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

impl Addresses {
    fn numbered(number: u8) -> Self {
        // fd77::101 reads like 10.77.0.101: the same digits, whatever their base.
        let digits = u16::from_str_radix(&number.to_string(), 16).expect("decimal digits");
        Self {
            v4: Ipv4Addr::new(10, 77, 0, number),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, digits),
        }
    }
}

/// Name of the switch's end of a member's cable.
fn switch_port(at: Addresses) -> String {
    format!("port{}", at.v4.octets()[3])
}

/// A new namespace with a cable to the switch.
fn join(switch: &Namespace, name: &str, at: Addresses) -> Namespace {
    let member = Namespace::new(name);
    let port = switch_port(at);
    switch.ip(&format!(
        "link add {port} type veth peer name eth0 netns {}",
        member.name()
    ));
    switch.ip(&format!("link set {port} master switch up"));
    member.ip(&format!("address add {}/24 dev eth0", at.v4));
    // Without nodad the address answers only after a second of duplicate detection.
    member.ip(&format!("address add {}/64 dev eth0 nodad", at.v6));
    member.ip("link set eth0 up");
    member
}

/// Many scenarios hold thousands of sockets on both sides in this one process.
fn raise_nofile() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .expect("raise nofile");
}
