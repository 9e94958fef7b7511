//! Sessions: keys that change in the middle of one, and who may resume one.

use super::{Ground, NAME, POD, PORT, SOON, tls_pod};
use snproxy_tests::{Ca, Noise, Pod, TlsConn, TlsEnded, eventually};
use std::{
    fs,
    process::Command,
    sync::atomic::AtomicU64,
    thread,
    time::{Duration, SystemTime},
};

/// So many bytes each way, with other keys after each part of them.
const BULK: usize = 16 << 20;
const PART: usize = 1 << 20;

#[test]
fn a_client_that_changes_its_keys_loses_no_byte() {
    let ground = Ground::terminating("", Pod::echo());
    ground.host().start();
    let noise = Noise::bytes(7, BULK);
    assert!(ground.tls().exchange(&noise, PART) == noise);
}

#[test]
fn an_upstream_that_changes_its_keys_loses_no_byte() {
    let ground = Ground::securing("");
    let echo = tls_pod(&ground.issued, |tls: &TlsConn| tls.echo(PART));
    ground.host().pod(POD, echo);
    ground.host().start();
    let conn = ground.host().open(PORT);
    let (sent, heard) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            Noise::new(7)
                .pour(conn.stream(), BULK as u64, &sent)
                .expect("pour");
            conn.half_close();
        });
        Noise::new(7)
            .hear(conn.stream(), BULK as u64 + 1, &heard)
            .is_whole(BULK as u64);
    });
}

#[test]
fn openssl_changes_its_keys_while_much_comes_and_goes() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.start();
    // A line that begins with k or K is a command if it is read alone: new keys, and with K new ones of the other side.
    let script = format!(
        "(for round in 1 2 3 4 5 6; do seq 1 100000; sleep 0.5; echo K; sleep 0.5; seq 1 100000; sleep 0.5; echo k; sleep 0.5; done; sleep 2) | \
         timeout 60 openssl s_client -connect {} -servername {NAME} -CAfile tls/ca.pem -cert tls/cert.pem -key tls/key.pem \
         -verify_return_error -quiet -no_ign_eof -tls1_3 -msg -msgfile messages",
        host.port(PORT)
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(host.folder());
    let told = ground.net.client().namespace().output(&mut command);
    let lines = (1..=100_000).map(|number| format!("{number}\n"));
    let numbers: Vec<u8> = lines.flat_map(String::into_bytes).collect();
    let error = String::from_utf8_lossy(&told.stderr);
    assert!(
        told.stdout == numbers.repeat(12),
        "{} bytes: {error}",
        told.stdout.len()
    );
    let messages = fs::read_to_string(host.folder().join("messages")).expect("messages");
    let changes = |way| {
        let lines = messages.lines().filter(|line| line.starts_with(way));
        lines.filter(|line| line.contains("KeyUpdate")).count()
    };
    assert_eq!((changes(">>>"), changes("<<<")), (12, 6), "{messages}");
}

/// What openssl says as a client of a port, and hears from it. `session` is for a file.
fn openssl(ground: &Ground, port: u16, session: &str, options: &str) -> String {
    let script = format!(
        "(echo hello; sleep 1) | timeout 20 openssl s_client -connect {} -servername {NAME} -no_ign_eof {session} {options} 2>&1",
        ground.host().port(port)
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &script])
        .current_dir(ground.host().folder());
    let told = ground.net.client().namespace().output(&mut command);
    String::from_utf8_lossy(&told.stdout).into_owned()
}

fn is_resumed(said: &str) -> bool {
    said.lines().any(|line| line.starts_with("Reused, "))
}

fn is_served(said: &str) -> bool {
    // It may come in the middle of what openssl says of a session.
    said.lines().any(|line| line.ends_with("hello"))
}

#[test]
fn a_session_is_resumed_where_it_began_and_nowhere_else() {
    const LAX: u16 = PORT + 1;
    const SHOWN: &str = "-cert mine/cert.pem -key mine/key.pem";

    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    ground.issued.write_folder(&ground.folder("mine"));
    host.mappings("1024:30000:900:false\n1025:30000:900:false\n")
        .conf("CLIENTTLS 1025", "tls verify=none")
        .start();
    for version in ["-tls1_2", "-tls1_3"] {
        let shown = format!("{SHOWN} {version}");
        let first = openssl(&ground, PORT, "-sess_out session", &shown);
        assert!(is_served(&first) && !is_resumed(&first), "{first}");
        let again = openssl(&ground, PORT, "-sess_in session", &shown);
        assert!(is_served(&again) && is_resumed(&again), "{again}");

        // A session of nobody in particular.
        let lax = openssl(&ground, LAX, "-sess_out lax", version);
        assert!(is_served(&lax), "{lax}");
        let nobody = openssl(&ground, PORT, "-sess_in lax", version);
        assert!(!is_served(&nobody) && !is_resumed(&nobody), "{nobody}");

        // Who was believed is not any more.
        let first = openssl(&ground, PORT, "-sess_out session", &shown);
        assert!(is_served(&first), "{first}");
        let before = ground.tls().peer();
        let other = Ca::new("another authority").issue(&[NAME]);
        other.write_folder(&ground.folder("tls"));
        eventually(SOON, "it is the other one", || {
            let conn = TlsConn::connect(host.open(PORT), other.client(), NAME);
            conn.is_ok_and(|conn| conn.peer() != before)
        });
        let late = openssl(&ground, PORT, "-sess_in session", &shown);
        assert!(!is_served(&late) && !is_resumed(&late), "{late}");
        ground.issued.write_folder(&ground.folder("tls"));
        eventually(SOON, "the first one is back", || {
            ground.open(&ground.issued).is_ok()
        });
    }
}

#[test]
fn an_authority_ends_while_the_proxy_runs() {
    const BOTH: u16 = PORT + 1;

    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    let ends = SystemTime::now() + Duration::from_secs(20);
    let short = Ca::until("short-lived", ends);
    let of_short = short.issue(&[NAME]).believing(&ground.ca);
    ground
        .issued
        .clone()
        .believing(&short)
        .write_folder(&ground.folder("tls"));
    ground.issued.write_folder(&ground.folder("both"));
    let both = format!("{}{}", short.pem(), ground.ca.pem());
    fs::write(ground.folder("both").join("ca.pem"), both).expect("two authorities");
    host.mappings("1024:30000:900:false\n1025:30000:900:false\n")
        .conf("CLIENTTLS 1025", "both")
        .start();
    let client = of_short.client();
    let is_served = |port, client| {
        let conn = TlsConn::connect(host.open(port), client, NAME);
        conn.is_ok_and(|conn| conn.half_close().ended() == TlsEnded::Closed)
    };
    assert!(is_served(PORT, client.clone()) && is_served(BOTH, client.clone()));
    let old = TlsConn::connect(host.open(PORT), client.clone(), NAME).expect("a handshake");
    if let Ok(left) = (ends + Duration::from_secs(2)).duration_since(SystemTime::now()) {
        thread::sleep(left);
    }
    // Nor is a session resumed, of which the client has some.
    assert!(!is_served(PORT, client.clone()) && !is_served(BOTH, client.clone()));
    assert!(is_served(BOTH, ground.issued.client()));
    assert_eq!(old.send("goes on").read(7), b"goes on");
    host.snproxy().wait_for_line(
        SOON,
        "the authority CN=short-lived expired, and no other is left",
    );
    host.snproxy()
        .wait_for_line(SOON, "its certificates are believed no more");
    ground.issued.write_folder(&ground.folder("tls"));
    eventually(SOON, "another one is there", || {
        is_served(PORT, ground.issued.client())
    });
}
