//! What the log says of connections, and in which form.

use rustix::process::Signal;
use serde_json::Value;
use snproxy_tests::{Ended, Host, Net, Pod, eventually, snproxy_binary};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(20);

/// Value of `key=` in a line of the text log.
fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let at = line.find(&format!(" {key}="))? + key.len() + 2;
    line.get(at..)?.split_whitespace().next()
}

#[test]
fn each_connection_has_one_closing_event_with_its_fields() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::returning());
    host.mappings("1024:30000:9:false\n")
        .env("LOG_LEVEL", "debug")
        .start();

    let conn = host.open(1024);
    let client = conn.local().to_string();
    assert_eq!(
        conn.send("there and back").half_close().read_to_end(),
        b"there and back"
    );
    host.snproxy().wait_for_line(SOON, " closed ");
    let log = host.log();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains(" closed "))
        .collect();
    let [line] = lines[..] else {
        panic!("{lines:?}");
    };
    let expected = [
        ("client", client.as_str()),
        ("cluster_port", "1024"),
        ("upstream", "10.77.0.1:30000"),
        ("bytes_in", "14"),
        ("bytes_out", "14"),
        ("end", "clean"),
    ];
    for (key, value) in expected {
        assert_eq!(field(line, key), Some(value), "{key} of {line}");
    }
    let millis: u64 = field(line, "duration_ms")
        .expect("a duration")
        .parse()
        .expect("a number");
    assert!(millis < 60_000);
    assert!(line.contains("DEBUG"), "{line}");
}

#[test]
fn the_log_is_one_json_object_per_line_where_asked_for() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::resetting());
    host.conf("LOGFORMAT", "json")
        .conf("LOGLEVEL", "debug")
        .mappings("1024:30000:9:false\n");
    host.launch().wait_for_line(SOON, "ready: ");

    assert_eq!(host.open(1024).send("x").ended(), Ended::Reset);
    host.snproxy().wait_for_line(SOON, "\"closed\"");
    host.mappings("a line\nthat is wrong\n");
    host.snproxy().wait_for_line(SOON, "configuration not used");
    let snproxy = host.snproxy();
    host.stop();
    let log = snproxy.log();
    let objects: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert!(
        objects
            .iter()
            .all(|object| object["timestamp"].is_string() && object["level"].is_string())
    );
    let closed = objects
        .iter()
        .find(|object| object["message"] == "closed")
        .expect("a closing event");
    assert_eq!(
        (&closed["end"], &closed["cluster_port"]),
        (&"upstream".into(), &1024.into())
    );
    assert_eq!(
        (&closed["bytes_in"], &closed["bytes_out"]),
        (&1.into(), &0.into())
    );
}

#[test]
fn a_reader_of_the_log_that_stalls_stalls_no_connection() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::returning());
    // Reads up to the line that says it is ready, and goes on when the file `go` is there.
    let script = format!(
        "#!/bin/bash\nexec {} \"$@\" 2> >(while read -r line; do echo \"$line\" >&2; \
         case $line in *\" ready: \"*) until [ -e {}/go ]; do sleep 0.1; done;; esac; done)\n",
        snproxy_binary().display(),
        host.folder().display()
    );
    let wrapped = host.folder().join("stalling");
    fs::write(&wrapped, script).expect("a script");
    fs::set_permissions(&wrapped, Permissions::from_mode(0o755)).expect("its mode");
    host.mappings("1024:30000:9:false\n")
        .env("LOG_LEVEL", "debug")
        .binary(&wrapped)
        .start();

    // A pipe holds 64 KiB, a closing event has more than 100 bytes.
    for _ in 0..1500 {
        assert_eq!(host.open(1024).send("x").half_close().read_to_end(), b"x");
    }
    assert!(!host.log().contains(" closed "), "the reader stalls");
    fs::write(host.folder().join("go"), "").expect("a file");
    eventually(SOON, "no line was lost", || {
        host.log().matches(" closed ").count() == 1500
    });
    assert_eq!(host.stop().code(), Some(0));
}

/// Makes snproxy of the host run by this line of bash; `$@` are its arguments.
fn run_by(host: &Host, line: &str) {
    let script = format!(
        "#!/bin/bash\nsnproxy={}\nfolder={}\n{line}\n",
        snproxy_binary().display(),
        host.folder().display()
    );
    let wrapper = host.folder().join("wrapper");
    fs::write(&wrapper, script).expect("a script");
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("its mode");
    host.binary(&wrapper);
}

#[test]
fn full_pipe_of_the_log_holds_up_no_start() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    // Nobody reads the pipe, which is full before snproxy starts.
    run_by(
        host,
        "mkfifo $folder/log; exec 3<>$folder/log; timeout 1 cat /dev/zero >&3; \
         exec $snproxy \"$@\" 2>&3",
    );
    // One warning at least comes at the start.
    host.conf("KEEPALIVE", "2s")
        .mappings("1024:30000:0:false\n1025:30000:9:false\n");
    let snproxy = host.launch();
    eventually(SOON, "the pod is reached", || host.is_greeted(1025, "pod"));
    snproxy.signal(Signal::TERM);
    assert_eq!(snproxy.wait(SOON).code(), Some(0));
}

#[test]
fn journald_gets_priorities() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    host.mappings("1024:30000:0:false\n1025:30000:9:false\n");
    run_by(
        host,
        "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); exec $snproxy \"$@\"",
    );
    host.start();
    let log = host.log();
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines.iter().all(|line| line.starts_with('<')), "{log}");
    let of = |text: &str| lines.iter().find(|line| line.contains(text));
    assert!(
        of(" ready: ").is_some_and(|line| line.starts_with("<6>")),
        "{log}"
    );
    assert!(
        of(" WARN ").is_some_and(|line| line.starts_with("<4>")),
        "{log}"
    );
    assert_eq!(host.stop().code(), Some(0));
    // Another stream is none of journald's.
    run_by(host, "JOURNAL_STREAM=1:2 exec $snproxy \"$@\"");
    host.start();
    assert!(!host.log().starts_with('<'), "{}", host.log());
}
