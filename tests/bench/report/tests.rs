use super::*;
use crate::results::{
    Against, Better, BurstRound, BurstRow, Case, Contestant, FloodRound, FloodRow, FloodTable,
    Goal, IdleRound, IdleRow, Machine, Memory, Of, PortsRound, PortsRow, Round, TlsTable, Versions,
};

/// Two rounds of a case: of direct, snproxy and the rest, in Gbit/s.
fn case(topology: Topology, goal: f64) -> Case {
    let contestant = |(name, value): (&str, f64)| {
        let round = |factor: f64| Round {
            value: value * factor,
            proxy_cpu_us_per_op: (name != "direct").then_some(500_000.0),
            machine_cpu_us_per_op: 900_000.0,
            p50_us: None,
            p99_us: None,
            resumed: None,
        };
        Contestant {
            name: name.to_owned(),
            rounds: vec![round(1.0), round(1.0 / 2.0)],
        }
    };
    let values = [
        ("direct", 40.0),
        ("haproxy", 10.0),
        ("haproxy-splice", 16.0),
        ("nginx", 24.0),
        ("snproxy", 20.0),
    ];
    Case {
        name: "up".to_owned(),
        title: "stream up, 1 connection".to_owned(),
        topology,
        unit: "Gbit/s".to_owned(),
        better: Better::More,
        operation: "GB".to_owned(),
        goals: vec![Goal {
            against: Against::Haproxy,
            ratio: goal,
            of: Of::Value,
        }],
        contestants: values.map(contestant).into(),
    }
}

fn results() -> Results {
    let ports = PortsRow {
        contestant: "snproxy".to_owned(),
        ports: 61_000,
        rounds: vec![PortsRound {
            ready_ms: 80.0,
            said_ready_ms: Some(70.0),
            rss_kib: 13 << 10,
            rss_changed_kib: 14 << 10,
            kernel_kib: 1 << 10,
            change_ms: 250.0,
        }],
        refused: None,
    };
    let refused = PortsRow {
        contestant: "haproxy".to_owned(),
        rounds: Vec::new(),
        refused: Some("too many".to_owned()),
        ..ports.clone()
    };
    let memory = |rss_kib| Memory {
        rss_kib,
        slab_kib: 0,
    };
    Results {
        date: "2026-11-21T12:00:00Z".to_owned(),
        machine: Machine {
            kernel: "6.18".to_owned(),
            cpu: "CPU".to_owned(),
            cpus: 2,
            memory_mib: 1024,
            congestion_control: "cubic".to_owned(),
            sysctls: [("net.ipv4.x".to_owned(), "1".to_owned())].into(),
        },
        versions: Versions {
            snproxy: "1".to_owned(),
            haproxy: "2".to_owned(),
            nginx: "3".to_owned(),
        },
        quick: false,
        cases: vec![case(Topology::OneHost, 1.2), case(Topology::TwoHosts, 2.0)],
        ports: vec![ports, refused],
        idle: vec![IdleRow {
            contestant: "snproxy".to_owned(),
            connections: 1024,
            rounds: vec![IdleRound {
                before: memory(5 << 10),
                with: memory(7 << 10),
                after: memory(5 << 10),
            }],
        }],
        burst: Some(BurstRow {
            connections: 9000,
            rounds: vec![BurstRound {
                before: memory(5 << 10),
                top: memory(25 << 10),
                after: memory(15 << 10),
            }],
        }),
        flood: Some(FloodTable {
            date: "2026-11-21T13:00:00Z".to_owned(),
            others: 0.04,
            rows: vec![flood("haproxy", 80.0), flood("snproxy", 60.0)],
        }),
        tls: Some(TlsTable {
            date: "2026-11-21T14:00:00Z".to_owned(),
            others: 0.05,
            ends: vec![resumed()],
            pairs: Vec::new(),
            ambassadors: Vec::new(),
        }),
    }
}

/// Of connections that took up sessions again, one less in a hundred with each contestant; nobody is direct.
fn resumed() -> Case {
    let mut case = case(Topology::OneHost, 1.0);
    case.title = "TLS 1.3: connections, resumed".to_owned();
    case.contestants.remove(0);
    let mut share = 1.0;
    for one in &mut case.contestants {
        for round in &mut one.rounds {
            round.resumed = Some(share);
        }
        share -= 0.01;
    }
    case
}

/// One round with these times; the answers take far longer than the connects.
fn flood(name: &str, micros: f64) -> FloodRow {
    FloodRow {
        contestant: name.to_owned(),
        rounds: vec![FloodRound {
            connect_p50_us: micros,
            connect_p99_us: 2.0 * micros,
            answer_p50_us: 10_000.0 - 100.0 * micros,
            answer_p99_us: 20_000.0,
            answered: 800,
            failed: 0,
            quiet_answer_p50_us: 150.0,
            quiet_answer_p99_us: 300.0,
            flood_per_second: 5000.0,
            flood_failed: 7,
        }],
    }
}

/// Lines of the page in which all of these stand.
#[track_caller]
fn stands(words: &[&str]) {
    let page = page(&results(), "benchmarks");
    let found = page
        .lines()
        .any(|line| words.iter().all(|word| line.contains(word)));
    assert!(found, "no line with {words:?} in\n{page}");
}

#[test]
fn goals_say_whether_they_are_reached() {
    stands(&[
        "one host",
        "≥ 1.20 × HAProxy's best",
        "1.25 [1.25–1.25]",
        "| yes",
    ]);
    stands(&[
        "two hosts",
        "≥ 2.00 × HAProxy's best",
        "1.25 [1.25–1.25]",
        "**no**",
    ]);
    stands(&["61,000 ports: memory", "≤ 16.0 MiB", "14.0", "| yes"]);
    stands(&[
        "61,000 ports: a changed mapping works",
        "≤ 200 ms",
        "250",
        "**no**",
    ]);
    stands(&["idle connection", "≤ 2,560 bytes", "2,048", "| yes"]);
    stands(&["burst of 9,000", "≥ 0.90", "0.50", "**no**"]);
    stands(&["flooded: connect, median", "0.75 [0.75–0.75]", "| yes"]);
    stands(&["flooded: answer, median", "2.00 [2.00–2.00]", "**no**"]);
    stands(&["7 of 11 reached"]);
}

#[test]
fn a_lost_case_is_said_to_be_lost() {
    stands(&["stream up, 1 connection, one host: 0.83 of nginx"]);
    let mut results = results();
    results.cases[0].contestants[4].rounds[0].value = 8.0;
    results.cases[0].contestants[4].rounds[1].value = 4.0;
    let page = page(&results, "benchmarks");
    assert!(page.contains("**no: loses**"), "{page}");
}

#[test]
fn figures_stand_in_the_tables() {
    stands(&["**snproxy**", "15.0", "10.0", "20.0", "0.50 [0.50–0.50]"]);
    stands(&["61,000", "haproxy", "refused: `too many`"]);
    stands(&["net.ipv4.x = 1"]);
    stands(&["**snproxy**", "60.0 [60.0–60.0]", "5,000", "| 0 "]);
    stands(&["Measured 2026-11-21T13:00:00Z", "used 4.00 % of"]);
    stands(&["Measured 2026-11-21T14:00:00Z", "2 rounds"]);
    stands(&["Resumed: haproxy 100 %,", "snproxy 97 %."]);
    // To the better HAProxy and to nginx; of CPU they have the same.
    stands(&[
        "| TLS 1.3: connections, resumed ",
        "| 1.25 [1.25–1.25] ",
        "| 0.83 [0.83–0.83] ",
        "| 1.00 [1.00–1.00] ",
    ]);
    stands(&["| TLS 1.3: connections, resumed ", "of haproxy "]);
}

#[test]
fn plots_name_what_they_show() {
    let plots = plots(&results()).expect("plots");
    let names: Vec<_> = plots.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["one-host", "two-hosts", "ports"]);
    for word in ["stream up, 1 connection", "haproxy-splice", "0.50", "nginx"] {
        assert!(plots[0].1.contains(word), "{word}");
    }
    for word in ["61,000", "haproxy refuses 61,000 ports"] {
        assert!(plots[2].1.contains(word), "{word}");
    }
}

#[test]
fn the_page_lies_beside_the_results() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("figures.json");
    fs::write(&json, "{}").expect("results");
    write(&results(), &json).expect("a report");
    let page = fs::read_to_string(folder.path().join("figures.md")).expect("the page");
    for line in page.lines().filter(|line| line.starts_with("![")) {
        let (_, file) = line.trim_end_matches(')').rsplit_once('(').expect("a link");
        assert!(folder.path().join(file).is_file(), "{file}");
    }
}
