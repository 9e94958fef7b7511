//! What stands between the tables.

pub(super) const HEAD: &str = "\
# Probing alone, or the directory: on paper and simulated

How do hosts learn who serves a port? Without `ETCD` each asks all others about the ports that its own clients open (*probing*). With it each
writes what it serves into etcd, which tells all of them of each change (*the directory*). This page says what either costs, and from where on
it makes no sense any more. `cargo xtask simulate` writes it and its plot; `cargo xtask simulate --check` fails where they are not
what the code gives, and so does a unit test.

## In short
";

pub(super) const BOTH: &str = "\
*Messages* are packets in both directions, acknowledgements included; bytes are those of IP. *Processor* is the time that a host's snproxy takes
for it, kernel included, as a part of one processor. Probing counts both roles: a host is asked as often as it asks.
";

pub(super) const PROBING: &str = "\
A port in use is asked about at *every* other host, once in about two seconds (at hosts that serve it, in three). So what a host pays goes
with (hosts − 1) × ports in use, whatever the number of its connections; it does not depend on how many ports the cluster has, nor on
how often pods change. Up to 256 connections stay open for questions; with more hosts than that most questions to the others have a
connection of their own, which costs over three times as much. A host remembers 262,144 answers. Where ports in use × other hosts are more (*over*), those
that were not used for longest are forgotten, asked for again, and waited for.

One connection a second to each port in use. The column *simulated* is empty where only the paper was asked: above 60,000 questions a
second, or for more hosts than a test has time for. One connection is all that it takes to have every host asked: **a scan of 60,000 ports at one host
of 1,000 is 60 million questions**.
";

pub(super) const DEMAND: &str = "\
The same 60 connections a second over few ports or many, then 600; 100 hosts. A connection *waits* where nothing is known of its
port any more: the client is connected, and waits for the first host that says yes.
";

pub(super) const MOVING: &str = "\
Pods that move to another host while their port is in use (30 hosts, 60 ports, one connection a second to each). Some connections are
carried to the old host first, which says no: their clients wait a round trip longer.
";

pub(super) const DIRECTORY: &str = "\
Each host holds a lease (TTL 10 s, a keep-alive each 3 s) and watches the prefix; a pod that comes or goes rewrites the key of its block of
1,024 ports. 60,000 ports, pods at random hosts, three members of etcd with four processors each. What a host pays in messages goes with the changes
alone (its processor time is that of one among 1,000); what etcd pays goes with changes × hosts, for each member tells every change to a third of the hosts. A host takes over what came ten times a second at most. *Known* is the time from a change until
a host, or the last host, has it, in ms; empty where the members cannot keep up.
";

pub(super) const STARTS: &str = "\
What a host reads when it starts, or after more changes than etcd keeps; 1,000 hosts. *All at once* is all of them starting together, and how
long the members are busy with nothing else then. Each change is a revision that etcd keeps until it compacts: 20 a second are 1.7 million a day, so its
members want `--auto-compaction-retention`, which is off by default.
";

pub(super) const BLOCKS: &str = "\
How many ports a key is to cover: with more of them fewer keys are read at the start, with fewer of them less is written for a change. 1,000 hosts, 60,000
ports, pods at random hosts, which is the worst case for small blocks; 20 changes a second.
";

pub(super) const PAPER: &str = "\
## Paper and simulation

On paper, with N hosts, U ports in use per host, λ connections a second to each, S other hosts that serve a port, C changes a second, a round
trip r of 0.25 ms:

- Time from an answer that is old enough to the next look: L = (g² + 1/λ²) / 2g, where g = 0.1 s + 1/λ is the mean time between two looks.
- Questions of a host a second: Q = U × ((N − 1 − S) / (1 s + r + L) + S / (2 s + r + L)), of three packets each.
- Connections made for them a second: (N − 1 − 256) × q / (1 + 2rq) with q = Q / (N − 1), the questions to one host; seven packets more each.
- Part of the connections that wait: e^(−30 s × λ), as long as all answers are remembered.
- Memory: 8 bytes for each of 65,536 ports, 100 for each port in use, 24 for each answer, of which there are at most 262,144. With the directory: 8 for each of 65,536 ports, 1,000 for each host,
  130 for each of its keys, 8 for each port that it serves: of 1,000 hosts with 52,157 keys 9.0 MiB were measured.
- Keys of a host: 1 + B (1 − e^(−s/B)) with B blocks, of which one has b ports, and s ports that the host serves. An event: 375 bytes and 4/3 of the value, which is
  2 bytes and 8 for each port of the block (less where adjacent ports are served alike).
- Changes within 0.1 s of the last one that a host took over wait for the end of that time: (0.1 s)² C / 2(C × 0.1 s + e^(−C × 0.1 s)) in the mean. A host takes over
  1 / (0.1 s + e^(−C × 0.1 s) / C) times a second.
- A member works T = N/3 × 80 µs + 1.4 ms for each change, over the processors that keep-alives leave it (N/3 s × 2.0 ms / 3 are gone). With ρ = C × T the last host knows after
  commit + r + T + ρT / 2(1 − ρ) (M/D/1) and that wait in the mean.

The simulation of probing follows one host event by event. What is remembered, who is asked when, and where a connection goes, is snproxy's own
code (`route/peers`, `route/search`) on a simulated clock: a rule that changes there changes this page, and the paper has to follow. Simulated
are the connections for questions by the rules and limits of `flow/questions.rs`, the answers of the other hosts, and the network. The host has no
pod of the ports that its clients use. The simulation of the directory places every pod, makes the blocks, and has the members tell one change after the other; its values are written by snproxy's own code.
";

pub(super) const MEASURED: &str = "\
## What was measured

On a machine with two processors (Intel Xeon, Linux 6.18), 2026-11-21, in network namespaces; packets counted by a packet socket, time taken from
`schedstat` and `stat` of the process.

- Questions: a release build of snproxy whose hosts.conf names 200 (600) hosts at the other end of a veth pair, all of them one program that answers; clients
  open two ports that nobody serves, each once a second. Seen: 3.00 packets and 199 bytes for a question over a connection that stays, 10.0 packets and 579 bytes for one with a connection of
  its own, as the formulas say. Answering: the same lines sent to a release build, 1,000 a second, and 300 a second with a connection each. Under more load a question costs less: 13 µs at
  2,500 a second, 2.3 µs where 32 come in one segment.
- etcd 3.4.23 of Debian by its JSON gateway (HTTP/1.1): 200 puts each of values of 0 to 1,000 bytes at a key of 40 bytes, and one watcher; 200 keep-alives; a range of 2,000 keys. Time of an
  event: 200 puts at 20 a second and 50 or 200 watchers took 121 and 82 µs for each event and watcher, 69 µs at full speed. A put and a keep-alive: three members on the machine, which took 4.2 and 2.0 ms together
  beyond what they take when idle; between them a put is 1,600 bytes.
- What a host takes that follows the directory: a *debug* build of snproxy, with 1,000 hosts and 60,000 ports in the directory (52,157 keys), took 0.8 ms to read an event and 5.4 ms each time that it took over what came, at 1 to 24
  changes a second. An optimised build is taken to need 100 µs and 1 ms: an estimate. So is the round trip.
";
