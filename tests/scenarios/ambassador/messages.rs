//! What is said where the options make no sense, and how it ends: go-proxy's words where it has some.

use super::fixture::Launch;
use snproxy_tests::{Net, Pod};

/// Words of the command, the exit code and what is said.
const SAID: &[(&str, i32, &str)] = &[
    ("ambassador", 1, "missing required flag --src"),
    (
        "ambassador --dst 10.0.0.1:1",
        1,
        "missing required flag --src",
    ),
    ("tls-client --src :5000", 1, "No certificate specified"),
    ("tls-server --src :5000", 1, "No certificate specified"),
    (
        "tls-server --src :5000 --dst 10.0.0.1:1 --tlscertpath /nowhere --accept-proxy",
        1,
        "snproxy: --accept-proxy needs the networks of the proxies here, such as --accept-proxy=10.0.0.0/8: \
         a header ahead of TLS is read from listed networks only",
    ),
    // As go-proxy looks at them in this order.
    ("tls-server", 1, "No certificate specified"),
    (
        "tls-client --tlscertpath /nowhere",
        1,
        "missing required flag --src",
    ),
    (
        "ambassador --src :5000",
        1,
        "snproxy: nowhere to go: name a server with --dst, or a service with --srv and --dsc",
    ),
    (
        "ambassador --src :5000 --srv /srv/a",
        1,
        "snproxy: --srv /srv/a: name the etcd that knows it, with --dsc http://host:2379",
    ),
    (
        "ambassador --src :5000 --src :5001 --dst 10.0.0.1:1",
        1,
        "snproxy: 2 --src and 1 --dst: with several --src each has its own --dst, in the same order",
    ),
    (
        "ambassador --src 5000 --dst 10.0.0.1:1",
        1,
        "snproxy: `5000` is no address to listen on: expected 127.0.0.1:8080, [::1]:8080, :8080 or :5000-5999",
    ),
    (
        "ambassador --src :80000 --dst 10.0.0.1:1",
        1,
        "snproxy: --src :80000: expected a port or a range of ports after the colon (1-65535)",
    ),
    (
        "ambassador --src :5000 --dst 10.0.0.1:1 --src :5000 --dst 10.0.0.1:2",
        1,
        "snproxy: --src :5000: it is named twice",
    ),
    (
        "ambassador --src :5000 --srv /srv/a --dsc https://10.0.0.1:1",
        1,
        "snproxy: --dsc https: who signed the certificates of etcd? Name a folder with ca.pem by --dsc-certs",
    ),
    (
        "ambassador --src :5000 --srv /srv/a --dsc http://root:secret@10.0.0.1:1",
        1,
        "no user in the address: user=NAME password-file=PATH behind the members",
    ),
    (
        "register --srv /srv/a --addr 10.0.0.1:1 --dsc http://root:secret@10.0.0.1:1",
        64,
        "no user in the address: user=NAME password-file=PATH behind the members",
    ),
    (
        "register --srv /srv/a --addr host:1 --dsc http://10.0.0.1:1",
        64,
        "expected an IP address and a port",
    ),
    (
        "apps --conf /nowhere",
        64,
        "snproxy: /nowhere: apps read no proxy.conf: name their file with --config-file",
    ),
    (
        "ambassador --net tcp4 --src [::1]:5000 --dst 10.0.0.1:1",
        1,
        "snproxy: --src [::1]:5000: not an address of --net tcp4",
    ),
    (
        "ambassador --net tcp6 --src :5000 --dst 10.0.0.1:1",
        1,
        "snproxy: --dst 10.0.0.1:1: not an address of --net tcp6",
    ),
    (
        "ambassador --src 127.0.0.1:5000 --src 127.0.0.2:5000 --dst 10.0.0.1:1 --dst 10.0.0.1:2",
        1,
        "snproxy: port 5000 is to be served at 127.0.0.1 and at 127.0.0.2: a port is served at one address",
    ),
    (
        "tls-server --src :5000 --dst 10.0.0.1:1 --tlscert /a --sni x",
        1,
        "snproxy: --sni is for tls-client: a server is asked for a name",
    ),
    (
        "tls-client --src :5000 --dst 10.0.0.1:1 --tlscacert /a --tls-verify optional",
        1,
        "snproxy: --tls-verify optional: a server is verified or not: require or none",
    ),
    ("ambassador --src :5000 --dst 10.0.0.1:99999", 1, "99999"),
    (
        "ambassador --src :5000 --dst 10.0.0.1:1 --idle-timeout soon",
        1,
        "IDLETIMEOUT soon",
    ),
    (
        "ambassador --src :5000 --dst 127.0.0.1:5000",
        1,
        "its connections would come back to this proxy",
    ),
    // The same address, written as one of IPv6.
    (
        "ambassador --src 127.0.0.2:4999 --dst 10.0.0.1:1 --src [::ffff:127.0.0.1]:5000 --dst 127.0.0.1:5000",
        1,
        "its connections would come back to this proxy",
    ),
    // What would do nothing.
    (
        "ambassador --src :5000 --dst 10.0.0.1:1 --conf /nowhere",
        64,
        "snproxy: /nowhere: ambassadors and register read no configuration",
    ),
    (
        "ambassador --src :5000 --dst 10.0.0.1:1 --user a",
        64,
        "--dsc",
    ),
    (
        "ambassador --src :5000 --dst 10.0.0.1:1 --dsc-certs /a",
        64,
        "--dsc",
    ),
    ("ambassador --sauce :5000", 64, "--sauce"),
    (
        "ambassador --src :5000 --dst 10.0.0.1:1 --lb --balance lc",
        64,
        "cannot be used with",
    ),
    (
        "ambassador --src 10.99.0.1:5000 --dst 10.0.0.1:1",
        1,
        "listen on 10.99.0.1:5000: Cannot assign requested address",
    ),
];

#[test]
fn messages_and_exit_codes_are_those_of_go_proxy() {
    let net = Net::hosts(["a"]);
    let host = net.host("a");
    let snproxy = Launch::on(host);
    for &(words, code, line) in SAID {
        let output = snproxy.run(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{words}: {said}");
        assert!(!said.contains("secret"), "{words}: {said}");
        let is_said = match code {
            1 if line.starts_with("snproxy: ")
                || line.starts_with("missing")
                || line.starts_with("No ") =>
            {
                said.lines().any(|said| said == line)
            }
            _ => said.contains(line),
        };
        assert!(is_said, "{words}: {said}");
    }
}

#[test]
fn no_setting_takes_the_tls_of_a_port() {
    let net = Net::hosts(["a"]);
    let host = net.host("a");
    let words = [
        "tls-server",
        "--src",
        ":5000-5001",
        "--dst",
        "10.0.0.1:1",
        "--tlscertpath",
        "/nowhere",
        "--set",
        "CLIENTTLS 5001 none",
    ];
    let output = host
        .namespace()
        .output(&mut Launch::on(host).command(&words));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("all ports of snproxy tls-server"), "{said}");
}

#[test]
fn a_port_that_somebody_has_is_an_error_at_the_start() {
    let net = Net::hosts(["a"]);
    let host = net.host("a");
    let _pod = host.pod(5000, Pod::echo());
    let output = Launch::on(host).run("ambassador --src :5000 --dst 10.0.0.1:1");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("another program (uid 0) listens on"),
        "{said}"
    );
}

#[test]
fn the_environment_says_what_options_do_not() {
    let net = Net::hosts(["a"]);
    let host = net.host("a");
    let snproxy = Launch::on(host)
        .env("GO_PROXY_CERTPATH", "/nowhere/at-all")
        .env("LOG_LEVEL", "debug");
    let output = snproxy.run("tls-client --src :5000 --dst 10.0.0.1:1");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/at-all"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    // An option goes before it, and an empty variable is none.
    let output = snproxy.run("tls-client --src :5000 --dst 10.0.0.1:1 --tlscertpath /other");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/other"), "{said}");
    let empty = Launch::on(host).env("GO_PROXY_CERTPATH", "");
    let said = empty.run("tls-client --src :5000").stderr;
    assert_eq!(said, b"No certificate specified\n");
    let files = Launch::on(host)
        .env("GO_PROXY_CA", "/nowhere/ca")
        .env("GO_PROXY_CERT", "/nowhere/cert")
        .env("GO_PROXY_KEY", "/nowhere/key");
    for (command, file) in [
        ("tls-client", "/nowhere/ca"),
        ("tls-server", "/nowhere/cert"),
    ] {
        let output = files.run(&format!("{command} --src :5000 --dst 10.0.0.1:1"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(file), "{said}");
    }

    let pod = Pod::answering("a");
    host.pod(6000, pod);
    let noisy = snproxy.start("ambassador --src :5001 --dst 127.0.0.1:6000");
    assert_eq!(host.open(5001).greeting(), "a");
    snproxy_tests::eventually(super::fixture::SOON, "a line at debug", || {
        noisy.log().contains(" DEBUG ")
    });
    let quiet = snproxy.start("ambassador --src :5002 --dst 127.0.0.1:6000 --loglevel info");
    assert_eq!(host.open(5002).greeting(), "a");
    assert!(!quiet.log().contains(" DEBUG "));
}
