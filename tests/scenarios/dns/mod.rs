//! Name servers that fail, are silent, or answer with other addresses each time.

mod fixture;
mod servers;
mod targets;
