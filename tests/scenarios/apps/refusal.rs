//! Files that are not served: they would loop, or make no sense.

use super::fixture::{Apps, NameServer, SOON, echoes, own_etc};
use snproxy_tests::{Net, eventually};

/// One app with these targets.
fn file(targets: &str) -> String {
    format!(r#"{{"Apps":[{{"Name":"a","Ports":[5001,5002],"Targets":[{targets}]}}]}}"#)
}

#[test]
fn a_target_that_is_this_proxy_is_refused_where_it_stands() {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let names = NameServer::start(
        echo,
        &[
            ("itself.fly.dev", proxy.v4()),
            ("both.fly.dev", proxy.v4()),
            ("both.fly.dev", echo.v4()),
        ],
    );
    let _echoes = echoes(echo, &[5002]);

    proxy.replace("config.json", &file(r#""10.77.0.1:5002""#));
    let apps = Apps::launch(proxy, &names, &[]);
    eventually(SOON, "it does not start", || apps.exit_status().is_some());
    assert_eq!(apps.exit_status().and_then(|status| status.code()), Some(2));
    let log = apps.log();
    assert!(log.contains("config.json:1:54"), "{log}");
    assert!(
        log.contains("port 5002 at 10.77.0.1 is a port served here: its connections would come back to this proxy"),
        "{log}"
    );

    // A name is left out, and what else there is serves.
    proxy.replace(
        "config.json",
        &file(r#""itself.fly.dev:5001","both.fly.dev:5002""#),
    );
    let apps = Apps::start(proxy, &names, &[]);
    let found = apps.status()["reload"]["diagnostics"].to_string();
    for name in ["itself.fly.dev", "both.fly.dev"] {
        let says = format!("`{name}` resolves to 10.77.0.1, and port");
        assert!(found.contains(&says), "{found}");
    }
    for _ in 0..6 {
        assert_eq!(proxy.open(5001).greeting(), "echo 5002");
    }
    assert_eq!(apps.ends("loop"), 0, "nothing was tried");

    // A name that moves here is noticed with its answer.
    names.tell(&[("both.fly.dev", proxy.v4())]);
    eventually(SOON, "nothing is left", || proxy.is_refused(5001));
    assert_eq!(apps.ends("loop"), 0);
}

#[test]
fn a_loop_that_no_file_shows_ends_at_the_dial() {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let _echoes = echoes(echo, &[5002]);
    proxy
        .conf("HOST", "0.0.0.0")
        .conf("APPSCONF", "config.json")
        .replace("config.json", &file(r#""10.77.0.2:5002""#))
        .start();
    assert_eq!(proxy.open(5001).greeting(), "echo 5002");
    // With the new HOST the target is none of ours, but that HOST waits for a restart.
    proxy.reloaded_after(|proxy| {
        proxy.conf("HOST", "127.0.0.1");
        proxy.replace("config.json", &file(r#""10.77.0.1:5002""#))
    });
    eventually(SOON, "both files are in force", || {
        proxy.status()["apps"][0]["targets"][0]["target"] == "10.77.0.1:5002"
    });
    assert!(proxy.is_reset(5001));
    assert_eq!(proxy.ends("loop"), 1);
    let says = "a pod or target is a port that this proxy serves: not dialled";
    assert!(proxy.log().contains(says), "{}", proxy.log());
}

#[test]
fn an_app_waits_for_the_restart_that_frees_its_port() {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let _echoes = echoes(echo, &[5002]);
    let good = file(r#""10.77.0.2:5002""#);
    proxy
        .conf("APPSCONF", "config.json")
        .replace("config.json", &good)
        .start();
    let state = || {
        let reload = &proxy.status()["reload"];
        (reload["ok"].as_bool(), reload["diagnostics"].to_string())
    };
    proxy.replace("config.json", &good.replace("5001", "32767"));
    eventually(SOON, "PORT is not given away", || {
        state()
            .1
            .contains("port 32767 is claimed twice: it is PORT")
    });
    proxy.conf("PORT", "32000");
    eventually(SOON, "not before the restart", || {
        state()
            .1
            .contains("port 32767 at 1:31 is PORT until snproxy is restarted")
    });
    assert_eq!(state().0, Some(false));
    assert_eq!(proxy.open(5001).greeting(), "echo 5002");

    proxy.replace("config.json", &good);
    eventually(SOON, "the file is used", || state().0 == Some(true));
}

#[test]
fn a_file_that_makes_no_sense_changes_nothing() {
    let net = Net::hosts(["proxy", "echo"]);
    let (proxy, echo) = (net.host("proxy"), net.host("echo"));
    let names = NameServer::start(echo, &[]);
    let _echoes = echoes(echo, &[5002]);
    proxy.replace("config.json", &file(r#""10.77.0.2:5002""#));
    let apps = Apps::start(proxy, &names, &[]);
    let bad = [
        (
            r#"{"Apps":["#.to_owned(),
            "no JSON: EOF while parsing a list",
        ),
        (
            file(r#""10.77.0.2:5002""#).replace(
                "]}]}",
                r#"]},{"Name":"b","Ports":[5002],"Targets":["10.77.0.2:1"]}]}"#,
            ),
            "port 5002 is claimed twice: app `a` has it at 1:36",
        ),
    ];
    for (text, says) in bad {
        proxy.replace("config.json", &text);
        let found = || apps.status()["reload"]["diagnostics"].to_string();
        eventually(SOON, says, || found().contains(says));
        assert_eq!(proxy.open(5001).greeting(), "echo 5002");
        assert_eq!(apps.generation(), 1);
        let checked = apps.run(&["check"]);
        assert_eq!(checked.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&checked.stderr).contains(says));
    }
    // A file that is gone is no empty one.
    std::fs::remove_file(proxy.folder().join("config.json")).expect("remove the file");
    let found = || apps.status()["reload"]["diagnostics"].to_string();
    eventually(SOON, "it is missed", || found().contains("no such file"));
    assert_eq!(proxy.open(5001).greeting(), "echo 5002");
    proxy.replace("config.json", &file(r#""10.77.0.2:5002""#));
    eventually(SOON, "it is back", || {
        apps.status()["reload"]["ok"].as_bool() == Some(true)
    });
    let script = own_etc(proxy, &names);
    let usage = std::process::Command::new(script)
        .args(["apps", "--max-workers", "0"])
        .output()
        .expect("run snproxy");
    assert_eq!(usage.status.code(), Some(64));
}
