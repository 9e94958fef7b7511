//! TARGETNETS: what addresses may be targets that no file names, but a name server or etcd.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::text::{Field, Findings, is_blank};
use super::value::networks;

/// Services that give every program of a machine its secrets have addresses of these networks.
const LINK_LOCAL: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
];
const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// Names for networks.
const WORDS: [(&str, [IpNet; 2]); 2] = [("link-local", LINK_LOCAL), ("loopback", LOOPBACK)];
const ANY: &str = "any";

/// Networks of addresses that name servers and etcd may give.
///
/// Addresses that no connection can go to are never among them: unspecified, multicast and broadcast ones.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetNets {
    /// Whether `any` is set: all but `excluded`, link-local addresses as well.
    any: bool,
    /// Empty: all but `excluded`.
    included: Vec<IpNet>,
    excluded: Vec<IpNet>,
}

/// Why an address is left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LeftOut {
    /// Unspecified, multicast or broadcast.
    Undialable,
    /// By TARGETNETS.
    Network,
}

impl fmt::Display for LeftOut {
    /// After an address and a comma.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Undialable => "which is no address to dial",
            Self::Network => "which is outside TARGETNETS",
        })
    }
}

impl Default for TargetNets {
    fn default() -> Self {
        Self {
            any: false,
            included: Vec::new(),
            excluded: LINK_LOCAL.to_vec(),
        }
    }
}

impl TargetNets {
    /// Why an address that was discovered is left out; `None`: it may be a target.
    pub fn left_out(&self, ip: IpAddr) -> Option<LeftOut> {
        let ip = ip.to_canonical();
        // What a translator or tunnel on the way makes of an address counts as well.
        let inner = embedded(ip);
        let mut meant = std::iter::once(ip).chain(inner.iter().copied().flatten().map(IpAddr::V4));
        if meant.clone().any(is_undialable) {
            return Some(LeftOut::Undialable);
        }
        let is_in = |nets: &[IpNet], ip: IpAddr| nets.iter().any(|net| net.contains(&ip));
        // `0.0.0.0/0` alone does not stand for link-local addresses: they must be named.
        let names_link_local = |ip: IpAddr| {
            let within = |net: &&IpNet| LINK_LOCAL.iter().any(|outer| outer.contains(*net));
            self.included
                .iter()
                .filter(within)
                .any(|net| net.contains(&ip))
        };
        let is_out = meant.any(|ip| {
            let is_hidden = is_in(&LINK_LOCAL, ip) && !self.any && !names_link_local(ip);
            is_hidden || is_in(&self.excluded, ip)
        });
        let is_listed = self.any || self.included.is_empty() || is_in(&self.included, ip);
        (is_out || !is_listed).then_some(LeftOut::Network)
    }

    pub(super) fn parse(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Self> {
        let mut nets = Self {
            any: false,
            included: Vec::new(),
            excluded: Vec::new(),
        };
        let (mut included, mut excluded) = (Vec::new(), Vec::new());
        for part in value.split(|c| c == ',' || is_blank(c)) {
            if part.text.eq_ignore_ascii_case(ANY) {
                nets.any = true;
                continue;
            }
            let (part, fields, list) = match part.text.strip_prefix('!') {
                Some(_) => (part.tail(1), &mut excluded, &mut nets.excluded),
                None => (part, &mut included, &mut nets.included),
            };
            let mut words = WORDS.iter();
            if let Some((_, word)) = words.find(|(word, _)| word.eq_ignore_ascii_case(part.text)) {
                list.extend(word);
            } else {
                fields.push(part);
            }
        }
        let expected = "any, link-local, loopback or a network such as 10.0.0.0/8, or one of these \
                        after `!`";
        nets.included.extend(networks(
            included.into_iter(),
            expected,
            &[ANY, "link-local", "loopback"],
            findings,
        )?);
        nets.excluded.extend(networks(
            excluded.into_iter(),
            expected,
            &["link-local", "loopback"],
            findings,
        )?);
        Some(nets)
    }
}

impl fmt::Display for TargetNets {
    /// In the form that proxy.conf takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.any.then(|| ANY.to_owned()));
        for (sign, nets) in [("", &self.included), ("!", &self.excluded)] {
            let mut rest = nets.as_slice();
            while let Some((net, others)) = rest.split_first() {
                let word = WORDS.iter().find(|(_, word)| rest.starts_with(word));
                if let Some((name, word)) = word {
                    words.push(format!("{sign}{name}"));
                    rest = &rest[word.len()..];
                } else {
                    words.push(format!("{sign}{net}"));
                    rest = others;
                }
            }
        }
        f.write_str(&words.join(","))
    }
}

/// Source: RFC 1122 section 3.2.1.3: all of `0.0.0.0/8` is this host on this network.
fn is_undialable(ip: IpAddr) -> bool {
    let is_this = |ip: Ipv4Addr| ip.octets()[0] == 0 || ip.is_broadcast();
    let is_v4_of_none = matches!(ip, IpAddr::V4(ip) if is_this(ip));
    ip.is_unspecified() || ip.is_multicast() || is_v4_of_none
}

/// IPv4 addresses that an IPv6 address stands for, where a translator or a tunnel forwards it.
///
/// Source: RFC 4291 section 2.5.5 (compatible), RFC 2765 (translated), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214
/// (ISATAP), RFC 6052 and RFC 8215 (NAT64, whose local prefix may be cut at several lengths).
fn embedded(ip: IpAddr) -> [Option<Ipv4Addr>; 4] {
    let IpAddr::V6(ip) = ip else {
        return [None; 4];
    };
    let o = ip.octets();
    let at = |bytes: [usize; 4]| Some(Ipv4Addr::from(bytes.map(|at| o[at])));
    let last = at([12, 13, 14, 15]);
    let segments = ip.segments();
    // `::` and `::1` stand for themselves.
    if matches!(segments, [0, 0, 0, 0, 0, 0, 0, 0 | 1]) {
        return [None; 4];
    }
    let is_last = match segments {
        [0, 0, 0, 0, middle, 0, ..] => middle == 0 || middle == 0xffff,
        [0x64, 0xff9b, rest @ ..] => rest.starts_with(&[0; 4]),
        [_, _, _, _, 0 | 0x200, middle, ..] => middle == 0x5efe,
        _ => false,
    };
    let last = last.filter(|_| is_last);
    match segments {
        [0x2002, ..] => [last, at([2, 3, 4, 5]), None, None],
        // Bytes of the prefix or after the address begin with 0, where it is cut at another length.
        [0x64, 0xff9b, 1, ..] => [
            at([12, 13, 14, 15]),
            at([6, 7, 9, 10]),
            at([7, 9, 10, 11]),
            at([9, 10, 11, 12]),
        ]
        .map(|inner| inner.filter(|ip| ip.octets()[0] > 0)),
        [0x2001, 0, ..] => {
            let client = Ipv4Addr::from([12, 13, 14, 15].map(|at: usize| !o[at]));
            [last, Some(client), at([4, 5, 6, 7]), None]
        }
        _ => [last, None, None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Source;

    fn nets(text: &str) -> TargetNets {
        let source = Source {
            path: "proxy.conf".into(),
            text: format!("TARGETNETS {text}\n"),
        };
        let mut findings = Findings::new(&source);
        let draft = crate::conf::proxy::read(&source, &mut findings);
        let found = findings.finish();
        assert!(found.is_empty(), "{found:?}");
        draft.conf.target_nets
    }

    #[track_caller]
    fn check(nets: &TargetNets, left_out: Option<LeftOut>, ips: &[&str]) {
        for ip in ips {
            assert_eq!(nets.left_out(ip.parse().unwrap()), left_out, "{nets}: {ip}");
        }
    }

    const OUT: Option<LeftOut> = Some(LeftOut::Network);

    #[test]
    fn link_local_addresses_are_left_out_in_every_form() {
        let default = TargetNets::default();
        let forms = [
            "169.254.169.254",
            "fe80::1",
            "febf::1",
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "2002:a9fe:a9fe::1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00::",
            "2001:0:a9fe:a9fe::1",
            "2001:0:102:304::5601:5601",
            "2001:db8::5efe:169.254.169.254",
        ];
        check(&default, OUT, &forms);
        check(&nets("0.0.0.0/0 ::/0"), OUT, &forms);
        check(&nets("any"), None, &forms);
        check(&nets("link-local"), None, &["169.254.169.254", "fe80::1"]);
        check(&nets("169.254.7.0/24"), None, &["169.254.7.1"]);
        check(&nets("169.254.7.0/24"), OUT, &["169.254.8.1", "10.0.0.1"]);
        let others = [
            "10.0.0.1",
            "127.0.0.1",
            "::1",
            "fd00::1",
            "2001:db8::1",
            "8.8.8.8",
        ];
        check(&default, None, &others);
        check(&default, None, &["64:ff9b::8.8.8.8", "2002:808:808::1"]);
        check(
            &default,
            None,
            &["64:ff9b:1::8.8.8.8", "64:ff9b:1:808:8:800::"],
        );
    }

    #[test]
    fn addresses_without_a_host_are_always_left_out() {
        let forms = [
            "0.0.0.0",
            "0.1.2.3",
            "255.255.255.255",
            "224.0.0.1",
            "::",
            "ff02::1",
            "::ffff:0.0.0.0",
            "64:ff9b::0.0.0.0",
            "64:ff9b::255.255.255.255",
            "2002:e000:1::1",
        ];
        for nets in [TargetNets::default(), nets("any"), nets("0.0.0.0/0,::/0")] {
            check(&nets, Some(LeftOut::Undialable), &forms);
        }
    }

    #[test]
    fn networks_are_included_and_excluded() {
        let own = nets("!loopback,!10.1.0.0/16");
        check(&own, OUT, &["127.0.0.1", "::1", "10.1.2.3", "169.254.1.1"]);
        check(&own, OUT, &["::ffff:127.0.0.1", "64:ff9b::10.1.2.3"]);
        check(&own, None, &["10.2.0.1", "2001:db8::1"]);
        let few = nets("10.0.0.0/8 fd00::/8 !10.9.0.0/16");
        check(&few, None, &["10.0.0.1", "fd00::1"]);
        check(&few, OUT, &["10.9.0.1", "192.0.2.1", "64:ff9b::10.0.0.1"]);
        check(&nets("any !loopback"), OUT, &["127.0.0.1"]);
    }

    #[test]
    fn value_is_shown_as_it_is_written() {
        for text in [
            "!link-local",
            "any",
            "any,!loopback",
            "link-local,10.0.0.0/8,!10.9.0.0/16",
        ] {
            assert_eq!(nets(text).to_string(), text);
        }
        assert_eq!(nets("!link-local"), TargetNets::default());
    }
}
