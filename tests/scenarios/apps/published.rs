//! The config.json that is published with such proxies: five apps, one target that does not exist.

use super::fixture::{Apps, NameServer, SOON, echoes};
use snproxy_tests::{Ending, Net, eventually};
use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

const THOUSANDS: [u16; 5] = [5, 6, 7, 8, 9];

/// The very file that the golden test reads.
fn published() -> String {
    let path = "golden/conf/apps-published/config.json";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).expect("the published file")
}

#[test]
fn the_published_file_works_as_it_is() {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let names = NameServer::start(echo, &[("tcp-echo.fly.dev", echo.v4())]);
    let targets = THOUSANDS.map(|thousand| [thousand * 1000 + 1, thousand * 1000 + 2]);
    let _echoes = echoes(echo, targets.as_flattened());
    proxy.replace("config.json", &published());
    for how in ["ebpf", "listeners"] {
        let apps = Apps::start(proxy, &names, &["--steering", how, "--set", "BALANCE rr"]);
        let log = apps.log();
        assert!(log.contains("serving :: by"), "{log}");
        assert!(
            log.contains("`bad.target.for.testing` does not resolve: no such name"),
            "{log}"
        );
        assert!(!log.contains("already set"), "{log}");
        assert_eq!(apps.status()["steering"], how);
        for (thousand, targets) in THOUSANDS.into_iter().zip(targets) {
            for port in [1, 200, 300, 400].map(|port| thousand * 1000 + port) {
                let greetings = [(), ()].map(|()| {
                    let conn = proxy.open(port);
                    let greeting = conn.greeting();
                    conn.send(b"over there and back\n");
                    assert_eq!(conn.line(), "over there and back");
                    greeting
                });
                let both: BTreeSet<_> = greetings.into();
                let expected = targets.map(|target| format!("echo {target}"));
                assert_eq!(both, expected.into(), "round robin at {port}");
            }
        }
        let over_ipv6 = net.client().open((proxy.v6(), 5001)).greeting();
        assert!(over_ipv6.starts_with("echo 500"), "{over_ipv6}");
        assert!(proxy.is_refused(5100));
        let told = |words: &[&str]| String::from_utf8(apps.run(words).stdout).expect("text");
        let ports = told(&["ports"]);
        assert!(ports.contains("app (six-thousand)"), "{ports}");
        let routes = told(&["routes"]);
        assert!(
            routes.contains("bad.target.for.testing:6003 (no address)"),
            "{routes}"
        );
        assert!(
            routes.contains("tcp-echo.fly.dev:9002 (10.77.0.2:9002 up"),
            "{routes}"
        );
        let checked = told(&["check"]);
        assert!(
            checked.contains("fine: 0 mappings, 5 apps, 20 cluster ports"),
            "{checked}"
        );
    }
}

#[test]
fn an_edit_under_load_harms_no_connection_and_counts_at_once() {
    for how in ["ebpf", "listeners"] {
        edit_under_load(how);
    }
}

fn edit_under_load(how: &str) {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let names = NameServer::start(echo, &[("tcp-echo.fly.dev", echo.v4())]);
    let _echoes = echoes(echo, &[5001, 5002, 6001, 7001]);
    proxy.replace("config.json", &published());
    let apps = Apps::start(proxy, &names, &["--steering", how]);

    // A real `nc`, which goes on through all of it.
    let mut nc = Command::new("nc");
    nc.args(["-N", "10.77.0.1", "5400"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut nc = net.client().namespace().spawn(&mut nc).expect("start nc");
    let mut typed = nc.stdin.take().expect("stdin of nc");
    let mut shown = BufReader::new(nc.stdout.take().expect("stdout of nc")).lines();
    let mut line = || shown.next().expect("a line").expect("text");
    assert!(line().starts_with("echo 500"));
    let mut says = |text: &str| {
        writeln!(typed, "{text}").expect("type");
        assert_eq!(line(), text);
    };
    says("before");

    let over = AtomicBool::new(false);
    let load = |port: u16| {
        let mut served = 0;
        while !over.load(Relaxed) {
            let conn = proxy.open(port);
            assert!(conn.greeting().starts_with("echo "), "connection {served}");
            served += 1;
        }
        served
    };
    let served: u32 = thread::scope(|scope| {
        let ending = Ending(&over);
        let loads = [5001, 6001].map(|port| scope.spawn(move || load(port)));
        for round in 0..5 {
            // The port of the open connection goes, another comes, and an app too.
            let text = published()
                .replace("        5400\n", &format!("        {}\n", 5500 + round))
                .replace("seven-thousand", &format!("seven-{round}"));
            let before = apps.generation();
            proxy.replace("config.json", &text);
            let new = 5500 + round;
            let took = eventually(SOON, "the new port works", || !proxy.is_refused(new));
            eprintln!("{how}: the new port answers {took:.1?} after the file was replaced");
            assert!(proxy.open(new).greeting().starts_with("echo 500"));
            // Both belong to one set of files.
            eventually(SOON, "the new set is in force", || {
                apps.generation() > before
            });
            let removed = if round == 0 { 5400 } else { new - 1 };
            assert!(proxy.is_refused(removed), "{removed} is refused at once");
            says(&format!("round {round}"));
        }
        drop(ending);
        loads
            .map(|load| load.join().expect("no connection failed"))
            .iter()
            .sum()
    });
    eprintln!("{how}: {served} connections in five edits, none failed");
    assert!(served > 0);
    says("after");
    drop(typed);
    nc.wait().expect("nc ends");
}
