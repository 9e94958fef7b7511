//! Servers that etcd knows: what becomes of connections to those that leave.

use super::fixture::{Launch, SOON};
use snproxy_tests::{Ended, Host, Net, Pod, Process, eventually};
use std::{process::Command, time::Duration};
use tempfile::TempDir;

pub(super) const ETCD: u16 = 2379;

/// One member of etcd on a host.
pub(super) struct Etcd<'h> {
    host: &'h Host,
    _process: Process,
    _folder: TempDir,
}

impl<'h> Etcd<'h> {
    #[track_caller]
    pub(super) fn start(host: &'h Host) -> Self {
        let folder = TempDir::new().expect("folder of etcd");
        let mut etcd = Command::new("etcd");
        etcd.arg("--data-dir")
            .arg(folder.path())
            .args(["--listen-client-urls", "http://0.0.0.0:2379"])
            .args([
                "--advertise-client-urls",
                &format!("http://{}:2379", host.v4()),
            ])
            .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
            .args(["--log-level", "warn"]);
        Self {
            host,
            _process: host.namespace().server("etcd", &mut etcd, ETCD),
            _folder: folder,
        }
    }

    #[track_caller]
    pub(super) fn ctl(&self, words: &[&str]) {
        let mut etcdctl = Command::new("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").args(words);
        let output = self.host.namespace().output(&mut etcdctl);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {words:?}: {error}");
    }
}

#[test]
fn connections_to_a_server_that_leaves_are_reset_and_no_others() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    b.pod(6001, Pod::echo());
    b.pod(6002, Pod::echo());
    let etcd = Etcd::start(b);
    etcd.ctl(&["put", "/srv/echo/10.77.0.2:6001", ""]);
    etcd.ctl(&["put", "/srv/echo/10.77.0.2:6002", ""]);
    let words = "--srv /srv/echo --dsc http://10.77.0.2:2379 --lb";
    let resets = Launch::on(a).start(&format!("ambassador --src :5000 --src :5001 {words}"));
    let keeps = Launch::on(a).start(&format!("ambassador --src :5002 {words} --on-remove keep"));
    // Of two in turn each server has one; every --src goes to all of them.
    let conns = [5000, 5000, 5001, 5001, 5002, 5002].map(|port| a.open(port));
    let echoes = |conn: &snproxy_tests::Conn| {
        conn.send(b"x");
        assert_eq!(conn.read(1), b"x");
    };
    for conn in &conns {
        echoes(conn);
    }

    // Written anew: nobody left.
    etcd.ctl(&["put", "/srv/echo/10.77.0.2:6001", "again"]);
    etcd.ctl(&["del", "/srv/echo/10.77.0.2:6002"]);
    let is_over = |conn: &snproxy_tests::Conn| {
        conn.rest(Duration::from_millis(200)) == (Vec::new(), Ended::Reset)
    };
    let mut over = Vec::new();
    eventually(SOON, "two of four are reset", || {
        over = conns[..4].iter().map(is_over).collect();
        over.iter().filter(|is| **is).count() == 2
    });
    for (conn, over) in conns.iter().zip(over.into_iter().chain([false, false])) {
        if !over {
            echoes(conn);
        }
    }
    assert_eq!(resets.ends("removed"), 2);
    assert_eq!(keeps.ends("removed"), 0);

    // An empty list refuses; a server that comes is used at once.
    etcd.ctl(&["del", "--prefix", "/srv/echo"]);
    eventually(SOON, "nobody is left", || a.is_refused(5000));
    assert_eq!(resets.exit_status(), None);
    etcd.ctl(&["put", "/srv/echo/10.77.0.2:6002", ""]);
    let took = eventually(SOON, "served again", || {
        a.attempt(5000).connected().is_some()
    });
    eprintln!("a server that comes is used after {took:.1?}");
    echoes(&a.open(5000));
}

#[test]
fn a_list_that_is_empty_from_the_start_is_waited_for() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    b.pod(6001, Pod::answering("b"));
    let etcd = Etcd::start(b);
    let words = "ambassador --src :5000 --srv /srv/none --dsc http://10.77.0.2:2379";
    let ambassador = Launch::on(a).start(words);
    assert!(a.is_refused(5000));
    etcd.ctl(&["put", "/srv/none/10.77.0.2:6001", ""]);
    eventually(SOON, "served", || !a.is_refused(5000));
    assert_eq!(a.open(5000).greeting(), "b");
    assert_eq!(ambassador.exit_status(), None);
}
