//! `sk_lookup`: whose port is this?
//!
//! Runs for every connection that looks for a listener in the network namespace. Everything that is
//! not TCP, or not to our address, or not to a port of ours, passes untouched and uncounted.
//! What is ours goes to the one listener or is refused, never elsewhere.

#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic_xadd: see count_at")]
#![expect(
    unsafe_code,
    reason = "the context and map values are raw pointers; the verifier checks each access"
)]

use core::cell::UnsafeCell;
use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::Global;
use aya_ebpf::bindings::bpf_sk_lookup;
use aya_ebpf::bindings::sk_action::{SK_DROP, SK_PASS};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::macros::{map, sk_lookup};
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, LpmTrie, PerCpuArray, SockMap};
use aya_ebpf::programs::SkLookupContext;
use aya_log_ebpf::error;
use snproxy_common::rate::RateLimit;
use snproxy_common::steering::{
    ANY_ADDRESS, ASIDE_SLOT, Bucket, LISTENER_SLOT, LISTENERS, ListenAddr, PORT_KEY_BITS, PORTS,
    REFUSE, STEER, STEER_ASIDE, STEER_LIMITED, STEER_LIMITED_ASIDE, SteerCounts, port_key,
};

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const IPPROTO_TCP: u32 = 6;
const ENOENT: i32 = 2;

#[map]
static ACTIONS: Array<u8> = Array::with_max_entries(PORTS, 0);
#[map]
static LISTENER: SockMap = SockMap::with_max_entries(LISTENERS, 0);
#[map]
static LOOKUPS: Array<u64> = Array::with_max_entries(PORTS, 0);
#[map]
static COUNTS: PerCpuArray<SteerCounts> = PerCpuArray::with_max_entries(1, 0);
#[map]
static RATES: LpmTrie<u64, RateLimit> = LpmTrie::with_max_entries(PORTS, 0);
#[map]
static BUCKETS: LpmTrie<u64, Written> = LpmTrie::with_max_entries(PORTS, 0);

/// Family 0, until user space says otherwise: nothing is ours.
#[unsafe(no_mangle)]
static LISTEN: Global<ListenAddr> = Global::new(ListenAddr {
    family: 0,
    any: 0,
    address: [0; 4],
});

/// In a section of its own, which becomes a map that user space reads by name.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.abi")]
static ABI: u32 = snproxy_common::ABI;

// None of the helpers used asks for GPL; a program without a licence would not get a log line either.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A bucket where it lies in its map.
#[repr(transparent)]
struct Written(UnsafeCell<Bucket>);

// SAFETY: all access is by whole words, see `is_within_rate`.
unsafe impl Sync for Written {}

/// What became of a lookup.
enum Outcome {
    NotOurs,
    Steered,
    Refused,
    Limited,
    NoListener,
    /// The kernel would not assign the listener: the errno.
    Failed(i32),
}

#[sk_lookup]
fn steer(ctx: SkLookupContext) -> u32 {
    let outcome = decide(&ctx);
    count(&outcome);
    let errno = match outcome {
        Outcome::NotOurs | Outcome::Steered => return SK_PASS,
        // User space knows that nobody can serve it: the client hears so at once.
        // So do those above the rate: nothing waits in a queue that others share.
        Outcome::Refused | Outcome::Limited => return SK_DROP,
        Outcome::NoListener => ENOENT,
        Outcome::Failed(errno) => errno,
    };
    // One line for both: each one makes the program longer by half.
    error!(
        &ctx,
        "refused, listener not assigned: port {} family {} errno {}",
        local_port(&ctx),
        family(&ctx),
        errno
    );
    // The port is ours even so: passing would hand the client to any other socket that happens to
    // be bound there.
    SK_DROP
}

fn decide(ctx: &SkLookupContext) -> Outcome {
    if protocol(ctx) != IPPROTO_TCP || !is_our_address(ctx, LISTEN.load()) {
        return Outcome::NotOurs;
    }
    let port = local_port(ctx);
    let mut slot = LISTENER_SLOT;
    match ACTIONS.get(port) {
        Some(&STEER) => count_lookup(port),
        Some(&REFUSE) => {
            count_lookup(port);
            return Outcome::Refused;
        }
        Some(&STEER_ASIDE) => {
            count_lookup(port);
            slot = ASIDE_SLOT;
        }
        Some(action @ &(STEER_LIMITED | STEER_LIMITED_ASIDE)) => {
            count_lookup(port);
            if !is_within_rate(port) {
                return Outcome::Limited;
            }
            if *action == STEER_LIMITED_ASIDE {
                slot = ASIDE_SLOT;
            }
        }
        _ => return Outcome::NotOurs,
    }
    match LISTENER.redirect_sk_lookup(ctx, slot, 0) {
        Ok(()) => Outcome::Steered,
        Err(errno) if errno == -ENOENT => Outcome::NoListener,
        Err(errno) => Outcome::Failed(-errno),
    }
}

/// Before the port: a listener on one address must not get connections to another.
fn is_our_address(ctx: &SkLookupContext, ours: ListenAddr) -> bool {
    let family = family(ctx);
    if ours.any == ANY_ADDRESS {
        // A dual-stack socket takes IPv4 as well.
        return family == ours.family || (ours.family == AF_INET6 && family == AF_INET);
    }
    if family != ours.family {
        return false;
    }
    match family {
        AF_INET => local_ip4(ctx) == ours.address[0],
        AF_INET6 => {
            local_ip6(ctx, 0) == ours.address[0]
                && local_ip6(ctx, 1) == ours.address[1]
                && local_ip6(ctx, 2) == ours.address[2]
                && local_ip6(ctx, 3) == ours.address[3]
        }
        _ => false,
    }
}

fn count(outcome: &Outcome) {
    if let Outcome::NotOurs = outcome {
        return;
    }
    let Some(counts) = COUNTS.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: a value of the map, this CPU's own copy; nothing else runs on this CPU meanwhile that
    // writes it.
    let counts = unsafe { &mut *counts };
    match outcome {
        Outcome::NotOurs => {}
        Outcome::Steered => counts.steered += 1,
        Outcome::NoListener => counts.no_listener += 1,
        Outcome::Failed(_) => counts.failed += 1,
        // Two arms that end alike become one addition at a computed offset, which the verifier takes only from those who
        // hold CAP_PERFMON.
        Outcome::Refused | Outcome::Limited => {
            let is_limited = u64::from(matches!(outcome, Outcome::Limited));
            counts.refused += 1 - is_limited;
            counts.limited += is_limited;
        }
    }
}

/// One more lookup of a port that is ours.
fn count_lookup(port: u32) {
    if let Some(lookups) = LOOKUPS.get_ptr_mut(port) {
        // SAFETY: a value of the map, eight bytes and aligned; all who write it add atomically.
        unsafe { count_at(lookups) };
    }
}

/// The result goes unused, which makes it a plain BPF atomic add: one that fetches needs 5.12.
/// The intrinsic, since core offers no `fetch_add` on a target without compare-and-swap.
///
/// # Safety
///
/// `counter` must be valid and aligned, and written atomically by all.
#[inline(always)]
unsafe fn count_at(counter: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(counter, 1) };
}

/// Takes one lookup from the port's bucket, or counts it where the bucket has none left.
///
/// Plain loads and stores, since compare-and-swap needs 5.12: two lookups at the same moment on two CPUs may take one
/// place between them, so that a little more than the rate can pass, never less. A lookup is not always a connection: a SYN that comes
/// again is another one, and so is, rarely, an ACK.
fn is_within_rate(port: u32) -> bool {
    let Ok(port) = u16::try_from(port) else {
        return true;
    };
    let key = Key::new(PORT_KEY_BITS, port_key(port));
    // User space writes both before the action that leads here, and takes them away after it.
    let (Some(limit), Some(bucket)) = (RATES.get(&key), BUCKETS.get(&key)) else {
        return true;
    };
    let bucket = bucket.0.get();
    // SAFETY: a value of the map, alive until this run ends; eight bytes and aligned, as all of the words below.
    let arrival = unsafe { &raw mut (*bucket).arrival };
    // SAFETY: as above.
    let before = unsafe { arrival.read_volatile() };
    // SAFETY: the helper asks for nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let (is_within, after) = limit.take(before, now);
    if after != before {
        // SAFETY: as above.
        unsafe { arrival.write_volatile(after) };
    }
    if !is_within {
        // SAFETY: as above; all who write it add atomically.
        unsafe { count_at(&raw mut (*bucket).limited) };
    }
    is_within
}

fn family(ctx: &SkLookupContext) -> u32 {
    read(ctx, |lookup| &raw const lookup.family)
}

fn protocol(ctx: &SkLookupContext) -> u32 {
    read(ctx, |lookup| &raw const lookup.protocol)
}

/// Host byte order.
fn local_port(ctx: &SkLookupContext) -> u32 {
    read(ctx, |lookup| &raw const lookup.local_port)
}

/// Network byte order.
fn local_ip4(ctx: &SkLookupContext) -> u32 {
    read(ctx, |lookup| &raw const lookup.local_ip4)
}

/// Network byte order.
fn local_ip6(ctx: &SkLookupContext, word: usize) -> u32 {
    read(ctx, |lookup| &raw const lookup.local_ip6[word])
}

/// One word of the context, as it stands.
///
/// Volatile: the verifier takes loads of four bytes and refuses two merged into one of eight.
#[inline(always)]
fn read(ctx: &SkLookupContext, field: impl Fn(&bpf_sk_lookup) -> *const u32) -> u32 {
    // SAFETY: the kernel gives a valid context for the time of the run.
    unsafe { field(&*ctx.lookup).read_volatile() }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing above panics; the verifier would refuse this loop.
    loop {}
}
