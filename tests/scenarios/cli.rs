//! The command line, as people and the pod wrapper use it.

use serde_json::Value;
use snproxy_tests::{Host, Net, Pod, Process, eventually};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
    time::Duration,
};

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
fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn it_starts_with_a_file_an_option_and_a_folder() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    let file = host.conf_file();
    let file = file.to_str().expect("a plain path");
    // A file may have the name of a command: `./status` is the file.
    fs::copy(file, host.folder().join("status")).expect("copy");

    for words in [
        &[file][..],
        &["--conf", file],
        &[],
        &["./status"],
        &["--conf=status"],
    ] {
        let mut command = host.command();
        command.args(words).current_dir(host.folder());
        let process = Process::spawn(host.namespace(), "snproxy", &mut command);
        process.wait_for_line(SOON, " ready: ");
        assert_eq!(host.open(1024).greeting(), "a", "{words:?}");
        assert_eq!(host.status()["pid"], process.pid(), "{words:?}");
        assert_eq!(
            process.stop(SOON).code(),
            Some(0),
            "{words:?}: {}",
            process.log()
        );
    }
}

#[test]
fn the_start_up_line_says_what_is_served_and_how() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.start();
    let log = host.log();
    let line = log
        .lines()
        .find(|line| line.contains(" ready: "))
        .expect("it is ready");
    let expected = "ready: serving 10.77.0.1:32767 by ebpf; 1 of 61744 cluster ports steered, 0 refused, 61743 left alone; pods at 10.77.0.1";
    assert!(line.ends_with(expected), "{line}");

    host.stop();
    host.conf("STEERING", "listeners").start();
    assert!(
        host.log()
            .contains("serving 10.77.0.1:32767 by listeners; 1 of 61744"),
        "{}",
        host.log()
    );
    assert_eq!(host.open(1024).greeting(), "a");
}

#[test]
fn check_says_what_is_wrong_with_the_line_shown() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    let fine = host.run(&["check"]);
    assert_eq!(fine.status.code(), Some(0), "{}", text(&fine.stderr));
    let told = text(&fine.stdout);
    assert!(
        told.ends_with("proxy.conf: fine: 1 mappings, 61744 cluster ports, 1 hosts\n"),
        "{told}"
    );

    // All findings of all files in one run.
    host.mappings("1024:30000:9:false\n  1025:3000x:9:true\n")
        .conf("BALANCE", "best")
        .conf("CLUSTERPROTS", "1024");
    let wrong = run(host, &["check"]);
    assert_eq!(wrong.status.code(), Some(2));
    let told = text(&wrong.stderr);
    for part in [
        "error: `3000x` is not a host port (1-65535)\n",
        "--> portmappings.conf:2:8\n",
        "2 |   1025:3000x:9:true\n",
        "|        ^^^^^\n",
        "error: expected p2c, rr, wrr, random, ordered, lc, wlc, sed, nq, fo, ovf, twos, sh or mh, found `best`\n",
        "error: unknown key `CLUSTERPROTS`: did you mean `CLUSTERPORTS`?\n",
        "3 error(s), 0 warning(s)\n",
    ] {
        assert!(told.contains(part), "no `{part}` in:\n{told}");
    }
    assert_eq!(text(&wrong.stdout), "");

    // Warnings alone are fine.
    host.mappings("1024:30000:0:false\n")
        .without("BALANCE")
        .without("CLUSTERPROTS");
    let warned = host.run(&["check"]);
    assert_eq!(warned.status.code(), Some(0));
    assert!(text(&warned.stderr).contains("warning: maxConn 0 allows no connection: always busy"));
    // It does not start with what `check` refuses, and says the same.
    host.mappings("nonsense\n");
    let refused = host.run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr)
            .contains("error: expected clusterPort:hostPort:maxConn:sendProxy, found `nonsense`")
    );
}

#[test]
fn check_explains_each_key_and_where_its_value_comes_from() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.conf("PROXYWAIT", "1500ms");
    let output = run(host, &["check", "--explain"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    let line = |key: &str| {
        let found = told
            .lines()
            .find(|line| line.split_whitespace().next() == Some(key));
        found
            .unwrap_or_else(|| panic!("no {key} in:\n{told}"))
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(line("PROXYWAIT"), ["PROXYWAIT", "1500ms", "proxy.conf:3"]);
    assert_eq!(line("HOST")[1..], ["10.77.0.1", "proxy.conf:2"]);
    assert_eq!(line("BALANCE")[1..], ["p2c", "default"]);
    assert_eq!(line("PODHOST")[1..], ["10.77.0.1", "default"]);
    assert_eq!(
        line("CLUSTERPORTS")[1..],
        ["1024-29999,32768-65535", "default"]
    );
    for key in [
        "HOSTSCONF",
        "PORTSCONF",
        "PORT",
        "STEERING",
        "CONFLICT",
        "CLIENTPROXY",
        "IDLETIMEOUT",
        "DRAINTIMEOUT",
        "ADMIN",
        "LOGLEVEL",
        "LOGFORMAT",
        "BPFLOG",
    ] {
        assert!(!line(key).is_empty());
    }
}

#[test]
fn the_running_proxy_answers_as_text_and_as_json() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    host.start();
    assert_eq!(host.open(1024).greeting(), "a");
    eventually(SOON, "a clean end", || host.ends("clean") == 1);

    let status = run(host, &["status"]);
    assert_eq!(status.status.code(), Some(0), "{}", text(&status.stderr));
    let told = text(&status.stdout);
    for part in [
        &format!("(pid {}) running for ", host.snproxy().pid()),
        "on 10.77.0.1 port 32767, steering by ebpf\n",
        "ports        1 steered, 0 refused, 61743 left alone\n",
        "connections  0 live, 0 waiting, 1 in all\n",
        "ends         clean 1\n",
        "kernel       1 steered, 0 refused, 0 above the rate of their port, 0 without listener, 0 failed (lookups)\n",
        "files        generation 1: in force\n",
        "pod          1024 -> 10.77.0.1:30000  0/9 connections, PROXY header false, up\n",
    ] {
        assert!(told.contains(part), "no `{part}` in:\n{told}");
    }
    let json = host.status();
    assert_eq!(json["pods"][0]["max_conn"], 9);
    assert_eq!(json["kernel"]["steered"], 1);

    let ports = text(&run(host, &["ports"]).stdout);
    let rows: Vec<Vec<&str>> = ports
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["PORTS", "ACTION", "LOOKUPS", "LIMITED", "REASON"]);
    assert_eq!(rows[1], ["1024", "steer", "1", "0", "mapped"]);
    assert_eq!(rows[2], ["1025-29999", "pass", "0", "0", "not", "mapped"]);
    assert_eq!(host.ports()["ranges"][0]["lookups"], 1);

    let reload = run(host, &["reload"]);
    assert_eq!(
        (reload.status.code(), text(&reload.stdout).as_str()),
        (Some(0), "generation 2 in force\n")
    );
    let reload = text(&run(host, &["reload", "--json"]).stdout);
    let reload: Value = serde_json::from_str(&reload).expect("JSON");
    assert_eq!(
        (&reload["ok"], &reload["generation"]),
        (&true.into(), &3.into())
    );
    // Options may stand on either side of the command.
    let file = host.conf_file();
    assert!(
        run(
            host,
            &[
                "--conf",
                file.to_str().expect("a plain path"),
                "status",
                "--json"
            ]
        )
        .status
        .success()
    );
}

#[test]
fn exit_codes_tell_bad_usage_from_bad_files_and_from_nobody_there() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    for words in [
        &["--nonsense"][..],
        &["one", "two"],
        &["--conf"],
        &["check", "--json"],
        &["proxy.conf", "--conf", "proxy.conf"],
        &["check", "proxy.conf", "--conf", "proxy.conf"],
        &["status", "--check=nonsense"],
    ] {
        let output = run(host, words);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{words:?}: {}",
            text(&output.stderr)
        );
        assert!(text(&output.stderr).starts_with("error: "), "{words:?}");
    }
    for words in [
        &["none.conf"][..],
        &["check", "--conf", "none.conf"],
        &["--conf", "none.conf"],
    ] {
        let output = run(host, words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(
            text(&output.stderr).contains("none.conf"),
            "{}",
            text(&output.stderr)
        );
    }
    for words in [
        &["status"][..],
        &["ports"],
        &["reload"],
        &["status", "--json"],
    ] {
        let output = run(host, words);
        assert_eq!(
            (output.status.code(), text(&output.stdout).as_str()),
            (Some(1), ""),
            "{words:?}"
        );
        assert!(
            text(&output.stderr).contains("admin.sock: does snproxy run with this configuration?")
        );
    }
    let help = run(host, &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("Usage: snproxy"));
}

#[test]
fn the_version_names_the_object_that_is_inside() {
    let net = Net::one();
    let (host, _) = one_pod(&net);
    let object = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snproxy-ebpf/prebuilt/steering.o");
    let sum = Command::new("sha256sum")
        .arg(object)
        .output()
        .expect("sha256sum");
    let sum = text(&sum.stdout);
    let sum = sum.split_whitespace().next().expect("a hash");
    assert_eq!(sum.len(), 64);
    let version = text(&run(host, &["--version"]).stdout);
    assert_eq!(
        version,
        format!(
            "snproxy {} (bpf object sha256 {sum})\n",
            env!("CARGO_PKG_VERSION")
        )
    );
}
