//! bpf(2) commands that aya does not offer: whole ranges of an array in one call.

use std::io;

use aya::Pod;
use aya::maps::{Array, MapData};

/// Writes `values[i]` at `keys[i]`, in order.
///
/// Errors: the kernel's, with the entries before the offending one written; write all of them again.
pub fn update_batch<V: Pod>(map: &Array<MapData, V>, keys: &[u32], values: &[V]) -> io::Result<()> {
    let _ = (map, keys, values);
    Err(io::ErrorKind::Unsupported.into())
}

/// All values of an array, by index.
pub fn lookup_batch<V: Pod + Default>(map: &Array<MapData, V>) -> io::Result<Vec<V>> {
    let _ = map;
    Err(io::ErrorKind::Unsupported.into())
}
