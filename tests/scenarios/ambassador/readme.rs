//! The commands of go-proxy's README, as they are written there but for addresses and names.

use super::discovered::Etcd;
use super::fixture::{Launch, redis, redis_answers};
use snproxy_tests::{Ca, Net, S3};

/// go-proxy listens on all addresses, and redis has 6379 of this host: they meet on two hosts.
fn hosts() -> Net {
    Net::hosts(["client", "server"])
}

#[test]
fn a_static_ambassador() {
    let net = hosts();
    let (client, server) = (net.host("client"), net.host("server"));
    let _redis = redis(server, 6379);
    let go_proxy = Launch::on(client).named_go_proxy();
    let ambassador = go_proxy.start("--src :16379 --dst 10.77.0.2:6379");
    assert!(redis_answers(client, 16379));
    drop(ambassador);
    let snproxy = Launch::on(client);
    let _ambassador = snproxy.start("ambassador --src :16379 --dst 10.77.0.2:6379");
    assert!(redis_answers(client, 16379));
}

#[test]
fn a_discovered_ambassador() {
    let net = hosts();
    let (client, server) = (net.host("client"), net.host("server"));
    let _redis = redis(server, 6379);
    let etcd = Etcd::start(server);
    etcd.ctl(&["put", "/srv/redis/debug/10.77.0.2:6379", ""]);
    let go_proxy = Launch::on(client).named_go_proxy();
    // Of the two one is there.
    for endpoints in ["10.77.0.1 10.77.0.2", "10.77.0.2 10.77.0.1"] {
        let (first, second) = endpoints.split_once(' ').expect("two");
        let words = format!(
            "--src :16379 --srv /srv/redis/debug --dsc http://{first}:2379 --dsc http://{second}:2379"
        );
        let _ambassador = go_proxy.start(&words);
        assert!(redis_answers(client, 16379), "{endpoints}");
    }
}

#[test]
fn tls_client_and_tls_server() {
    let net = hosts();
    let (client, server) = (net.host("client"), net.host("server"));
    let _redis = redis(server, 16379);
    let ca = Ca::new("the authority");
    let (client_cert, server_cert) = (
        client.folder().join("client-cert"),
        client.folder().join("server-cert"),
    );
    let issued = [
        (ca.issue(&["client"]), client_cert, "client-cert"),
        (ca.issue(&["10.77.0.2"]), server_cert, "server-cert"),
    ];
    // One for each host: it listens on loopback.
    let stores = [client, server].map(|host| S3::start(host.namespace()));
    for (issued, folder, prefix) in &issued {
        issued.write_folder(folder);
        for (store, host) in stores.iter().zip([client, server]) {
            for (name, text) in [
                ("ca.pem", &issued.ca),
                ("cert.pem", &issued.cert),
                ("key.pem", &issued.key),
            ] {
                store.put(host.namespace(), &format!("{prefix}/{name}"), text);
            }
        }
    }
    let launch = |index: usize| {
        let host = [client, server][index];
        let launch = Launch::on(host).named_go_proxy();
        let variables = stores[index].variables();
        variables
            .into_iter()
            .fold(launch, |launch, (key, value)| launch.env(key, value))
    };
    let folder = client.folder().display();
    for place in [
        format!("{folder}"),
        format!("file://{folder}"),
        "s3://certificates".to_owned(),
    ] {
        // In reverse: redis is on the port that the README gives to the ambassador.
        let words = format!(
            "tls-server --src :6379 --dst 10.77.0.2:16379 --tlscertpath {place}/server-cert"
        );
        let _server = launch(1).start(&words);
        let words = format!(
            "tls-client --src :16379 --dst 10.77.0.2:6379 --tlscertpath {place}/client-cert"
        );
        let _client = launch(0).start(&words);
        assert!(redis_answers(client, 16379), "{place}");
    }
}
