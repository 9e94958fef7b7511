//! The maps and globals of the `sk_lookup` program.

/// Name of the program in the object.
pub const PROGRAM: &str = "steer";
/// Array of one `u8` action per port, indexed by port (host byte order), [`PORTS`] long.
pub const MAP_ACTIONS: &str = "ACTIONS";
/// `SockMap` with two slots, [`LISTENER_SLOT`] and [`ASIDE_SLOT`].
pub const MAP_LISTENER: &str = "LISTENER";
/// Array of one `u64` per port: lookups of connections to a port that is ours.
pub const MAP_LOOKUPS: &str = "LOOKUPS";
/// Per-CPU array of one [`SteerCounts`].
pub const MAP_COUNTS: &str = "COUNTS";
/// LPM trie from [`port_key`] to [`crate::rate::RateLimit`]: ports of which new connections are limited.
///
/// A trie in place of a hash, which takes a MiB for its 65,536 chains before there is an entry.
pub const MAP_RATES: &str = "RATES";
/// LPM trie from [`port_key`] to [`Bucket`], for the ports of [`MAP_RATES`]: made empty by user space and written by the
/// program alone, so that a changed rate loses no count.
pub const MAP_BUCKETS: &str = "BUCKETS";
/// `.rodata` global of type [`ListenAddr`]: the address that is ours.
pub const GLOBAL_LISTEN: &str = "LISTEN";
/// Read-only array of one `u32`: [`crate::ABI`]. The name of its section in the object.
pub const MAP_ABI: &str = ".rodata.abi";

/// Number of ports, and so the length of the per-port maps.
pub const PORTS: u32 = 65_536;
/// Where the one listener sits in [`MAP_LISTENER`].
pub const LISTENER_SLOT: u32 = 0;
/// Where another listener sits while some ports are set aside.
pub const ASIDE_SLOT: u32 = 1;
/// Length of [`MAP_LISTENER`].
pub const LISTENERS: u32 = 2;

/// The port is not ours: the kernel looks on.
pub const PASS: u8 = 0;
/// The port is ours and its connections go to the listener.
pub const STEER: u8 = 1;
/// The port is ours, but nobody can serve it: the client is refused.
pub const REFUSE: u8 = 2;

/// As [`STEER`], unless there are more new connections than its entry in [`MAP_RATES`] allows: these are refused.
///
/// An action of its own, so that a port without a rate does not pay for the question.
pub const STEER_LIMITED: u8 = 3;

/// As [`STEER`], to the listener of [`ASIDE_SLOT`].
pub const STEER_ASIDE: u8 = 4;
/// As [`STEER_LIMITED`], to the listener of [`ASIDE_SLOT`].
pub const STEER_LIMITED_ASIDE: u8 = 5;

/// Bits of a [`port_key`] that count.
pub const PORT_KEY_BITS: u32 = 16;

/// A port as the data of a key of an LPM trie, for [`PORT_KEY_BITS`].
///
/// Shape: eight bytes, the port in network byte order and then zeros. Eight, so that the value behind them is aligned; one
/// number, for an array would be filled by a loop that the verifier does not take from everybody.
pub const fn port_key(port: u16) -> u64 {
    ((port as u64) << 48).to_be()
}

/// Any local address of [`ListenAddr::family`]; IPv6 takes IPv4 in (dual stack).
pub const ANY_ADDRESS: u32 = 1;

/// The local address on which connections are ours.
///
/// Shape: six `u32`, no padding. `family` is the kernel's `AF_INET` (2) or `AF_INET6` (10), host byte
/// order. `any` is [`ANY_ADDRESS`] or 0. `address` holds the address as it lies on the wire (network
/// byte order): all four words for IPv6, the first one for IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ListenAddr {
    pub family: u32,
    pub any: u32,
    pub address: [u32; 4],
}

/// Outcomes of lookups for ports that are ours, one copy per CPU.
///
/// Shape: five `u64`, native byte order, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SteerCounts {
    /// Given to the listener.
    pub steered: u64,
    /// Refused because user space said so.
    pub refused: u64,
    /// Refused because no listener was in the slot.
    pub no_listener: u64,
    /// Refused because the kernel would not assign the listener.
    pub failed: u64,
    /// Refused because the port's rate was exceeded.
    pub limited: u64,
}

/// What one port has taken of its rate.
///
/// Shape: two `u64`, native byte order, no padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Bucket {
    /// For [`crate::rate::RateLimit::take`], on the clock of `bpf_ktime_get_ns`.
    pub arrival: u64,
    /// Lookups refused since the port has a rate.
    pub limited: u64,
}

// The kernel copies these bytes out as they lie: a hole would leak and compare unequal.
const _: () = assert!(size_of::<SteerCounts>() == 5 * size_of::<u64>());
const _: () = assert!(size_of::<Bucket>() == 2 * size_of::<u64>());
const _: () = assert!(size_of::<ListenAddr>() == 6 * size_of::<u32>());

#[cfg(feature = "user")]
mod user {
    #![expect(
        unsafe_code,
        reason = "Pod is a promise about bytes, and these types keep it"
    )]

    // SAFETY: `repr(C)`, integers only, no padding (asserted above): every bit pattern is a value.
    unsafe impl aya::Pod for super::SteerCounts {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ListenAddr {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Bucket {}
    // SAFETY: as above, asserted beside it.
    unsafe impl aya::Pod for crate::rate::RateLimit {}
}
