//! Programs that rewrite the files while snproxy reads them, in the ways in which programs do.

use rustix::process::Signal;
use snproxy_tests::{Attempt, Ca, Ended, Ending, Host, Net, Pod, TlsConn, eventually};
use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::{self, sleep},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(15);
const MAPPINGS: &str = "portmappings.conf";

/// Connections per second.
const RATE: u32 = 300;

/// How a program replaces a file.
#[derive(Clone, Copy, Debug)]
enum Way {
    Rename,
    InPlace,
    Symlink,
    /// It waits after the truncation.
    Truncated,
    /// It waits in the middle.
    Halves,
    /// It waits before the close.
    Open,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::Rename,
        Self::InPlace,
        Self::Symlink,
        Self::Truncated,
        Self::Halves,
        Self::Open,
    ];

    fn write(self, host: &Host, file: &str, text: &str, random: &mut fastrand::Rng) {
        let pause = Duration::from_millis(random.u64(0..16));
        let cut = match self {
            Self::Rename => {
                host.replace(file, text);
                return;
            }
            Self::InPlace => {
                host.overwrite(file, text);
                return;
            }
            Self::Symlink => {
                link(host, file, text);
                return;
            }
            Self::Truncated => 0,
            Self::Halves => random.usize(1..text.len()),
            Self::Open => text.len(),
        };
        let mut writer = File::create(host.folder().join(file)).expect("a file");
        let (before, after) = text.as_bytes().split_at(cut);
        writer.write_all(before).expect("one part");
        sleep(pause);
        writer.write_all(after).expect("the other part");
    }
}

/// Makes a file a link to a fresh one in another folder: who writes it in place later writes there.
fn link(host: &Host, file: &str, text: &str) {
    let versions = host.folder().join("versions");
    fs::create_dir_all(&versions).expect("a folder");
    let version = tempfile::Builder::new().tempfile_in(&versions);
    let (_, version) = version.expect("a file").keep().expect("a file");
    fs::set_permissions(&version, Permissions::from_mode(0o644)).expect("a mode");
    fs::write(&version, text).expect("a version");
    let draft = host.folder().join("draft");
    symlink(&version, &draft).expect("a link");
    fs::rename(&draft, host.folder().join(file)).expect("a link in place");
}

/// A line that does nothing, as long as others.
fn comments(number: u32, lines: usize) -> String {
    format!("# version {number} of this file\n").repeat(lines)
}

/// Each version of a file: what comes last is the same in all of them.
fn version(file: &str, number: u32) -> String {
    let comments = comments(number, 8);
    let added = 2000 + number % 1000;
    match file {
        MAPPINGS => format!("{added}:30000:9:false\n{comments}1024:30000:9000:false\n"),
        "hosts.conf" => format!("10.77.0.1:32767\n{comments}10.77.0.2:32767\n"),
        _ => format!(
            r#"{{"Apps":[{{"Name":"n{number}","Ports":[{}],"Targets":["10.77.0.1:30001"]}},
                {{"Name":"app","Ports":[4000],"Targets":["10.77.0.1:30001"]}}]}}"#,
            5000 + number % 1000
        ),
    }
}

fn is_served(host: &Host, port: u16) -> bool {
    let Attempt::Connected(conn) = host.attempt(port) else {
        return false;
    };
    conn.rest(SOON) == (b"a\n".to_vec(), Ended::Eof)
}

#[test]
fn no_connection_fails_in_500_rewrites_of_each_kind() {
    let net = Net::hosts(["a", "b"]);
    rewrite_under_load(&net, 500);
}

/// The kernel tells the owner of a file who writes it; others know from inotify alone.
#[test]
fn proxy_of_another_user_reads_whole_files() {
    let net = Net::hosts(["a", "b"]);
    net.host("a").as_user(65534, &["bpf", "net_admin"]);
    rewrite_under_load(&net, 60);
}

/// Rewrites the files of host `a`, so many times in each way, while clients open ports of all files.
fn rewrite_under_load(net: &Net, rewrites: u32) {
    let (host, other) = (net.host("a"), net.host("b"));
    host.pod(30000, Pod::answering_once("a"));
    host.pod(30001, Pod::answering_once("a"));
    other.pod(30000, Pod::answering_once("a"));
    other.mappings("3000:30000:9000:false\n").start();
    let files = [MAPPINGS, "hosts.conf", "config.json"];
    for file in files {
        host.replace(file, &version(file, 0));
    }
    // A port of the pod on the other host, one of a mapping, one of an app.
    let ports = [1024, 3000, 4000];
    host.conf("APPSCONF", "config.json").start();
    for port in ports {
        eventually(SOON, "each port is served", || is_served(host, port));
    }

    let over = AtomicBool::new(false);
    let load = || {
        let start = Instant::now();
        let (mut served, mut lost) = (0, Vec::new());
        while !over.load(Relaxed) {
            for port in ports {
                if !is_served(host, port) {
                    lost.push((port, start.elapsed()));
                }
                served += 1;
                let due = Duration::from_secs(2) * served / RATE;
                sleep(due.saturating_sub(start.elapsed()));
            }
        }
        (served, lost)
    };
    let results = thread::scope(|scope| {
        let ending = Ending(&over);
        let loads = [(), ()].map(|()| scope.spawn(load));
        let mut random = fastrand::Rng::with_seed(9);
        for number in 1..=rewrites {
            for way in Way::ALL {
                let file = files[random.usize(..files.len())];
                way.write(host, file, &version(file, number), &mut random);
                sleep(Duration::from_millis(random.u64(0..10)));
            }
        }
        drop(ending);
        loads.map(|load| load.join().expect("a load"))
    });
    let served: u32 = results.iter().map(|(served, _)| served).sum();
    let lost: Vec<_> = results.iter().flat_map(|(_, lost)| lost).collect();
    assert!(
        lost.is_empty(),
        "of {served} lost: {lost:?}\n{}",
        host.log()
    );
    assert!(
        served > 2 * rewrites,
        "only {served} connections under load"
    );

    // A stream of changes held nothing up, and the last version is the one in force.
    assert!(host.count("/generation") > u64::from(rewrites / 20));
    for file in files {
        Way::Rename.write(host, file, &version(file, 7), &mut fastrand::Rng::new());
    }
    eventually(SOON, "the last version is in force", || {
        is_served(host, 2007)
    });
    assert!(!host.log().contains("lost all"), "{}", host.log());
}

#[test]
fn emptied_file_is_read_a_second_time() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering_once("a"));
    let text = "1024:30000:900:false\n1025:30000:900:false\n";
    host.mappings(text).start();

    // Back within the second: nothing happened.
    host.overwrite(MAPPINGS, "");
    sleep(Duration::from_millis(600));
    assert!(is_served(host, 1024));
    host.overwrite(MAPPINGS, text);
    sleep(Duration::from_millis(600));
    assert!(is_served(host, 1024));
    assert_eq!(host.count("/generation"), 1);

    // It stays empty: what it says counts, and the log says how much went.
    let start = Instant::now();
    host.overwrite(MAPPINGS, "");
    eventually(SOON, "the port is refused", || host.action(1024) == "pass");
    assert!(start.elapsed() > Duration::from_secs(1));
    let warning = "portmappings.conf: warning: lost all mappings (2)";
    assert!(host.log().contains(warning), "{}", host.log());
    assert!(
        host.status()["reload"]["diagnostics"]
            .to_string()
            .contains("lost all mappings (2)")
    );
    host.mappings(text);
    eventually(SOON, "it is served again", || is_served(host, 1024));
    assert_eq!(
        host.status()["reload"]["diagnostics"]
            .as_array()
            .map(Vec::len),
        Some(0)
    );
}

#[test]
fn file_without_its_eof_line_waits_for_a_second() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering_once("a"));
    host.mappings("1024:30000:900:false\n1025:30000:900:false\n### EOF\n")
        .start();

    // By two programs, of which the first one closes a half.
    host.overwrite(MAPPINGS, "1025:30000:900:false\n");
    sleep(Duration::from_millis(600));
    assert!(is_served(host, 1024));
    let text = "1025:30000:900:false\n1024:30000:900:false\n1026:30000:900:false\n### EOF\n";
    host.overwrite(MAPPINGS, text);
    eventually(SOON, "the whole file is in force", || is_served(host, 1026));
    assert!(is_served(host, 1024));
    assert!(!host.log().contains("lost its last line"), "{}", host.log());

    host.overwrite(MAPPINGS, "1025:30000:900:false\n");
    eventually(SOON, "the file counts after a second", || {
        host.action(1024) == "pass"
    });
    assert!(is_served(host, 1025));
    let warning = "portmappings.conf: warning: lost its last line `### EOF`";
    assert!(host.log().contains(warning), "{}", host.log());
    // From here on the file ends as it likes.
    host.mappings("1024:30000:900:false\n");
    eventually(SOON, "the next one is in force", || is_served(host, 1024));
}

#[test]
fn reload_reports_a_file_that_is_being_written() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering_once("a"));
    host.mappings("1024:30000:900:false\n").start();

    // A writer of half a second: the command waits for it, and so does a hangup.
    let path = host.folder().join(MAPPINGS);
    for added in [1025, 1026] {
        let mut writer = File::create(&path).expect("a file");
        host.signal(Signal::HUP);
        let output = thread::scope(|scope| {
            scope.spawn(move || {
                sleep(Duration::from_millis(500));
                let text = format!("1024:30000:900:false\n{added}:30000:9:false\n");
                writer.write_all(text.as_bytes()).expect("the text");
            });
            host.reload()
        });
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(is_served(host, 1024) && is_served(host, added));
    }

    // A writer that goes on and on.
    let mut writer = File::create(&path).expect("a file");
    let over = AtomicBool::new(false);
    let output = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                writer.write_all(b"# more\n").expect("a line");
                sleep(Duration::from_millis(50));
            }
        });
        let output = host.reload();
        assert!(is_served(host, 1024) && is_served(host, 1026));
        over.store(true, Relaxed);
        output
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let error = "portmappings.conf: error: another program is writing this file";
    assert!(text.contains(error), "{text}");
    writer
        .write_all(b"\n1024:30000:900:false\n")
        .expect("the end");
    drop(writer);
    eventually(SOON, "the whole file is in force", || {
        host.action(1026) == "pass"
    });
    assert!(is_served(host, 1024));
    assert_eq!(host.status()["reload"]["ok"], true);
}

#[test]
fn key_and_certificate_are_replaced_one_after_the_other() {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering_once("a"));
    let ca = Ca::new("the authority");
    let names = ["pod.example"];
    let folder = host.folder().join("tls");
    let client = ca.issue(&names);
    client.write_folder(&folder);
    host.conf("CLIENTTLS", "1024 tls")
        .mappings("1024:30000:900:false\n")
        .start();
    let shown = || {
        let conn = TlsConn::connect(host.open(1024), client.client(), names[0]);
        conn.expect("a handshake").peer()
    };
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..10 {
        let (pair, before) = (ca.issue(&names), shown());
        let files = [("key.pem", &pair.key), ("cert.pem", &pair.cert)];
        for (file, text) in files {
            let mut writer = File::create(folder.join(file)).expect("a file");
            let (one, two) = text.as_bytes().split_at(random.usize(..text.len()));
            writer.write_all(one).expect("one part");
            sleep(Duration::from_millis(random.u64(0..60)));
            assert!(shown().is_some(), "round {round}");
            writer.write_all(two).expect("the other part");
            drop(writer);
            // The pair does not fit for a while.
            sleep(Duration::from_millis(random.u64(0..300)));
        }
        eventually(SOON, "the next certificate is shown", || shown() != before);
    }
    let kept = "the last good certificates stay in use";
    assert!(!host.log().contains(kept), "{}", host.log());
    // A pair that stays wrong is reported.
    let key = ca.issue(&names).key;
    fs::write(folder.join("key.pem"), key).expect("a key");
    eventually(SOON, "the wrong pair is reported", || {
        host.log().contains(kept)
    });
    assert!(shown().is_some());
}
