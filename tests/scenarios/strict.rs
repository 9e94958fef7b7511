//! Unknown words in files and options: errors, unless the operator asks for warnings.

use snproxy_tests::{Host, Net, Pod, Process, eventually};
use std::{process::Output, time::Duration};

const SOON: Duration = Duration::from_secs(20);

fn one_pod(net: &Net) -> (&Host, Pod) {
    let host = net.host("host");
    let pod = host.pod(30000, Pod::answering_once("a"));
    host.mappings("1024:30000:9:false\n");
    (host, pod)
}

/// Runs snproxy with these words and nothing else, in the folder of its files.
fn run(host: &Host, words: &[&str]) -> Output {
    host.namespace()
        .output(host.command().args(words).current_dir(host.folder()))
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for part in parts {
        assert!(told.contains(part), "no `{part}` in:\n{told}");
    }
}

#[test]
fn unknown_key_keeps_a_port_from_being_served_in_plain() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    for (key, value, hint) in [
        (
            "CLIENT_TLS",
            "1024 certs",
            "unknown key `CLIENT_TLS`: did you mean `CLIENTTLS`?",
        ),
        ("ALLOW", "10.0.0.0/8", "unknown key `ALLOW`"),
        (
            "BALANCE",
            "leastconn",
            "found `leastconn`: did you mean `lc`?",
        ),
        ("BALANCE", "round_robin", "did you mean `rr`?"),
        ("HEALTH", "tcp/5s timeot=1s", "did you mean `timeout=`?"),
        (
            "CLIENTTLS",
            "1024 certs verfy=none",
            "did you mean `verify=`?",
        ),
    ] {
        host.conf(key, value);
        assert_refused(&host.run(&["check"]), 2, &[hint]);
        assert_refused(&host.run(&[]), 2, &[hint]);
        host.without(key);
    }
    assert_refused(&host.run(&["check"]), 0, &[]);
}

#[test]
fn unknown_field_or_setting_refuses_an_apps_file() {
    let net = Net::one();
    let host = net.host("host");
    let app = |more: &str| {
        format!(r#"{{"Apps":[{{"Name":"a","Ports":[1024],"Targets":["127.0.0.1:30000"]{more}}}]}}"#)
    };
    for (more, hint) in [
        (
            r#","Allow":["10.0.0.0/8"]"#,
            "unknown field `Allow` of an app",
        ),
        (r#","Enabled":false"#, "unknown field `Enabled` of an app"),
        (r#","Protocol":"udp""#, "unknown field `Protocol` of an app"),
        (r#","Balance":"source""#, "did you mean `sh`?"),
    ] {
        host.replace("config.json", &app(more));
        assert_refused(&run(host, &["check", "config.json"]), 2, &[hint]);
        assert_refused(&run(host, &["apps"]), 2, &[hint]);
    }
    host.replace("config.json", &app(""));
    let set = ["apps", "--set", "CLIENT_TLS certs"];
    assert_refused(&run(host, &set), 2, &["did you mean `CLIENTTLS`?"]);
    for (words, code, hint) in [
        ("--set BALANC=rr", 1, "BALANC=rr"),
        ("--loglevel verbos", 64, "not a level"),
        ("--loglevel warm", 64, "did you mean `warn`?"),
        ("-balanc rr", 64, "--balance"),
    ] {
        let words = format!("ambassador --src :5000 --dst 127.0.0.1:1 {words}");
        let words: Vec<&str> = words.split(' ').collect();
        assert_refused(&run(host, &words), code, &[hint]);
    }
}

#[test]
fn ignore_unknown_holds_for_later_reloads() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.conf("FUTUREKEY", "1");
    assert_refused(
        &host.run(&["check", "--ignore-unknown"]),
        0,
        &["`FUTUREKEY` ignored"],
    );
    let mut command = host.command();
    command
        .arg("--ignore-unknown")
        .arg("--conf")
        .arg(host.conf_file());
    let process = Process::spawn(host.namespace(), "snproxy", &mut command);
    process.wait_for_line(SOON, " ready: ");
    let _b = host.pod(30001, Pod::answering_once("b"));
    host.conf("OTHERKEY", "1").mappings("1024:30001:9:false\n");
    eventually(SOON, "the new mapping", || host.is_greeted(1024, "b"));
    assert!(host.reload().status.success());
    let told = host.status()["reload"]["diagnostics"].to_string();
    assert!(told.contains("`OTHERKEY` ignored"), "{told}");
    // A value that is unknown has no meaning that could be left out.
    host.conf("BALANCE", "leastconn");
    assert_eq!(host.reload().status.code(), Some(2));
    process.stop(SOON);
}

#[test]
fn unknown_key_leaves_the_last_good_files_in_force() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.start();
    host.conf("CLIENT_TLS", "1024 certs").mappings("");
    eventually(SOON, "the refusal", || {
        host.status()["reload"]["ok"] == false
    });
    assert_eq!(host.open(1024).greeting(), "a");
}

#[test]
fn check_fails_on_warnings_if_strict_and_where_a_start_fails() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    assert_refused(&host.run(&["check", "--strict"]), 0, &[]);
    host.mappings("1024:30000:0:false\n");
    assert_refused(&host.run(&["check"]), 0, &["always busy"]);
    let failed = ["always busy", "warnings fail with --strict"];
    assert_refused(&host.run(&["check", "--strict"]), 2, &failed);
    host.mappings("1024:30000:1:false\n")
        .conf("PORTSCONF", "not-there");
    let named = ["no such file (PORTSCONF in "];
    assert_refused(&host.run(&["check"]), 2, &named);
    let admin = "none 10.99.99.99:9180";
    host.without("PORTSCONF").conf("ADMIN", admin);
    assert_refused(&host.run(&["check"]), 2, &["found 10.99.99.99:9180"]);
    host.without("ADMIN").conf("HOST", "10.99.99.99");
    let foreign = ["10.99.99.99 is no address of this host"];
    assert_refused(&host.run(&["check"]), 2, &foreign);
    // The kernel may give any address to a socket.
    host.namespace().sysctl("ipv4/ip_nonlocal_bind", "1");
    assert_refused(&host.run(&["check"]), 0, &foreign);
}

#[test]
fn ipv6_addresses_may_be_in_brackets() {
    let net = Net::one();
    let host = net.host("host");
    host.mappings("1024:30001:9:false\n");
    let _pod = host.pod_at(
        "[::1]:30001"
            .parse::<std::net::SocketAddr>()
            .expect("an address"),
        Pod::answering_once("six"),
    );
    host.conf("HOST", "[fd77::1]")
        .conf("PODHOST", "[::1]")
        .conf("PEERS", "hosts,[fd00::]/8,[::1]")
        .conf("CLIENTPROXY", "detect [::1]/128")
        .start();
    assert_eq!(net.client().open(host.port6(1024)).greeting(), "six");
    let explained = host.run(&["explain", "1024", "--from", "[::1]"]);
    assert!(explained.status.success());
}
