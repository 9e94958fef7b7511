//! The ports that the kernel picks from for connections that are made here.

use std::fs;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

const SETTINGS: &str = "/proc/sys/net/ipv4";
/// Of a kernel that does not say.
const ALL: RangeInclusive<u16> = 0..=u16::MAX;

/// The range as it was read last: its first port in the upper half, its last one in the lower; 0 before that.
static RANGE: AtomicU32 = AtomicU32::new(0);

/// What the kernel allows one destination.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SourcePorts {
    /// From one source address.
    pub count: u32,
    reuse: Reuse,
}

/// Whether a connection that waits in `TIME_WAIT` gives its port to a new one.
///
/// Source: kernel documentation, ip-sysctl, `tcp_tw_reuse`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Reuse {
    Never,
    Always,
    Loopback,
}

impl SourcePorts {
    /// Reads the kernel's settings, which may have changed.
    pub fn read() -> Self {
        let read = |name| fs::read_to_string(Path::new(SETTINGS).join(name)).unwrap_or_default();
        let range = range(read("ip_local_port_range").trim()).unwrap_or(ALL);
        let packed = u32::from(*range.start()) << 16 | u32::from(*range.end());
        RANGE.store(packed, Relaxed);
        Self::of(
            &range,
            read("ip_local_reserved_ports").trim(),
            read("tcp_tw_reuse").trim(),
        )
    }

    fn of(range: &RangeInclusive<u16>, reserved: &str, reuse: &str) -> Self {
        let reserved = reserved.split(',').filter_map(|item| {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let first: u16 = first.parse().ok()?;
            let last: u16 = last.parse().ok()?;
            Some(len((*range.start()).max(first)..=(*range.end()).min(last)))
        });
        Self {
            count: len(range.clone()).saturating_sub(reserved.sum()),
            reuse: match reuse {
                "1" => Reuse::Always,
                "2" => Reuse::Loopback,
                _ => Reuse::Never,
            },
        }
    }

    /// Whether connections to this address give their ports back as soon as they have ended, whoever ended first.
    pub fn are_reused_at(&self, ip: IpAddr) -> bool {
        match self.reuse {
            Reuse::Never => false,
            Reuse::Always => true,
            Reuse::Loopback => ip.is_loopback(),
        }
    }
}

/// Whether the kernel may pick this port, by what was read last.
pub fn may_be_picked(port: u16) -> bool {
    if RANGE.load(Relaxed) == 0 {
        SourcePorts::read();
    }
    let range = RANGE.load(Relaxed);
    (range >> 16..=range & 0xFFFF).contains(&u32::from(port))
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

fn len(ports: RangeInclusive<u16>) -> u32 {
    u32::try_from(ports.count()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ports_are_read_as_the_kernel_writes_them() {
        assert_eq!(range("32768\t60999"), Some(32768..=60999));
        assert_eq!(range("1 65535"), Some(1..=65535));
        assert_eq!(range("32768"), None);
        assert_eq!(range(""), None);
    }

    #[test]
    fn reserved_ports_are_none_to_pick() {
        let count = |reserved| SourcePorts::of(&(40000..=40099), reserved, "0").count;
        assert_eq!(count(""), 100);
        assert_eq!(count("1024,40000-40009,40050"), 89);
        assert_eq!(count("39000-40000,40099-50000"), 98);
        assert_eq!(count("1-65535"), 0);
    }

    #[test]
    fn what_waits_in_time_wait_counts_unless_it_is_reused() {
        let (loopback, other) = ("127.0.0.9".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let reused = |setting| {
            let ports = SourcePorts::of(&ALL, "", setting);
            [loopback, other].map(|ip| ports.are_reused_at(ip))
        };
        assert_eq!(reused("0"), [false, false]);
        assert_eq!(reused("1"), [true, true]);
        assert_eq!(reused("2"), [true, false]);
        assert_eq!(reused(""), [false, false]);
    }
}
