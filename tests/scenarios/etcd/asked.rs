//! Who asks: users, passwords and certificates.

use super::{Etcd, FILE, PORT, SOON, proxy, register, service};
use snproxy_tests::{Ca, Net, Pod, eventually};
use std::fs;

const UNCHECKED: [&str; 4] = ["--check", "none", "--ttl", "5s"];

#[test]
fn a_user_is_known_by_a_password_and_a_token_that_is_out_is_asked_for_anew() {
    let net = Net::hosts(["proxy", "one"]);
    let [host, one] = ["proxy", "one"].map(|name| net.host(name));
    let _pod = one.pod(6001, Pod::answering("one"));
    let etcd = Etcd::start(&net, &["one"]);
    for words in [
        &["user", "add", "root:secret"][..],
        &["role", "add", "nodes"],
        &[
            "role",
            "grant-permission",
            "nodes",
            "readwrite",
            "--prefix",
            "/srv/echo/",
        ],
        &["user", "add", "proxy:pass word"],
        &["user", "grant-role", "proxy", "nodes"],
        &["auth", "enable"],
    ] {
        etcd.done(words);
    }
    etcd.ask_with(&["--user", "root:secret"]);
    let password = host.folder().join("etcd.password");
    fs::write(&password, "wrong\n").expect("the password");
    let asked = format!("{} user=proxy password-file=etcd.password", etcd.urls());
    proxy(host, &asked, FILE);
    let why = service(host)["why_stale"].to_string();
    assert!(why.contains("authentication failed"), "{why}");
    fs::write(&password, "pass word\n").expect("the password");
    eventually(SOON, "etcd lets the user in", || {
        service(host)["nodes"] == 0
    });

    let path = password.display().to_string();
    let node = one.port(6001).to_string();
    // Nobody in particular is granted a lease, and may not put a key under it.
    let nobody = register(one, &etcd.urls(), &one.port(6003).to_string(), &UNCHECKED);
    nobody.wait_for_line(SOON, "etcd refuses");
    let options = ["--user", "proxy", "--password-file", &path];
    let _register = register(one, &etcd.urls(), &node, &options);
    eventually(SOON, "the node is registered", || {
        service(host)["nodes"] == 1
    });
    eventually(SOON, "the node serves", || host.is_greeted(PORT, "one"));

    // A member that starts knows no tokens.
    etcd.kill(0);
    etcd.go_on(0);
    etcd.put("10.77.0.9:1");
    eventually(SOON, "the new node", || service(host)["nodes"] == 2);
    etcd.delete(&node);
    eventually(SOON, "it is registered again", || {
        etcd.nodes().contains(&node)
    });
    nobody.stop(SOON);
    let log = nobody.log();
    for untrue in ["answers again", "no longer registered", "somebody removed"] {
        assert!(!log.contains(untrue), "{log}");
    }
}

#[test]
fn etcd_over_https_asks_for_a_certificate() {
    let net = Net::hosts(["proxy", "one"]);
    let [host, one] = ["proxy", "one"].map(|name| net.host(name));
    let _pod = one.pod(6001, Pod::answering("one"));
    let ca = Ca::new("of etcd");
    let server = ca.issue(&[&one.v4().to_string(), "127.0.0.1", "localhost"]);
    let etcd = Etcd::start_with(&net, &["one"], Some(&server));
    let node = one.port(6001).to_string();
    etcd.put(&node);
    let certs = host.folder().join("certs");
    // Of another authority: it neither believes etcd nor is believed.
    Ca::new("another").issue(&["proxy"]).write_folder(&certs);
    proxy(host, &format!("{} certs", etcd.urls()), FILE);
    let why = service(host)["why_stale"].to_string();
    assert!(why.contains("certificate"), "{why}");
    assert!(host.is_refused(PORT));

    host.reloaded_after(|_| ca.issue(&["proxy"]).write_folder(&certs));
    eventually(SOON, "the node is known", || service(host)["nodes"] == 1);
    eventually(SOON, "the node serves", || host.is_greeted(PORT, "one"));
    etcd.delete(&node);
    eventually(SOON, "nobody is left", || service(host)["nodes"] == 0);
    let folder = certs.display().to_string();
    let _register = register(one, &etcd.urls(), &node, &["--dsc-certs", &folder]);
    eventually(SOON, "the node is registered", || {
        service(host)["nodes"] == 1
    });
}
