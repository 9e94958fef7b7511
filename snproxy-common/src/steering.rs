//! The maps and globals of the `sk_lookup` program.

/// Name of the program in the object.
pub const PROGRAM: &str = "steer";
/// Array of one `u8` action per port, indexed by port (host byte order), [`PORTS`] long.
pub const MAP_ACTIONS: &str = "ACTIONS";
/// `SockMap` with one slot, [`LISTENER_SLOT`].
pub const MAP_LISTENER: &str = "LISTENER";
/// Array of one `u64` per port: lookups of connections to a port that is ours.
pub const MAP_LOOKUPS: &str = "LOOKUPS";
/// Per-CPU array of one [`SteerCounts`].
pub const MAP_COUNTS: &str = "COUNTS";
/// `.rodata` global of type [`ListenAddr`]: the address that is ours.
pub const GLOBAL_LISTEN: &str = "LISTEN";
/// Read-only array of one `u32`: [`crate::ABI`]. The name of its section in the object.
pub const MAP_ABI: &str = ".rodata.abi";

/// Number of ports, and so the length of the per-port maps.
pub const PORTS: u32 = 65_536;
/// Where the one listener sits in [`MAP_LISTENER`].
pub const LISTENER_SLOT: u32 = 0;

/// The port is not ours: the kernel looks on.
pub const PASS: u8 = 0;
/// The port is ours and its connections go to the listener.
pub const STEER: u8 = 1;
/// The port is ours, but nobody can serve it: the client is refused.
pub const REFUSE: u8 = 2;

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
/// Shape: four `u64`, native byte order, no padding.
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
}

// The kernel copies these bytes out as they lie: a hole would leak and compare unequal.
const _: () = assert!(size_of::<SteerCounts>() == 4 * size_of::<u64>());
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
}
