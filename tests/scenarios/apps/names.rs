//! Targets that are names: their addresses change while the file stays.

use super::fixture::{Apps, NameServer, SOON, TTL, echoes};
use snproxy_tests::{Net, eventually};
use std::{thread::sleep, time::Duration};

const FILE: &str =
    r#"{"Apps":[{"Name":"moving","Ports":[5001],"Targets":["moving.fly.dev:6001"]}]}"#;

#[test]
fn a_new_answer_is_taken_without_a_reload_and_no_answer_changes_nothing() {
    let net = Net::hosts(["proxy", "one", "two"]);
    let [proxy, one, two] = ["proxy", "one", "two"].map(|name| net.host(name));
    let names = NameServer::start(two, &[("moving.fly.dev", one.v4())]);
    let _echoes = [one, two].map(|host| echoes(host, &[6001]));
    proxy.replace("config.json", FILE);
    let apps = Apps::start(proxy, &names, &[]);
    let held = proxy.open(5001);
    assert_eq!(held.greeting(), "one 6001");

    names.tell(&[("moving.fly.dev", two.v4())]);
    let took = eventually(SOON, "the new address serves", || {
        proxy.open(5001).greeting() == "two 6001"
    });
    eprintln!("{took:.1?} after the answer changed, whose TTL is {TTL:?}");
    assert_eq!(apps.generation(), 2);
    let log = apps.log();
    assert!(
        log.contains("moving.fly.dev 10.77.0.2 -> 10.77.0.3"),
        "{log}"
    );
    held.send(b"still here\n");
    assert_eq!(held.line(), "still here");

    // Both of them.
    names.tell(&[("moving.fly.dev", two.v4()), ("moving.fly.dev", one.v4())]);
    eventually(SOON, "both addresses serve", || {
        let greetings = [(), ()].map(|()| proxy.open(5001).greeting());
        greetings.contains(&"one 6001".to_owned()) && greetings.contains(&"two 6001".to_owned())
    });

    // The name is gone, and then the server.
    names.tell(&[]);
    let says = "does not resolve: its last addresses stay";
    eventually(SOON, "the log says so", || apps.log().contains(says));
    proxy.open(5001).greeting();
    names.freeze();
    sleep(TTL + Duration::from_secs(2));
    proxy.open(5001).greeting();
    assert_eq!(apps.log().matches(says).count(), 1);
    assert_eq!(apps.generation(), 3, "nothing changed");

    names.thaw();
    names.tell(&[("moving.fly.dev", one.v4())]);
    eventually(SOON, "the name resolves again", || apps.generation() == 4);
    assert!(apps.log().contains("resolves again"));
    for _ in 0..4 {
        assert_eq!(proxy.open(5001).greeting(), "one 6001");
    }
    held.send(b"all the time\n");
    assert_eq!(held.line(), "all the time");
}

#[test]
fn a_name_that_begins_to_resolve_is_taken() {
    let net = Net::hosts(["proxy", "one"]);
    let (proxy, one) = (net.host("proxy"), net.host("one"));
    let names = NameServer::start(one, &[]);
    let _echoes = echoes(one, &[6001]);
    proxy.replace("config.json", FILE);
    let apps = Apps::start(proxy, &names, &[]);
    assert!(proxy.is_refused(5001), "no target has an address");
    let found = |apps: &Apps<'_>| apps.status()["reload"]["diagnostics"].to_string();
    assert!(found(&apps).contains("`moving.fly.dev` does not resolve: no such name"));

    names.tell(&[("moving.fly.dev", one.v4())]);
    eventually(SOON, "the port is served", || !proxy.is_refused(5001));
    assert_eq!(proxy.open(5001).greeting(), "one 6001");
    assert_eq!(found(&apps), "[]");
}

#[test]
fn a_name_is_followed_while_the_file_is_bad() {
    let net = Net::hosts(["proxy", "one", "two"]);
    let [proxy, one, two] = ["proxy", "one", "two"].map(|name| net.host(name));
    let names = NameServer::start(two, &[("moving.fly.dev", one.v4())]);
    let _echoes = [one, two].map(|host| echoes(host, &[6001]));
    proxy.replace("config.json", FILE);
    let apps = Apps::start(proxy, &names, &[]);
    assert_eq!(proxy.open(5001).greeting(), "one 6001");
    let state = || {
        let reload = &apps.status()["reload"];
        (reload["ok"].as_bool(), reload["diagnostics"].to_string())
    };
    proxy.replace("config.json", "{");
    eventually(SOON, "the file is refused", || state().0 == Some(false));
    let refused = state();

    for (host, greeting) in [(two, "two 6001"), (one, "one 6001")] {
        names.tell(&[("moving.fly.dev", host.v4())]);
        eventually(SOON, "the new address serves", || {
            proxy.open(5001).greeting() == greeting
        });
        assert_eq!(state(), refused, "the file is as bad as before");
    }
    proxy.replace("config.json", FILE);
    eventually(SOON, "the file is used", || state().0 == Some(true));
    assert_eq!(proxy.open(5001).greeting(), "one 6001");
}
