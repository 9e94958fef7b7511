//! Nodes of services that etcd knows, and what becomes of them when etcd fails.

mod asked;
mod changes;
mod fixture;
mod hostile;
mod quorum;
mod register;
mod replaced;
mod served;

use fixture::{Etcd, FILE, PORT, SOON, SRV, proxy, register, service};
