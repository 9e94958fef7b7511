//! Certificates: what is wrong, in which file; and others in their place while connections go on.

use super::{Ground, NAME, SOON};
use snproxy_tests::{Pod, eventually};
use std::{
    fs,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_hours(24);

#[test]
fn a_proxy_does_not_start_with_bad_certificates() {
    let ground = Ground::terminating("verify=require", Pod::echo());
    let host = ground.host();
    let good = &ground.issued;
    let other = ground.ca.issue(&[NAME]);
    let future = SystemTime::now() + DAY * 2;
    let early = ground.ca.issue_for(&[NAME], future..future + DAY);
    let bad_pem = good.cert.replace("-----END", "-----ENDE");
    for (file, text, why) in [
        ("cert.pem", None, "no such file"),
        ("ca.pem", None, "no such file"),
        ("cert.pem", Some(""), "no certificate in it"),
        ("cert.pem", Some(bad_pem.as_str()), "bad PEM: "),
        ("key.pem", Some(""), "no private key in it"),
        (
            "key.pem",
            Some(&other.key),
            "the key does not fit the certificate in ",
        ),
        (
            "cert.pem",
            Some(&ground.ca.issue_expired(&[NAME]).cert),
            "the certificate of CN=pod.example expired on ",
        ),
        (
            "cert.pem",
            Some(&early.cert),
            "the certificate of CN=pod.example is not valid before ",
        ),
    ] {
        good.write_folder(&ground.folder("tls"));
        let path = ground.folder("tls").join(file);
        match text {
            None => fs::remove_file(&path).expect("a file"),
            Some(text) => fs::write(&path, text).expect("a file"),
        }
        let process = host.launch();
        let status = process.wait(SOON);
        let log = process.log();
        assert_eq!(status.code(), Some(2), "{file} {why}: {log}");
        assert!(
            log.contains(why) && log.contains(file),
            "{file} {why}: {log}"
        );
        assert_eq!(host.run(&["check"]).status.code(), Some(2), "{file} {why}");
    }
    good.write_folder(&ground.folder("tls"));
    host.start();
    ground.tls().send("hello").read(5);
}

#[test]
fn bad_ones_later_change_nothing_but_are_said() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.start();
    fs::write(ground.folder("tls").join("cert.pem"), "nothing").expect("a file");
    let says = || host.status()["reload"]["diagnostics"].to_string();
    let kept = "no certificate in it: the last good certificates stay in use";
    eventually(SOON, "the bad one is in status", || says().contains(kept));
    assert!(host.log().contains(kept));
    ground.tls().send("hello").read(5);
    // What else the files say is not held up.
    host.mappings("1024:30000:900:false\n1025:30000:900:false\n");
    eventually(SOON, "another port is served", || {
        host.action(1025) == "steer"
    });
    ground.issued.write_folder(&ground.folder("tls"));
    eventually(SOON, "all is well again", || !says().contains(kept));
}

#[test]
fn they_are_replaced_while_other_files_are_bad() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.start();
    let next = || {
        let before = ground.tls().peer();
        ground.ca.issue(&[NAME]).write_folder(&ground.folder("tls"));
        eventually(SOON, "the next one is shown", || {
            ground.tls().peer() != before
        });
    };
    host.mappings("1024:30000:900:perhaps\n");
    eventually(SOON, "it is not used", || {
        host.status()["reload"]["ok"] == false
    });
    next();
    next();
    // A set of another port that is none, and the one in force is in the files no more.
    host.mappings("1024:30000:900:false\n")
        .conf("CLIENTTLS", "1024 nowhere");
    let says = || host.status()["reload"]["diagnostics"].to_string();
    eventually(SOON, "nor is that", || says().contains("no such file"));
    next();
    next();
    assert_eq!(host.status()["reload"]["ok"], false);
    assert!(
        host.status()["certificates"]
            .to_string()
            .contains("tls/cert.pem")
    );
    host.conf("CLIENTTLS", "1024 tls");
    eventually(SOON, "all is well again", || {
        host.status()["reload"]["ok"] == true
    });
    next();
}

#[test]
fn they_are_replaced_while_good_files_wait() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.conf("CONFLICT", "fail").start();
    let next = |folder: &str| {
        let before = ground.tls().peer();
        ground
            .ca
            .issue(&[NAME])
            .write_folder(&ground.folder(folder));
        eventually(SOON, "the next one is shown", || {
            ground.tls().peer() != before
        });
    };
    let program = host.pod(1025, Pod::answering("program"));
    ground.ca.issue(&[NAME]).write_folder(&ground.folder("new"));
    host.mappings("1024:30000:900:false\n1025:30000:900:false\n")
        .conf("CLIENTTLS", "1024 new");
    let says = || host.status()["reload"].to_string();
    eventually(SOON, "the files wait", || says().contains("1025"));
    assert_eq!(host.status()["reload"]["waiting"], true);
    next("tls");
    // What is tried again with each tick does not bring the old one back.
    let now = ground.tls().peer();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(ground.tls().peer(), now);
    next("tls");
    assert_eq!(host.status()["reload"]["waiting"], true);

    let old = ground.tls().peer();
    program.stop();
    eventually(SOON, "the new one is shown", || ground.tls().peer() != old);
    next("new");
}

#[test]
fn others_take_their_place_under_load() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.start();
    let old = ground.tls();
    assert_eq!(old.send("before").read(6), b"before");
    let first = old.peer();
    let second = ground.ca.issue(&[NAME]);
    let (stop, made) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    assert_eq!(ground.tls().send("hello").read(5), b"hello");
                    made.fetch_add(1, Relaxed);
                }
            });
        }
        let some = |count: u64| {
            let before = made.load(Relaxed);
            eventually(SOON, "connections are made", || {
                made.load(Relaxed) >= before + count
            });
        };
        some(5);
        second.write_folder(&ground.folder("tls"));
        eventually(SOON, "new connections see the new certificate", || {
            ground.tls().peer() != first
        });
        // A link that points elsewhere, as in a folder that Kubernetes fills.
        let third = ground.ca.issue(&[NAME]);
        third.write_folder(&ground.folder("next"));
        let swapped = ground.tls().peer();
        for name in ["ca.pem", "key.pem", "cert.pem"] {
            let link = ground.folder("tls").join(format!(".link-{name}"));
            std::os::unix::fs::symlink(ground.folder("next").join(name), &link).expect("a link");
            fs::rename(link, ground.folder("tls").join(name)).expect("in its place");
        }
        eventually(SOON, "and the one that links lead to", || {
            ground.tls().peer() != swapped
        });
        some(5);
        stop.store(true, Relaxed);
    });
    assert_eq!(old.send("after").read(5), b"after");
    assert_eq!(host.ends("tls_client"), 0);
}

#[test]
fn the_last_day_is_shown_and_spoken_of() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    let now = SystemTime::now();
    let soon = ground.ca.issue_for(&[NAME], now - DAY..now + DAY * 5);
    soon.write_folder(&ground.folder("tls"));
    host.start();
    let line = "the certificate of CN=pod.example expires on ";
    eventually(SOON, "it is in the log", || host.log().contains(line));
    let status = host.status();
    let all = status["certificates"].as_array().expect("a list");
    let own = all
        .iter()
        .find(|one| one["subject"] == "CN=pod.example")
        .expect("its own");
    let left = own["seconds_left"].as_i64().expect("seconds");
    assert!((4 * 24 * 3600..=5 * 24 * 3600).contains(&left), "{own}");
    let told = host.run(&["status"]);
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(text.contains("(4 days left)"), "{text}");
}
