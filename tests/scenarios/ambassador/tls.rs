//! tls-client and tls-server as a pair, and each with openssl at the other end.

use super::fixture::{Launch, redis, redis_answers, shell};
use snproxy_tests::{Ca, Figure, Net, Pod, Process, print_figure};
use std::{process::Command, time::Duration};

/// Certificates for both ends, in folders of the first host; those of `stranger` are signed by somebody else.
fn certificates(net: &Net) -> String {
    let folder = net.host("client").folder();
    let (ca, other) = (Ca::new("the authority"), Ca::new("another one"));
    ca.issue(&["client"]).write_folder(&folder.join("client"));
    ca.issue(&["server.example", "10.77.0.2"])
        .write_folder(&folder.join("server"));
    let stranger = other.issue(&["stranger"]).believing(&ca);
    stranger.write_folder(&folder.join("stranger"));
    folder.display().to_string()
}

#[test]
fn redis_answers_a_benchmark_through_both() {
    const REQUESTS: u64 = 20_000;
    let net = Net::hosts(["client", "server"]);
    let (client, server) = (net.host("client"), net.host("server"));
    let certs = certificates(&net);
    let _redis = redis(server, 16379);
    let words =
        format!("tls-server --src :6379 --dst 127.0.0.1:16379 --tlscertpath {certs}/server");
    let tls_server = Launch::on(server).start(&words);
    let words = format!("tls-client --src :6379 --dst 10.77.0.2:6379 --tlscertpath {certs}/client");
    let tls_client = Launch::on(client).start(&words);
    let start = std::time::Instant::now();
    let line = format!("redis-benchmark -p 6379 -n {REQUESTS} -c 50 -q -t set,get");
    let printed = shell(client, &line);
    print_figure(
        "redis-benchmark through tls-client and tls-server, 20,000 each of SET and GET",
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_secs(20)),
    );
    assert!(printed.contains("GET: "), "{printed}");
    // 50 for each of the two tests, and one for its configuration.
    for ambassador in [&tls_server, &tls_client] {
        let total = ambassador.status()["connections"]["total"].as_u64();
        assert!(total >= Some(100), "{total:?}");
    }
    let stats = shell(client, "redis-cli -p 6379 info stats");
    assert!(stats.contains("total_commands_processed:4"), "{stats}");
}

#[test]
fn whoever_has_no_certificate_of_the_authority_is_turned_away_unless_that_is_allowed() {
    let net = Net::hosts(["client", "server"]);
    let (client, server) = (net.host("client"), net.host("server"));
    let certs = certificates(&net);
    let _redis = redis(server, 16379);
    let server_words = |more: &str| {
        format!("tls-server --src :6379 --dst 127.0.0.1:16379 --tlscertpath {certs}/server {more}")
    };
    let client_with = |whose: &str| {
        let words =
            format!("tls-client --src :6379 --dst 10.77.0.2:6379 --tlscertpath {certs}/{whose}");
        Launch::on(client).start(&words)
    };
    let strict = Launch::on(server).start(&server_words(""));
    let stranger = client_with("stranger");
    assert!(!redis_answers(client, 6379));
    drop(stranger);
    let known = client_with("client");
    assert!(redis_answers(client, 6379));
    drop((strict, known));

    for (verify, mark, stranger_answers) in [("optional", '=', false), ("none", ' ', true)] {
        let lax = Launch::on(server).start(&server_words(&format!("--tls-verify {verify}")));
        assert!(
            lax.log().contains(&format!("verify{mark}{verify}: ")),
            "{}",
            lax.log()
        );
        let line = format!(
            "(printf 'PING\\r\\n'; sleep 2) | timeout 10 openssl s_client -quiet -verify_quiet -connect 10.77.0.2:6379 -CAfile {certs}/client/ca.pem -verify_return_error 2>/dev/null; true"
        );
        let printed = shell(client, &line);
        assert!(printed.contains("PONG"), "{verify}: {printed}");
        let stranger = client_with("stranger");
        assert_eq!(redis_answers(client, 6379), stranger_answers, "{verify}");
        drop(stranger);
    }
}

#[test]
fn a_server_by_openssl_is_verified_and_asked_for_its_name() {
    let net = Net::hosts(["client", "server"]);
    let (client, server) = (net.host("client"), net.host("server"));
    let certs = certificates(&net);
    let mut openssl = Command::new("openssl");
    openssl
        .args([
            "s_server",
            "-accept",
            "6379",
            "-rev",
            "-Verify",
            "1",
            "-verify_return_error",
        ])
        .args([
            "-alpn",
            "redis,other",
            "-servername",
            "server.example",
            "-servername_fatal",
        ])
        .args(["-CAfile", &format!("{certs}/server/ca.pem")])
        .args([
            "-cert",
            &format!("{certs}/server/cert.pem"),
            "-key",
            &format!("{certs}/server/key.pem"),
        ])
        .args([
            "-cert2",
            &format!("{certs}/server/cert.pem"),
            "-key2",
            &format!("{certs}/server/key.pem"),
        ]);
    let _openssl: Process = server.namespace().server("openssl", &mut openssl, 6379);
    let words = |more: &str| {
        format!("tls-client --src :5000 --dst 10.77.0.2:6379 --tlscertpath {certs}/client {more}")
    };
    let ambassador = Launch::on(client).start(&words("--sni server.example --alpn redis"));
    let conn = client.open(5000);
    conn.send(b"abc\n");
    assert_eq!(conn.line(), "cba");
    drop(conn);
    drop(ambassador);
    // Of another name it is not the one that was asked for.
    let _ambassador = Launch::on(client).start(&words("--sni other.example"));
    assert!(client.is_reset(5000));
}

#[test]
fn a_range_of_ports_speaks_tls() {
    let net = Net::hosts(["client", "server"]);
    let (client, server) = (net.host("client"), net.host("server"));
    let certs = certificates(&net);
    server.pod(16379, Pod::answering("there"));
    let words =
        format!("tls-server --src :6000-6099 --dst 127.0.0.1:16379 --tlscertpath {certs}/server");
    let tls_server = Launch::on(server).start(&words);
    assert_eq!(tls_server.status()["steering"], "ebpf");
    let words = format!(
        "tls-client --src :5000 --src :5001 --dst 10.77.0.2:6000 --dst 10.77.0.2:6099 --tlscertpath {certs}/client"
    );
    let _tls_client = Launch::on(client).start(&words);
    for port in [5000, 5001] {
        assert_eq!(client.open(port).greeting(), "there");
    }
}
