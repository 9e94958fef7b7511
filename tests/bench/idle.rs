//! Memory of connections that are open and do nothing.

use crate::{
    contestants::{Contestant, Running},
    ground::Ground,
    memory::{raise_descriptor_limit, resident, settle, slab, wait_for_return},
    results::{BurstRound, BurstRow, IdleRound, IdleRow, Memory, SNPROXY, Topology},
    rounds::Pace,
};
use anyhow::{Context, ensure};
use socket2::Socket;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

const IDLE: u32 = 5000;
const BURST: u32 = 9000;
/// What each connection sends and gets back before it idles.
const EXCHANGED: usize = 64;
/// Time in which memory is to return after a burst.
const RETURN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(10);
/// Of each process, for all else.
const OTHER_DESCRIPTORS: u64 = 500;

/// Each contestant with a proxy, in turn.
pub(crate) fn measure(contestants: &[Contestant], pace: &Pace) -> anyhow::Result<Vec<IdleRow>> {
    let (connections, rounds) = (affordable(IDLE), pace.rounds);
    let mut rows: Vec<IdleRow> = Vec::new();
    for round in 1..=rounds {
        for contestant in contestants {
            pace.go_on()?;
            let ground = Ground::new(Topology::OneHost, &contestant.name);
            let running = contestant.start(&ground);
            let pids = running.pids();
            if pids.is_empty() {
                continue;
            }
            println!(
                "memory of {connections} idle connections, round {round} of {rounds}, {}",
                contestant.name
            );
            let figures = idle(&ground, &running, &pids, connections)
                .with_context(|| format!("{}\n{}", contestant.name, running.logs()))?;
            let each = figures.with.rss_kib.saturating_sub(figures.before.rss_kib) * 1024
                / u64::from(connections);
            println!("  {each} bytes each");
            let row = rows
                .iter_mut()
                .find(|row| row.contestant == contestant.name);
            match row {
                Some(row) => row.rounds.push(figures),
                None => rows.push(IdleRow {
                    contestant: contestant.name.clone(),
                    connections,
                    rounds: vec![figures],
                }),
            }
        }
    }
    Ok(rows)
}

/// snproxy, and more connections at once.
pub(crate) fn burst(contestants: &[Contestant], pace: &Pace) -> anyhow::Result<Option<BurstRow>> {
    let Some(snproxy) = contestants.iter().find(|one| one.name == SNPROXY) else {
        return Ok(None);
    };
    let mut row = BurstRow {
        connections: affordable(BURST),
        rounds: Vec::new(),
    };
    let rounds = pace.rounds;
    for round in 1..=rounds {
        pace.go_on()?;
        println!(
            "memory after a burst of {} connections, round {round} of {rounds}",
            row.connections
        );
        let ground = Ground::new(Topology::OneHost, "burst");
        let running = snproxy.start(&ground);
        let pids = running.pids();
        let memory = || Memory::of(&pids);
        settle();
        let before = memory();
        let open = Open::new(&ground, running.to, row.connections)?;
        let top = memory();
        drop(open);
        let most = before.rss_kib + top.rss_kib.saturating_sub(before.rss_kib) / 20;
        wait_for_return(&pids, most, RETURN);
        let after = memory();
        println!(
            "  {} KiB, {} KiB with all of them, {} KiB after",
            before.rss_kib, top.rss_kib, after.rss_kib
        );
        row.rounds.push(BurstRound { before, top, after });
    }
    Ok(Some(row))
}

fn idle(
    ground: &Ground,
    running: &Running,
    pids: &[u32],
    connections: u32,
) -> anyhow::Result<IdleRound> {
    let memory = || Memory::of(pids);
    settle();
    let before = memory();
    let open = Open::new(ground, running.to, connections)?;
    settle();
    let with = memory();
    drop(open);
    settle();
    let after = memory();
    Ok(IdleRound {
        before,
        with,
        after,
    })
}

impl Memory {
    fn of(pids: &[u32]) -> Self {
        Self {
            rss_kib: resident(pids),
            slab_kib: slab(),
        }
    }
}

/// Both ends of connections that have exchanged their bytes and idle now.
struct Open {
    #[expect(dead_code, reason = "held open")]
    ends: Vec<[TcpStream; 2]>,
}

impl Open {
    /// Clients and pod are this process: one connection after the other, each tried before the next.
    fn new(ground: &Ground, to: SocketAddr, connections: u32) -> anyhow::Result<Self> {
        let all = || -> anyhow::Result<Vec<_>> {
            let pod = Socket::from(TcpListener::bind(ground.pod_address())?);
            pod.set_read_timeout(Some(PATIENCE))?;
            (0..connections)
                .map(|number| exchange(&pod, to, number))
                .collect()
        };
        let ends = ground.first().namespace.run(all)?;
        Ok(Self { ends })
    }
}

/// One connection: bytes there and back, each compared.
fn exchange(pod: &Socket, to: SocketAddr, number: u32) -> anyhow::Result<[TcpStream; 2]> {
    let opened = || {
        let mut client = TcpStream::connect_timeout(&to, PATIENCE)?;
        client.set_read_timeout(Some(PATIENCE))?;
        let mut sent = [0x5A; EXCHANGED];
        sent[..4].copy_from_slice(&number.to_le_bytes());
        client.write_all(&sent)?;
        let mut accepted = TcpStream::from(pod.accept()?.0);
        accepted.set_read_timeout(Some(PATIENCE))?;
        let mut bytes = [0; EXCHANGED];
        accepted.read_exact(&mut bytes)?;
        ensure!(bytes == sent, "other bytes than were sent to the pod");
        sent.reverse();
        accepted.write_all(&sent)?;
        client.read_exact(&mut bytes)?;
        ensure!(bytes == sent, "other bytes than the pod sent");
        Ok([client, accepted])
    };
    opened().with_context(|| format!("connection {number}"))
}

/// As many connections as there are descriptors for, here and in the proxy: two each.
fn affordable(wanted: u32) -> u32 {
    let limit = raise_descriptor_limit();
    let most = limit.map_or(u64::MAX, |limit| {
        limit.saturating_sub(OTHER_DESCRIPTORS) / 2
    });
    wanted.min(u32::try_from(most).unwrap_or(u32::MAX))
}
