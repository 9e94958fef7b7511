mod cluster;
mod hostile;
mod refused;
mod report;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::diag::{Diagnostic, Source};

use report::report;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/conf");

const RESOLVE: fn(&str) -> io::Result<Vec<IpAddr>> = |name| match name {
    "localhost" => Ok(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()]),
    "a.example" => Ok(vec!["10.0.0.1".parse().unwrap()]),
    "b.example" => {
        let addrs = ["2001:db8::2", "10.0.0.2", "::ffff:10.0.0.3", "10.0.0.2"];
        Ok(addrs.map(|ip| ip.parse().unwrap()).into())
    }
    "six.example" => Ok(vec!["2001:db8::6".parse().unwrap()]),
    "empty.example" => Ok(Vec::new()),
    _ => Err(io::Error::other("no such name")),
};

const IS_LOCAL: fn(IpAddr) -> bool = |ip| ip.to_string() == "10.0.0.1";

/// What etcd knows of services.
const DISCOVERED: fn(&Etcd, &[&str]) -> Vec<Nodes> = |_, keys| {
    let node = |text: &str| text.parse::<SocketAddr>().unwrap();
    let nodes = |key: &&str| match *key {
        "/srv/known" => Ok([node("10.0.0.7:6379"), node("[fd00::7]:6379")].into()),
        "/srv/back" => Ok([node("10.0.0.1:5001"), node("0.0.0.0:1")].into()),
        "/srv/empty" => Ok([].into()),
        _ => Err("http://etcd:2379: no answer".to_owned()),
    };
    keys.iter().map(nodes).collect()
};

/// Host 10.0.0.1 with the kernel's default ports.
fn world() -> World<'static> {
    World {
        resolve: &RESOLVE,
        resolve_all: &|names, _| names.iter().copied().map(RESOLVE).collect(),
        discovered: &DISCOVERED,
        is_local: &IS_LOCAL,
        ephemeral: Some((32768, 60999)),
        reserved: [32768, 50000, 50001].into_iter().collect(),
        ignore_unknown: false,
        can_bind: None,
    }
}

fn source(path: &str, bytes: impl Into<Vec<u8>>) -> Source {
    Source::decode(path, bytes.into())
}

fn sources(proxy: &str, mappings: &str, hosts: &str) -> Sources {
    Sources {
        proxy: source("proxy.conf", proxy),
        mappings: Some(source("portmappings.conf", mappings)),
        hosts: Some(source("hosts.conf", hosts)),
        apps: None,
    }
}

fn shorts(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

#[track_caller]
pub(super) fn good(proxy: &str) -> Conf {
    let parsed = parse(&sources(proxy, "", "10.0.0.1:32767\n"), &world());
    assert_eq!(shorts(&parsed.diagnostics), [""; 0]);
    parsed.value.unwrap()
}

#[track_caller]
fn findings(proxy: &str, mappings: &str, hosts: &str) -> Vec<String> {
    shorts(&parse(&sources(proxy, mappings, hosts), &world()).diagnostics)
}

/// The texts of a golden case; what is not there is a missing file.
fn case(folder: &Path) -> Sources {
    let read = |name: &str| Some(source(name, fs::read(folder.join(name)).ok()?));
    Sources {
        proxy: read("proxy.conf").expect("proxy.conf in each case"),
        mappings: read("portmappings.conf"),
        hosts: read("hosts.conf"),
        apps: read("config.json"),
    }
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(ROOT).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

#[test]
fn golden_files_give_the_diagnostics_beside_them() {
    let bless = std::env::var_os("SNPROXY_BLESS").is_some();
    let cases = cases();
    assert!(cases.len() > 10, "{ROOT} holds the cases");
    let mut wrong = Vec::new();
    for folder in cases {
        let report = report(&parse(&case(&folder), &world()));
        let expected = folder.join("expected.txt");
        if bless {
            fs::write(&expected, &report).unwrap();
        } else if fs::read_to_string(&expected).ok().as_ref() != Some(&report) {
            wrong.push(format!("{}:\n{report}", expected.display()));
        }
    }
    let wrong = wrong.join("\n");
    assert!(
        wrong.is_empty(),
        "not as expected (SNPROXY_BLESS=1 takes it as it is):\n{wrong}"
    );
}

#[test]
fn published_forms_load_without_errors() {
    for name in ["published", "odd-forms"] {
        let parsed = parse(&case(&Path::new(ROOT).join(name)), &world());
        assert!(
            !parsed.has_errors(),
            "{name}: {:?}",
            shorts(&parsed.diagnostics)
        );
        assert!(
            parsed.value.is_some_and(|conf| !conf.mappings.is_empty()),
            "{name}"
        );
    }
}

#[test]
fn defaults_are_those_of_the_table() {
    let conf = good("");
    let ports = conf.ports.common();
    assert_eq!((conf.host, conf.port), ("10.0.0.1".parse().unwrap(), 32767));
    assert_eq!(conf.pod_host, conf.host);
    assert_eq!(conf.cluster_ports.len(), 61_744);
    assert_eq!(conf.cluster_ports.to_string(), "1024-29999,32768-65535");
    assert_eq!(
        (conf.steering, conf.conflict),
        (Steering::Auto, Conflict::Yield)
    );
    assert_eq!(ports.balance.policy, Policy::P2c);
    assert_eq!(
        (ports.locality, conf.unmapped),
        (Locality::Balance, Unmapped::Auto)
    );
    assert_eq!(ports.connect_timeout, Duration::from_secs(3));
    assert_eq!(ports.peer_timeout, Duration::from_secs(3));
    assert!(conf.peers.hosts && !conf.peers.any && conf.peers.networks.is_empty());
    assert_eq!(ports.proxy_wait, Duration::from_secs(1));
    assert_eq!(ports.idle_timeout, None);
    assert_eq!(conf.drain_timeout, Duration::from_secs(30));
    assert_eq!(conf.keepalive, Some(Duration::from_mins(1)));
    assert_eq!(ports.client_proxy.mode, ProxyMode::Detect);
    assert!(ports.client_proxy.private && ports.client_proxy.networks.is_empty());
    assert_eq!(conf.admin.socket, AdminSocket::OfPort);
    assert_eq!(
        (conf.log_level, conf.log_format),
        (LogLevel::Info, LogFormat::Text)
    );
    assert_eq!(conf.bpf_log, BpfLog::Off);
    assert_eq!(
        (conf.workers, conf.pump),
        (Workers::PerCpu, Mechanism::Adaptive)
    );
    assert_eq!(conf.files.hosts, Path::new("hosts.conf"));
}

#[test]
fn what_explain_shows_can_be_written_back() {
    let conf = good(
        "HOST localhost\nPODHOST 10.0.0.1\nPORT 32767\nCLUSTERPORTS 5,3,4,10-12\nSTEERING listeners\n\
         WORKERS 7\nPUMP copy\nCONFLICT fail\nBALANCE ordered\nLOCALITY prefer\nUNMAPPED refuse\nPEERTIMEOUT 2s\n\
         PEERS HOSTS fd00::/8,192.0.2.1\nPEERTLS /etc/tls verify=host\nBALANCE 61000-61999 mh port strict\nBALANCE 61005 wlc\nPERSIST 5m /24 /64\n\
         SLOWSTART 30s\nHEALTH tcp/2s fails=3 hold=5s rise=2 fall=3 jitter=0% timeout=500ms send=\"PING \\\"x\\\"\\r\\n\" expect=+PONG\n\
         ONREMOVE drain:30s\nONDOWN reset\nPORTMAXCONN 61000,61002 7\nREOPEN 75%\nEJECTMAX 25%\nMAXCONN 8000\nQUEUE 1000\n\
         QUEUETIMEOUT 10s\nOVERLIMIT close\nSOURCEMAXCONN 100 /24\nSOURCERATE 50/s burst=100 /24 /64\n\
         PORTRATE 1000/s\nFIRSTBYTETIMEOUT 5s\nCLIENTIDLETIMEOUT 6s\nUPSTREAMIDLETIMEOUT 7s\nLINGERTIMEOUT 8s\n\
         MAXLIFETIME 1h 10%\nCONNECTTIMEOUT 1500ms\nPROXYWAIT 10ms\nIDLETIMEOUT 5m\n\
         DRAINTIMEOUT 2h\nKEEPALIVE 0\nCLIENTPROXY require 10.0.0.0/8 private fd00::/8,192.0.2.1\n\
         TARGETNETS any !loopback,!10.0.0.0/8\n\
         ADMIN unix:/run/x.sock\nLOGLEVEL trace\nLOGFORMAT json\nBPFLOG info\n",
    );
    let explained = explain(&conf).into_iter();
    let lines = explained.map(|Explained { key, value, .. }| {
        format!(
            "{key} {value}
"
        )
    });
    let written = lines.collect::<Vec<_>>().concat();
    let again = good(&written);
    assert_eq!(again.ports.common().client_proxy.networks.len(), 3);
    let values = |conf: &Conf| {
        explain(conf)
            .into_iter()
            .map(|key| key.value)
            .collect::<Vec<_>>()
    };
    assert_eq!(values(&conf), values(&again));
    assert_eq!(
        (Conf {
            origins: vec![],
            ..conf
        }),
        Conf {
            origins: vec![],
            ..again
        }
    );
}

#[test]
fn explain_says_where_a_value_comes_from() {
    let conf = good("\n# note\nport 32767\n");
    let port = explain(&conf)
        .into_iter()
        .find(|key| key.key == "PORT")
        .unwrap();
    assert_eq!(
        (port.value.as_str(), port.origin.as_str()),
        ("32767", "proxy.conf:3")
    );
    let line = "PORT 32767  # proxy.conf:3: port for traffic from other proxies; `none`: no other proxy is served";
    assert_eq!(port.to_string(), line);
    let host = explain(&conf)
        .into_iter()
        .find(|key| key.key == "HOST")
        .unwrap();
    assert_eq!(host.origin, "hosts.conf:1");
}

#[test]
fn files_are_beside_proxy_conf_wherever_we_are() {
    let proxy = source(
        "/etc/snproxy/proxy.conf",
        "HOSTSCONF ../hosts\nPORTSCONF \"/run/p q\"\n",
    );
    let files = files(&proxy);
    assert_eq!(files.hosts, Path::new("/etc/snproxy/../hosts"));
    assert_eq!(files.mappings, Path::new("/run/p q"));
}

#[test]
fn readme_has_the_table_of_keys() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = fs::read_to_string(path).expect("README.md");
    let (head, rest) = readme
        .split_once("<!-- keys -->\n")
        .expect("a `<!-- keys -->` line");
    let (table, tail) = rest
        .split_once("<!-- /keys -->")
        .expect("a `<!-- /keys -->` line");
    let expected = markdown_table();
    if table != expected && std::env::var_os("SNPROXY_BLESS").is_some() {
        fs::write(
            path,
            [head, "<!-- keys -->\n", &expected, "<!-- /keys -->", tail].concat(),
        )
        .unwrap();
        return;
    }
    assert_eq!(table, expected, "SNPROXY_BLESS=1 writes it");
}

#[test]
fn a_pod_host_is_a_place_to_dial() {
    let pod_host = |proxy: &str| good(proxy).pod_host.to_string();
    assert_eq!(pod_host("HOST 0.0.0.0"), "127.0.0.1");
    assert_eq!(pod_host("HOST ::"), "127.0.0.1");
    assert_eq!(pod_host("HOST [::]\nPODHOST 0.0.0.0"), "127.0.0.1");
    assert_eq!(pod_host("HOST 0.0.0.0\nPODHOST ::1"), "::1");
    assert_eq!(pod_host("HOST localhost"), "127.0.0.1");
    assert_eq!(pod_host("HOST ::ffff:10.0.0.1"), "10.0.0.1");
    let apart = good("STEERING listeners\nBIND ::ffff:127.0.0.2");
    let four = IpAddr::from([127, 0, 0, 2]);
    assert_eq!(apart.of_port(1024).bind, Some(four));
}

#[test]
fn a_mapping_that_would_come_back_is_refused_where_it_stands() {
    let errors = |proxy: &str, mappings: &str| {
        let found = findings(proxy, mappings, "10.0.0.1:32767\n");
        found
            .iter()
            .filter(|line| line.contains(" error: "))
            .count()
    };
    // HOST is PODHOST.
    assert_eq!(errors("", "2000:32767:1:false"), 1);
    assert_eq!(errors("", "2000:2001:1:false 2001:30000:1:false"), 1);
    assert_eq!(errors("", "2000:2000:1:false"), 1);
    // Host ports among the cluster ports are fine while nothing here is mapped to them.
    assert_eq!(errors("", "2000:2001:1:false"), 0);
    // A cluster port that is not steered does not come back.
    assert_eq!(errors("CLUSTERPORTS 3000", "2000:2000:1:false"), 0);
    // Another address than the served one.
    assert_eq!(
        errors("PODHOST 127.0.0.1", "2000:2000:1:false 2001:32767:1:false"),
        0
    );
    assert_eq!(errors("HOST 0.0.0.0", "2000:2000:1:false"), 1);
    assert_eq!(
        errors("HOST 0.0.0.0\nPODHOST 10.0.0.1", "2000:32767:1:false"),
        1
    );
    assert_eq!(
        errors("HOST 0.0.0.0\nPODHOST 192.0.2.7", "2000:32767:1:false"),
        0
    );
    assert_eq!(errors("HOST 0.0.0.0\nPODHOST ::1", "2000:2000:1:false"), 0);
    assert_eq!(errors("HOST ::\nPODHOST ::1", "2000:2000:1:false"), 1);
}

#[test]
fn limits_are_findings() {
    let has = |found: Vec<String>, part: &str| {
        assert!(
            found.iter().any(|line| line.contains(part)),
            "{part}: {found:.3?}"
        );
    };
    let hosts = "10.0.0.1:32767\n";
    has(
        findings(&"#\n".repeat(40_000), "", hosts),
        "proxy.conf: error: file is larger",
    );
    has(
        findings(&format!("PORT {}", "1".repeat(5000)), "", hosts),
        "proxy.conf:1:1: error: line is longer",
    );
    has(
        findings("", &"#\n".repeat(5_000_000), hosts),
        "portmappings.conf: error: file is larger",
    );
    has(
        findings("", "", &"#\n".repeat(600_000)),
        "hosts.conf: error: file is larger",
    );
    has(
        findings("", "", &"a".repeat(5000)),
        "hosts.conf:1:1: error: line is longer",
    );
    let many = (1..=5000)
        .map(|port| format!("10.0.0.1:{port}\n"))
        .collect::<Vec<_>>()
        .concat();
    has(
        findings("", "", &many),
        "hosts.conf:4097:1: error: more than 4096 hosts",
    );
    let networks = "10.0.0.0/8 ".repeat(257);
    has(
        findings(&format!("CLIENTPROXY detect {networks}"), "", hosts),
        "error: more than 256 networks",
    );
    has(
        findings(&format!("PEERS hosts {networks}"), "", hosts),
        "error: more than 256 networks",
    );
    has(
        findings(&format!("ADMIN unix:/{}", "a".repeat(107)), "", hosts),
        "longer than 107 bytes",
    );
}

#[test]
fn limits_of_apps_are_findings() {
    let found = |apps: String| {
        let sources = Sources {
            apps: Some(source("config.json", apps)),
            ..sources("", "", "10.0.0.1:32767\n")
        };
        let started = std::time::Instant::now();
        let parsed = parse(&sources, &world());
        println!("read in {} ms", started.elapsed().as_millis());
        shorts(&parsed.diagnostics)
    };
    let has = |found: Vec<String>, part: &str| {
        let is_there = found.iter().any(|line| line.contains(part));
        assert!(is_there, "{part}: {found:.3?}");
    };
    let join = |items: Vec<String>| items.join(",");
    let app = |name: usize, ports: &str, targets: &str| {
        format!(r#"{{"Name":"{name}","Ports":[{ports}],"Targets":[{targets}]}}"#)
    };
    let file = |apps: Vec<String>| format!(r#"{{"Apps":[{}]}}"#, join(apps));
    has(
        found(" ".repeat(apps::MAX_FILE + 1)),
        "config.json: error: file is larger",
    );
    let one = |name| app(name, &(1000 + name).to_string(), "\"10.0.0.7:1\"");
    assert_eq!(found(file((0..apps::MAX_APPS).map(one).collect())), [""; 0]);
    has(
        found(file((0..=apps::MAX_APPS).map(one).collect())),
        "config.json:1:9: error: 1025 apps are more than 1024",
    );
    let targets = |count: usize| {
        join(
            (1..=count)
                .map(|port| format!(r#""10.0.0.7:{port}""#))
                .collect(),
        )
    };
    has(
        found(file(vec![app(1, "1", &targets(apps::MAX_TARGETS + 1))])),
        "error: 1025 targets are more than 1024",
    );
    let full = |name: usize| app(name, &(name + 1).to_string(), &targets(apps::MAX_TARGETS));
    assert_eq!(found(file((0..4).map(full).collect())), [""; 0]);
    has(
        found(file((0..5).map(full).collect())),
        "error: more than 4096 targets",
    );
    let ports = vec!["1".to_owned(); apps::MAX_PORT_ITEMS + 1];
    has(
        found(file(vec![app(1, &join(ports), "\"10.0.0.7:1\"")])),
        "error: 65536 ports are more than 65535",
    );
    has(
        found(file(vec![
            app(1, "1", "\"10.0.0.7:1\"").replace("\"1\"", &format!("\"{}\"", "a".repeat(256))),
        ])),
        "error: expected a name of 1 to 255 printable bytes",
    );
    // Every port there is, one by one and in one line.
    let all = join(
        (1..=65_535)
            .filter(|port| *port != 32_767)
            .map(|port: u32| port.to_string())
            .collect(),
    );
    let all = found(file(vec![app(1, &all, "\"10.0.0.7:1\"")]));
    assert_eq!(all.len(), 1, "ports of the kernel's range: {all:.3?}");
    // Deeper than any parser's stack.
    let deep = found(format!("{{\"Apps\":{}", "[".repeat(1_000_000)));
    has(deep, "error: no JSON: EOF while parsing a list");
}

#[test]
fn more_mappings_than_the_limit_are_refused() {
    let mut text = String::new();
    for cluster in 1..=5 {
        for host in 1..=65535 {
            writeln!(text, "{cluster}:{host}:1:v1").unwrap();
        }
    }
    let parsed = parse(&sources("", &text, "10.0.0.1:32767"), &world());
    let found = shorts(&parsed.diagnostics);
    assert!(
        found
            .iter()
            .any(|line| line.contains("error: more than 262144 mappings")),
        "{found:.3?}"
    );
    assert_eq!(parsed.value.unwrap().mappings.len(), MAX_ITEMS);
}

#[test]
fn an_error_behind_many_warnings_is_still_seen() {
    let text = "1:30000:1:v1 \n".to_owned()
        + &(2..900)
            .map(|port| format!("{port}:30000:1:v1\n"))
            .collect::<Vec<_>>()
            .concat()
        + "x";
    let parsed = parse(&sources("", &text, "10.0.0.1:32767"), &world());
    assert!(parsed.has_errors());
    let found = shorts(&parsed.diagnostics);
    assert_eq!(found.len(), 102);
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("portmappings.conf:900:1: error: "))
    );
    assert_eq!(
        found.last().unwrap(),
        "portmappings.conf: warning: … and 799 more of this kind"
    );
}

#[test]
fn a_full_cluster_is_read_in_one_go_and_from_one_line() {
    let items = |end: &str| {
        let ports = (1024..=29999).chain(32768..=65535);
        ports
            .map(|port| format!("{port}:30000:100:false{end}"))
            .collect::<Vec<_>>()
            .concat()
    };
    for text in [items("\n"), items(" ")] {
        let parsed = parse(
            &sources("STEERING listeners", &text, "10.0.0.1:32767"),
            &world(),
        );
        assert_eq!(shorts(&parsed.diagnostics), [""; 0]);
        let mappings = parsed.value.unwrap().mappings;
        assert_eq!(mappings.len(), 61_744);
        assert!(mappings.capacity() * size_of::<Mapping>() <= 1_250_000);
    }
}

#[test]
fn the_line_for_fewer_ports_wins_whichever_comes_first() {
    let conf = good(
        "BALANCE 61005 wlc\nBALANCE 61000-61999 rr\nBALANCE lc\nQUEUE 61000-61999 5 # five\nQUEUE 61005,61006 6\n\
         BALANCE 61006-61007 sed\nBALANCE 61007,61008 nq\n",
    );
    let of = |port| (conf.of_port(port).balance.policy, conf.of_port(port).queue);
    assert_eq!(of(60_999), (Policy::Lc, 0));
    assert_eq!(of(61_000), (Policy::Rr, 5));
    assert_eq!(of(61_005), (Policy::Wlc, 6));
    assert_eq!(of(61_006), (Policy::Sed, 6));
    assert_eq!(of(61_007), (Policy::Nq, 5));
    // A key of the process is for no ports: this is a value.
    let found = findings("MAXCONN 61000 5", "", "10.0.0.1:32767\n");
    assert!(found[0].contains("expected auto or a number"), "{found:?}");
}
