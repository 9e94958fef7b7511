//! bpf(2) commands that aya does not offer: whole ranges of an array in one call.

#![expect(
    unsafe_code,
    reason = "raw system calls; what they may touch is bounded here"
)]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Pod;
use aya::maps::{Array, IterableMap as _, MapData};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `enum bpf_cmd`, include/uapi/linux/bpf.h.
const BPF_MAP_LOOKUP_BATCH: libc::c_int = 24;
const BPF_MAP_UPDATE_BATCH: libc::c_int = 26;

/// The `batch` member of `union bpf_attr`, include/uapi/linux/bpf.h.
#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

// The kernel reads as many bytes as we say there are.
const _: () = assert!(size_of::<BatchAttr>() == 56);

/// Writes `values[i]` at index `keys[i]`, in order.
///
/// Errors: the kernel's. The entries before the offending one are written, so write all of them again.
///
/// # Panics
///
/// If there are not as many keys as values.
pub fn update_batch<V: Pod>(
    map: &mut Array<MapData, V>,
    keys: &[u32],
    values: &[V],
) -> io::Result<()> {
    assert_eq!(keys.len(), values.len(), "one value per key");
    let mut attr = BatchAttr {
        keys: address(keys.as_ptr()),
        values: address(values.as_ptr()),
        count: count(keys.len())?,
        map_fd: descriptor(map)?,
        ..BatchAttr::default()
    };
    // SAFETY: the kernel reads `count` keys and values, which both slices hold: aya has checked that
    // keys of this map are `u32` and that its values have the size of `V`.
    unsafe { bpf(BPF_MAP_UPDATE_BATCH, &mut attr) }?;
    if attr.count != count(keys.len())? {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// All values of an array, by index.
pub fn lookup_batch<V: Pod + Default>(map: &Array<MapData, V>) -> io::Result<Vec<V>> {
    let len = map.len();
    let room = usize::try_from(len).map_err(io::Error::other)?;
    let mut keys = vec![0u32; room];
    let mut values = vec![V::default(); room];
    // Where a next call would go on: there is none, but the kernel writes it. For an array: a key.
    let mut next = 0u32;
    let mut attr = BatchAttr {
        out_batch: address(&raw mut next),
        keys: address(keys.as_mut_ptr()),
        values: address(values.as_mut_ptr()),
        count: len,
        map_fd: descriptor(map)?,
        ..BatchAttr::default()
    };
    // SAFETY: the kernel writes at most `count` keys and values, for which both vectors have room
    // (sizes as in `update_batch`), and one key to `next`.
    unsafe { bpf(BPF_MAP_LOOKUP_BATCH, &mut attr) }?;
    // The kernel walks an array from its first index to its last.
    if attr.count != len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(values)
}

/// The logger as something tokio can wait for.
///
/// # Panics
///
/// Outside a tokio runtime.
pub fn wait_for<T>(logger: EbpfLogger<T>) -> io::Result<AsyncFd<EbpfLogger<T>>> {
    // SAFETY: the logger owns the descriptor of its ring, opens it once, and gives the same one
    // until it is dropped, which the AsyncFd does after it has deregistered it.
    let waiting = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    waiting.map_err(|error| error.into_parts().1)
}

fn address<T>(pointer: *const T) -> u64 {
    // Exposed: the kernel reads and writes through it. Widening wherever Linux runs.
    pointer.expose_provenance() as u64
}

fn count(entries: usize) -> io::Result<u32> {
    u32::try_from(entries).map_err(io::Error::other)
}

fn descriptor<V: Pod>(map: &Array<MapData, V>) -> io::Result<u32> {
    u32::try_from(map.map().fd().as_fd().as_raw_fd()).map_err(io::Error::other)
}

/// # Safety
///
/// `attr` must be right for `command`: its addresses valid for what the kernel reads and writes there.
unsafe fn bpf(command: libc::c_int, attr: &mut BatchAttr) -> io::Result<()> {
    // SAFETY: `attr` is as long as we say; the rest is the caller's promise.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *attr,
            size_of::<BatchAttr>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
