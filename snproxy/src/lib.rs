pub mod addr;
pub mod diag;

pub mod conf;
pub mod sys;
pub mod wire;

pub mod route;

pub mod discovery;
pub mod net;
pub mod pump;
pub mod steering;

pub mod flow;

pub mod admin;

pub mod daemon;

mod proxy;

pub mod cli;

pub use proxy::{
    Builder, Error, Policy, Proxy, SendProxy, Service, Stats, Upstream, UpstreamStats,
};
