//! What user space and the BPF program agree on: names, numbers, layouts, and the sums that both do.
//!
//! No logic but indexing and these. A change of layout is a new [`ABI`] number.

#![no_std]

pub mod rate;
pub mod steering;

/// Number of the layout shared by program and user space.
///
/// It stands in the object as the map [`steering::MAP_ABI`].
pub const ABI: u32 = 2;
