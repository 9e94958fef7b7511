//! The `sk_lookup` program, its maps and its link.

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, SockMap};
use aya::programs::links::FdLink;
use aya::programs::{ProgramError, SkLookup};
use aya::{EbpfLoader, VerifierLogLevel};
use aya_log::EbpfLogger;
use rustix::process::{Resource, Rlimit, setrlimit};
use snproxy_common::ABI;
use snproxy_common::steering::{
    ANY_ADDRESS, ASIDE_SLOT, GLOBAL_LISTEN, LISTENER_SLOT, ListenAddr, MAP_ABI, MAP_ACTIONS,
    MAP_BUCKETS, MAP_COUNTS, MAP_LISTENER, MAP_LOOKUPS, MAP_RATES, PASS, PROGRAM, REFUSE, STEER,
    STEER_ASIDE, STEER_LIMITED, STEER_LIMITED_ASIDE,
};

use super::kernel_log::{KernelLog, ToTracing};
use super::rates::Rates;
use super::{Counters, RateLimit, SteeringError};
use crate::addr::Action;
use crate::sys;
use crate::sys::privileges::Capability;

/// Which lines of the program are kept: `BPFLOG`.
pub use aya_log::Level as LogLevel;

static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../snproxy-ebpf/prebuilt/steering.o");
const OBJECT_RECORD: &str = include_str!("../../../snproxy-ebpf/prebuilt/steering.toolchain");

/// The ring of the log lines; aya-log names it.
const MAP_LOG: &str = "AYA_LOGS";
/// The calling thread's namespace. `/proc/self` would be the main thread's.
const NETWORK_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// SHA-256 of the program's object, in hexadecimal: what `snproxy --version` prints.
pub fn object_sha256() -> &'static str {
    OBJECT_RECORD
        .lines()
        .find_map(|line| line.strip_prefix("sha256 = \"")?.strip_suffix('"'))
        .unwrap_or("unknown")
}

/// The program in the kernel; dropping it detaches it.
///
/// Load, set the listener, attach, write actions: in this order no connection is refused for want
/// of a listener, and nothing is steered before it is said to be. All of it before other threads start, since capabilities belong to threads;
/// afterwards the descriptors are enough and capabilities can go (`sys::privileges`).
pub struct Ebpf {
    stage: Stage,
    actions: Array<MapData, u8>,
    listener: SockMap<MapData>,
    rates: Rates,
    counters: Counters,
    log: Option<KernelLog>,
}

enum Stage {
    Loaded(Box<aya::Ebpf>),
    /// The program's descriptor is closed: whoever holds it can attach the program elsewhere.
    #[expect(dead_code, reason = "held: closing it detaches")]
    Attached(FdLink),
}

impl Ebpf {
    /// Loads program and maps: all ports pass, no listener, not attached.
    ///
    /// `listen` is the address that is ours (HOST:PORT, canonical). Needs `CAP_BPF` and
    /// `CAP_NET_ADMIN`; with `log` some kernels ask for `CAP_PERFMON` too (6.18 does not).
    pub fn load(listen: SocketAddr, log: Option<LogLevel>) -> Result<Self, SteeringError> {
        let needed = capabilities(log);
        let ours = listen_addr(listen.ip());
        let level: u8 = log.map_or(0, |level| level as u8);
        if !sys::kernel::at_least(5, 11) {
            // Maps count as locked memory there. If it is refused, creating them says so.
            let unlimited = Rlimit {
                current: None,
                maximum: None,
            };
            let _ = setrlimit(Resource::Memlock, unlimited);
        }

        let mut loader = EbpfLoader::new();
        loader
            // Nothing here is relocated against the kernel's types, and parsing them costs 11 MiB.
            .btf(None)
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global(GLOBAL_LISTEN, &ours, true)
            .override_global(aya_log::LEVEL, &level, true);
        if log.is_none() {
            // Nobody writes to it; the map is there because the program names it.
            loader.map_max_entries(MAP_LOG, 4096);
        }
        let mut object = loader.load(OBJECT).map_err(|error| {
            SteeringError::of_aya("load bpf object", "steering", &error, &needed)
        })?;
        check_abi(&object)?;
        program(&mut object)?
            .load()
            .map_err(|error| SteeringError::of_aya("load bpf program", PROGRAM, &error, &needed))?;

        // Only now: the program was loaded with the numbers of their descriptors.
        let actions = take(&mut object, MAP_ACTIONS)?;
        let listener = take(&mut object, MAP_LISTENER)?;
        let counts: PerCpuArray<_, _> = take(&mut object, MAP_COUNTS)?;
        let lookups: Array<_, _> = take(&mut object, MAP_LOOKUPS)?;
        let rates = Rates::new(
            take(&mut object, MAP_RATES)?,
            take(&mut object, MAP_BUCKETS)?,
        );
        let log = match log {
            Some(_) => Some(KernelLog::new(
                EbpfLogger::init_with_logger(&mut object, ToTracing).map_err(|error| {
                    SteeringError::of_aya("open bpf map", MAP_LOG, &error, &needed)
                })?,
            )),
            None => None,
        };
        Ok(Self {
            stage: Stage::Loaded(Box::new(object)),
            actions,
            listener,
            counters: Counters::new(counts, lookups, rates.clone()),
            rates,
            log,
        })
    }

    /// Tells the kernel what becomes of each of these ports, in one call.
    ///
    /// Errors: some of `changes` may have been written; write all of them again, as
    /// [`Known`](super::Known) does.
    pub fn write(&mut self, changes: &[(u16, Action)]) -> Result<(), SteeringError> {
        let (keys, values): (Vec<u32>, Vec<u8>) = changes
            .iter()
            .map(|(port, action)| (u32::from(*port), value(*action)))
            .unzip();
        sys::bpf::update_batch(&mut self.actions, &keys, &values)
            .map_err(|error| SteeringError::sys("write bpf map", MAP_ACTIONS, error, &[]))
    }

    /// Gives ports the rates that [`Action::SteerLimited`] asks for: before that action is written.
    ///
    /// A port's count stays when its rate changes. Errors: some may have been written; write all of them again.
    pub fn limit(&mut self, limits: &[(u16, RateLimit)]) -> Result<(), SteeringError> {
        self.rates.write(limits)
    }

    /// Takes rates and counts of ports away: after another action was written. Errors: as of [`limit`](Self::limit).
    pub fn unlimit(&mut self, ports: &[u16]) -> Result<(), SteeringError> {
        self.rates.remove(ports)
    }

    /// Puts a listening TCP socket into the slot, in place of the one there.
    ///
    /// The entry belongs to the socket: it ends when the socket's last descriptor is closed.
    pub fn set_listener(&mut self, listener: &impl AsFd) -> Result<(), SteeringError> {
        self.set(LISTENER_SLOT, listener)
    }

    /// The same for ports that are set aside: before any of them is.
    pub fn set_aside_listener(&mut self, listener: &impl AsFd) -> Result<(), SteeringError> {
        self.set(ASIDE_SLOT, listener)
    }

    fn set(&mut self, slot: u32, listener: &impl AsFd) -> Result<(), SteeringError> {
        self.listener
            .set(slot, &listener.as_fd(), 0)
            .map_err(|error| SteeringError::of_aya("write bpf map", MAP_LISTENER, &error, &[]))
    }

    /// Attaches the program to the network namespace of the calling thread.
    ///
    /// Errors: also when it is attached already.
    pub fn attach(&mut self) -> Result<(), SteeringError> {
        let namespace = File::open(NETWORK_NAMESPACE)
            .map_err(|error| SteeringError::sys("open", NETWORK_NAMESPACE, error, &[]))?;
        let Stage::Loaded(object) = &mut self.stage else {
            let cause = io::ErrorKind::AlreadyExists.into();
            return Err(SteeringError::sys(
                "attach bpf program",
                PROGRAM,
                cause,
                &[],
            ));
        };
        let program = program(object)?;
        let link = program
            .attach(namespace)
            .and_then(|id| program.take_link(id))
            .map_err(|error: ProgramError| {
                SteeringError::of_aya("attach bpf program", PROGRAM, &error, &capabilities(None))
            })?;
        self.stage = Stage::Attached(link.into());
        Ok(())
    }

    /// The counters, for whoever reports them.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// The program's log lines, once: `None` when loaded without `log`, and at the second call.
    pub fn logger(&mut self) -> Option<KernelLog> {
        self.log.take()
    }
}

fn capabilities(log: Option<LogLevel>) -> Vec<Capability> {
    let mut needed = vec![Capability::CAP_BPF, Capability::CAP_NET_ADMIN];
    // Some verifiers take the code that fills a log record from those who hold it only.
    needed.extend(log.map(|_| Capability::CAP_PERFMON));
    needed
}

fn listen_addr(ip: IpAddr) -> ListenAddr {
    // Addresses are bytes in network order: words of the same bytes, whatever their order here.
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
    let mut address = [0; 4];
    let family = match ip {
        IpAddr::V4(ip) => {
            address[0] = word(&ip.octets());
            libc::AF_INET
        }
        IpAddr::V6(ip) => {
            for (to, from) in address.iter_mut().zip(ip.octets().chunks_exact(4)) {
                *to = word(from);
            }
            libc::AF_INET6
        }
    };
    ListenAddr {
        family: family.unsigned_abs(),
        any: if ip.is_unspecified() { ANY_ADDRESS } else { 0 },
        address,
    }
}

fn value(action: Action) -> u8 {
    match action {
        Action::Pass => PASS,
        Action::Steer => STEER,
        Action::SteerLimited => STEER_LIMITED,
        Action::SteerAside => STEER_ASIDE,
        Action::SteerLimitedAside => STEER_LIMITED_ASIDE,
        Action::Refuse => REFUSE,
    }
}

fn program(object: &mut aya::Ebpf) -> Result<&mut SkLookup, SteeringError> {
    object
        .program_mut(PROGRAM)
        .ok_or_else(|| SteeringError::Object(format!("no program {PROGRAM}")))?
        .try_into()
        .map_err(|error: ProgramError| SteeringError::Object(error.to_string()))
}

fn take<T>(object: &mut aya::Ebpf, name: &str) -> Result<T, SteeringError>
where
    T: TryFrom<Map, Error = MapError>,
{
    object
        .take_map(name)
        .ok_or_else(|| SteeringError::Object(format!("no map {name}")))?
        .try_into()
        .map_err(|error| SteeringError::Object(format!("map {name}: {error}")))
}

/// The object is committed, and so can be older than this code.
fn check_abi(object: &aya::Ebpf) -> Result<(), SteeringError> {
    let found = object.map(MAP_ABI).and_then(|map| {
        let map = Array::<_, u32>::try_from(map).ok()?;
        map.get(&0, 0).ok()
    });
    if found == Some(ABI) {
        return Ok(());
    }
    let found = found.map_or("none".to_owned(), |abi| abi.to_string());
    Err(SteeringError::Object(format!(
        "its ABI is {found}, this snproxy needs {ABI}; run `cargo xtask ebpf`"
    )))
}
