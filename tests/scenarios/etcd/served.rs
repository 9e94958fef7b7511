//! One member: what the proxy makes of the keys.

use super::{Etcd, FILE, PORT, SOON, proxy, service};
use snproxy_tests::{Ended, Net, Pod, eventually};

const RESET: &str = r#"{"Apps":[{"Name":"echo","Ports":[5001],"Srv":{"Key":"/srv/echo/","SendProxy":"v1"},
    "BALANCE":"ordered","ONREMOVE":"reset"}]}"#;

#[test]
fn nodes_come_and_go_and_those_that_stay_keep_their_connections() {
    let net = Net::hosts(["proxy", "one", "two"]);
    let [host, one, two] = ["proxy", "one", "two"].map(|name| net.host(name));
    let _pods = [one, two].map(|host| host.pod(6001, Pod::answering(host.name())));
    let etcd = Etcd::start(&net, &["proxy"]);
    etcd.put(&one.port(6001).to_string());
    proxy(host, &etcd.urls(), RESET);
    // Known before the first connection is let in.
    let first = host.open(PORT);
    assert_eq!(first.greeting(), "one");

    etcd.put(&two.port6(6001).to_string());
    etcd.put("10.77.0.9:0");
    etcd.put("b.example:6001");
    eventually(SOON, "two nodes", || {
        let service = service(host);
        service["nodes"] == 2 && service["ignored"] == 2
    });
    etcd.delete(&one.port(6001).to_string());
    eventually(SOON, "one node", || service(host)["nodes"] == 1);
    assert_eq!(first.ended(), Ended::Reset, "its node left");
    let second = host.open(PORT);
    assert_eq!(second.greeting(), "two");

    // A refreshed key, and one that is no node.
    let generation = host.count("/generation");
    etcd.put(&two.port6(6001).to_string());
    etcd.delete("b.example:6001");
    let revision = etcd.revision();
    eventually(SOON, "all changes are seen", || {
        service(host)["revision"] == revision
    });
    assert_eq!(host.count("/generation"), generation);

    // Nobody left: refused, and nothing else.
    etcd.delete(&two.port6(6001).to_string());
    eventually(SOON, "the port is refused", || host.is_refused(PORT));
    assert_eq!(second.ended(), Ended::Reset);
    let found = host.status()["reload"]["diagnostics"].to_string();
    assert!(found.contains("etcd has no node of it"), "{found}");
    etcd.put(&one.port(6001).to_string());
    eventually(SOON, "the port is served", || !host.is_refused(PORT));
    assert_eq!(host.open(PORT).greeting(), "one");
    assert_eq!(host.log().matches("ignored: expected ip:port").count(), 2);
}

#[test]
fn nodes_outside_targetnets_are_left_out() {
    let net = Net::hosts(["proxy", "one"]);
    let [host, one] = ["proxy", "one"].map(|name| net.host(name));
    let _pod = one.pod(6001, Pod::answering("one"));
    let etcd = Etcd::start(&net, &["proxy"]);
    etcd.put("169.254.169.254:6001");
    etcd.put("[64:ff9b::169.254.169.254]:6001");
    proxy(host, &etcd.urls(), FILE);
    assert!(host.is_refused(PORT), "no node is left");
    etcd.put(&one.port(6001).to_string());
    eventually(SOON, "the other node serves", || !host.is_refused(PORT));
    assert_eq!(host.open(PORT).greeting(), "one");
    let found = host.status()["reload"]["diagnostics"].to_string();
    let said = "nodes such as 169.254.169.254:6001, which is outside TARGETNETS, are left out";
    assert!(found.contains(said), "{found}");
    let routes = String::from_utf8(host.run(&["routes"]).stdout).expect("text");
    assert!(!routes.contains("169.254"), "{routes}");
}

#[test]
fn a_proxy_starts_without_etcd_and_takes_the_nodes_when_it_is_there() {
    let net = Net::hosts(["proxy", "one"]);
    let [host, one] = ["proxy", "one"].map(|name| net.host(name));
    let _pod = one.pod(6001, Pod::answering("one"));
    // The name of the second one is in /etc/hosts; nobody is at the first.
    let urls = format!("http://{},http://localhost:2379", host.port(1));
    proxy(host, &urls, FILE);
    assert!(host.is_refused(PORT));
    let before = service(host);
    assert!(
        before["nodes"].is_null() && before["stale_ms"].is_u64(),
        "{before}"
    );
    let etcd = Etcd::start(&net, &["proxy"]);
    etcd.put(&one.port(6001).to_string());
    eventually(SOON, "the port is served", || !host.is_refused(PORT));
    let held = host.open(PORT);
    assert_eq!(held.greeting(), "one");

    // Away: the last nodes go on.
    etcd.kill(0);
    eventually(SOON, "stale", || service(host)["stale_ms"].is_u64());
    assert_eq!(host.open(PORT).greeting(), "one");
    let text = String::from_utf8(host.run(&["status"]).stdout).expect("text");
    assert!(
        text.contains("1 nodes at revision") && text.contains("STALE for"),
        "{text}"
    );
    etcd.go_on(0);
    etcd.put("10.77.0.9:1");
    eventually(SOON, "the new node", || service(host)["nodes"] == 2);
    assert!(service(host)["stale_ms"].is_null());
    assert!(host.log().contains("etcd answers again"));

    // Another service by a reload; the old one is forgotten.
    etcd.done(&["put", &format!("/srv/other/{}", one.port(6001)), ""]);
    host.reloaded_after(|host| {
        host.replace("config.json", &FILE.replace("/srv/echo", "/srv/other"));
    });
    assert_eq!(service(host)["key"], "/srv/other");
    assert_eq!(service(host)["nodes"], 1);
    assert_eq!(host.open(PORT).greeting(), "one");
    drop(held);
}

#[test]
fn nodes_are_followed_while_newer_files_wait() {
    let net = Net::hosts(["proxy", "one", "two"]);
    let [host, one, two] = ["proxy", "one", "two"].map(|name| net.host(name));
    let _pods = [one, two].map(|host| host.pod(6001, Pod::answering(host.name())));
    let etcd = Etcd::start(&net, &["proxy"]);
    let nodes = [one, two].map(|host| host.port(6001).to_string());
    etcd.put(&nodes[0]);
    host.conf("CONFLICT", "fail");
    let ports = |ports: &str| FILE.replace("5001", ports);
    proxy(host, &etcd.urls(), &ports("5001,5002"));
    assert_eq!(host.open(PORT).greeting(), "one");

    // Programs on a port in force, which stays ours, and on one that the newer file asks for.
    let _program = host.pod(5002, Pod::answering("program"));
    eventually(SOON, "the program gets nothing", || {
        host.status()["conflicts"]["shadowed"] == "5002"
    });
    let waited_for = host.pod(5003, Pod::answering("program"));
    host.replace("config.json", &ports("5001,5003"));
    let found = || host.status()["reload"]["diagnostics"].to_string();
    eventually(SOON, "the newer file waits", || found().contains("5003"));
    assert_eq!(host.status()["reload"]["waiting"], true);
    for (came, left, name) in [(1, 0, "two"), (0, 1, "one"), (1, 0, "two")] {
        etcd.put(&nodes[came]);
        etcd.delete(&nodes[left]);
        eventually(SOON, name, || host.is_greeted(PORT, name));
    }
    assert_eq!(host.status()["reload"]["waiting"], true);
    // Who is at the ports of what waits is said with it, not as often as it is tried.
    let log = host.log();
    assert_eq!(log.matches("another program listens on a").count(), 1);
    assert!(!log.contains("the port is ours again"));

    waited_for.stop();
    eventually(SOON, "5003 is served", || host.is_greeted(5003, "two"));
    eventually(SOON, "nothing waits", || {
        host.status()["reload"]["ok"] == true
    });
}
