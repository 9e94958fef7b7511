//! What hosts say of themselves in the cluster directory: keys and values of etcd, from and to text.
//!
//! A host writes one key of its own, `<address:port>`, the port being PORT, and one more for each block of 1,024 cluster
//! ports of which it serves some: `<address:port>/<first port of the block>`. In blocks, since a pod that goes up or down
//! is to rewrite some kilobytes at most, while all 65,536 ports of a host may take a megabyte; and a host with adjacent
//! ports has few lines in few blocks. Addresses rather than names: whoever reads them must not have to ask a name service.

use std::fmt::Write;
use std::net::SocketAddr;
use std::str::Lines;

use super::Invalid;
use crate::addr::canonical;

/// Ports of a block.
pub const BLOCK: u16 = 1024;

/// Blocks that there are.
pub const BLOCKS: u8 = 64;

/// Longest value of a block: the version, and 1,024 lines such as `65535 65535 full`.
pub const MAX_VALUE: usize = 2 + BLOCK as usize * 17;

/// Longest name of a host. Source: RFC 1035 section 2.3.4, less the length bytes.
const MAX_NAME: usize = 253;

/// Longest key behind the prefix: an IPv6 address in brackets, its port, and a block.
const MAX_KEY: usize = 60;

/// First line of a value, and first word of a host's own key. What is written otherwise has another number, so that
/// older proxies leave it alone and go on asking that host.
const VERSION: &str = "1";

/// Which key it is, below the prefix of all.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Where the host's proxy is dialled.
    pub host: SocketAddr,
    /// Number of the block; `None`: the host's own key, which says that it publishes, and that its blocks are there.
    pub block: Option<u8>,
}

/// What a host has for a port.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Serves {
    /// Pods that are up; never 0.
    pub pods: u16,
    /// All of them have had `maxConn` connections for some time.
    pub is_full: bool,
}

/// Adjacent ports, both ends included, that a host serves alike.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    pub first: u16,
    pub last: u16,
    pub serves: Serves,
}

impl Key {
    /// Reads the part of a key behind the prefix.
    pub fn decode(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_KEY {
            return Err(Invalid("length of a key"));
        }
        let (host, block) = match text.split_once('/') {
            None => (text, None),
            Some((host, first)) => {
                let first = number(first).ok_or(Invalid("block"))?;
                if first % BLOCK != 0 {
                    return Err(Invalid("block"));
                }
                (host, Some(block_of(first)))
            }
        };
        let addr: SocketAddr = host.parse().map_err(|_| Invalid("address"))?;
        let ip = addr.ip();
        // One form for each address, so that no host stands under two keys; and none that is no other host's.
        let is_good = addr.to_string() == host
            && canonical(addr) == addr
            && addr.port() > 0
            && !ip.is_unspecified()
            && !ip.is_loopback()
            && !ip.is_multicast()
            && !host.contains('%');
        if !is_good {
            return Err(Invalid("address"));
        }
        Ok(Self { host: addr, block })
    }

    /// Its part behind the prefix.
    pub fn encode(self) -> String {
        match self.block {
            None => self.host.to_string(),
            Some(block) => format!("{}/{}", self.host, first_of(block)),
        }
    }
}

/// Number of the block that a port is in.
pub fn block_of(port: u16) -> u8 {
    u8::try_from(port / BLOCK).expect("65,536 / 1,024 blocks")
}

/// The first port of a block.
pub fn first_of(block: u8) -> u16 {
    u16::from(block) * BLOCK
}

/// Reads the value of a host's own key: its name, as it stands in its hosts.conf.
pub fn decode_name(value: &[u8]) -> Result<&str, Invalid> {
    let text = str::from_utf8(value).map_err(|_| Invalid("text"))?;
    let name = text
        .strip_prefix(VERSION)
        .and_then(|rest| rest.strip_prefix(' '))
        .ok_or(Invalid("version"))?;
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(is_good) {
        return Err(Invalid("name"));
    }
    Ok(name)
}

pub fn encode_name(name: &str) -> String {
    format!("{VERSION} {name}")
}

/// Reads the value of a block.
///
/// Shape: the version, then lines `first[-last] pods[ full]`, each ended by LF, ascending and apart. Ports that are not
/// there are not served.
pub fn decode_block(block: u8, value: &[u8]) -> Result<Box<[Run]>, Invalid> {
    if value.len() > MAX_VALUE {
        return Err(Invalid("length"));
    }
    let text = str::from_utf8(value).map_err(|_| Invalid("text"))?;
    // `lines` would take a last one that was cut off, or CRLF.
    if !text.ends_with('\n') || text.contains('\r') {
        return Err(Invalid("line end"));
    }
    let mut lines: Lines<'_> = text.lines();
    if lines.next() != Some(VERSION) {
        return Err(Invalid("version"));
    }
    let mut next = u32::from(first_of(block));
    let end = next + u32::from(BLOCK);
    let runs = lines.map(|line| {
        let run = run(line)?;
        if u32::from(run.first) < next || u32::from(run.last) >= end {
            return Err(Invalid("order of ports"));
        }
        next = u32::from(run.last) + 1;
        Ok(run)
    });
    runs.collect()
}

fn run(line: &str) -> Result<Run, Invalid> {
    let mut words = line.split(' ');
    let ports = words.next().unwrap_or_default();
    let (first, last) = match ports.split_once('-') {
        None => (number(ports), number(ports)),
        Some((first, last)) => (number(first), number(last)),
    };
    let (Some(first), Some(last)) = (first, last) else {
        return Err(Invalid("port"));
    };
    // Port 0 is none that can be asked for.
    if first == 0 || first > last || (first == last && ports.contains('-')) {
        return Err(Invalid("port"));
    }
    let pods = words.next().and_then(number).filter(|pods| *pods > 0);
    let pods = pods.ok_or(Invalid("number of pods"))?;
    let is_full = match (words.next(), words.next()) {
        (None, _) => false,
        (Some("full"), None) => true,
        _ => return Err(Invalid("line")),
    };
    Ok(Run {
        first,
        last,
        serves: Serves { pods, is_full },
    })
}

/// A number in its one form: `parse` would take `+1` and `01` too.
fn number(text: &str) -> Option<u16> {
    let number = text.parse().ok()?;
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    (is_plain && (text == "0" || !text.starts_with('0'))).then_some(number)
}

/// The value of a block with these runs, which are ascending and in one block.
pub fn encode_block(runs: &[Run]) -> String {
    let mut text = format!("{VERSION}\n");
    for Run {
        first,
        last,
        serves,
    } in runs
    {
        let full = if serves.is_full { " full" } else { "" };
        let pods = serves.pods;
        // Writing to a string does not fail.
        let _ = if first == last {
            writeln!(text, "{first} {pods}{full}")
        } else {
            writeln!(text, "{first}-{last} {pods}{full}")
        };
    }
    text
}

#[cfg(test)]
mod tests;
