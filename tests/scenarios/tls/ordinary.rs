//! TLS of an ordinary server: a certificate and its key, clients without certificates, and CAs of the system.

use super::client::is_served;
use super::{Ground, NAME, POD, PORT, SOON, greeting};
use snproxy_tests::{Ca, Pod, TlsConn, eventually};
use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    process::Output,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_hours(24);

/// A client without a certificate.
fn nameless(ground: &Ground) -> io::Result<TlsConn> {
    let conn = ground.host().open(PORT);
    TlsConn::connect(conn, ground.issued.nameless_client(), NAME)
}

fn printed(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A port whose folder has no CA.
fn without_ca(options: &str) -> Ground {
    let ground = Ground::terminating(options, Pod::echo());
    fs::remove_file(ground.folder("tls").join("ca.pem")).expect("a file");
    ground
}

#[test]
fn server_without_ca_serves_silently() {
    for (cert, key) in [("cert.pem", "key.pem"), ("fullchain.pem", "privkey.pem")] {
        let ground = without_ca("");
        let at = |name: &str| ground.folder("tls").join(name);
        fs::rename(at("cert.pem"), at(cert)).expect("a file");
        fs::rename(at("key.pem"), at(key)).expect("a file");
        fs::set_permissions(at(key), fs::Permissions::from_mode(0o600)).expect("a mode");
        let host = ground.host();
        let checked = host.run(&["check"]);
        assert_eq!(checked.status.code(), Some(0), "{}", printed(&checked));
        assert!(
            !printed(&checked).contains("warning:"),
            "{}",
            printed(&checked)
        );
        host.start();
        assert!(is_served(&ground, nameless(&ground)), "{cert}");
        assert!(!host.log().contains("verify"), "{}", host.log());
    }
}

#[test]
fn removed_ca_keeps_client_verification() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    host.start();
    fs::remove_file(ground.folder("tls").join("ca.pem")).expect("a file");
    let said = || host.status()["reload"]["diagnostics"].to_string();
    eventually(SOON, "status reports it", || {
        said().contains("clients are verified by it")
    });
    assert!(!is_served(&ground, nameless(&ground)));
    ground.tls().send("hello").read(5);
    // The same set under other options has no state of its own to keep.
    host.conf("CLIENTTLS", "1024 tls alpn=h2");
    eventually(SOON, "the files are not used", || {
        host.status()["reload"]["ok"] == false
    });
    assert!(!is_served(&ground, nameless(&ground)));
    host.conf("CLIENTTLS", "1024 tls verify=none");
    eventually(SOON, "the operator ends it", || {
        host.status()["reload"]["ok"] == true && is_served(&ground, nameless(&ground))
    });
}

#[test]
fn added_ca_begins_client_verification() {
    let ground = without_ca("");
    ground.host().start();
    assert!(is_served(&ground, nameless(&ground)));
    ground.issued.write_folder(&ground.folder("tls"));
    eventually(SOON, "clients must show a certificate", || {
        !is_served(&ground, nameless(&ground))
    });
    ground.tls().send("hello").read(5);
}

#[test]
fn verify_without_ca_is_an_error() {
    for options in ["verify=require", "verify=optional", ""] {
        let ground = without_ca(options);
        if options.is_empty() {
            // A CA that a link promises is not one that the operator does without.
            symlink("nowhere.pem", ground.folder("tls").join("ca.pem")).expect("a link");
        }
        let process = ground.host().launch();
        assert_eq!(process.wait(SOON).code(), Some(2), "{}", process.log());
        assert!(process.log().contains("ca.pem"), "{}", process.log());
    }
}

#[test]
fn tls_server_requires_a_ca() {
    let ground = without_ca("");
    let host = ground.host();
    let mut command = host.command();
    command
        .args(["tls-server", "--src", ":6000", "--dst", "127.0.0.1:1"])
        .arg("--tlscertpath")
        .arg(ground.folder("tls"));
    let output = host.namespace().output(&mut command);
    assert_eq!(output.status.code(), Some(1), "{}", printed(&output));
    assert!(printed(&output).contains("ca.pem"), "{}", printed(&output));
}

#[test]
fn system_cas_are_trusted_without_warnings() {
    let ground = Ground::new();
    let host = ground.host();
    let old = Ca::until("an old root", SystemTime::now() - DAY);
    let bundle = host.folder().join("bundle.crt");
    let text = format!("# old\n{}\n# new\n{}", old.pem(), ground.ca.pem());
    fs::write(&bundle, text).expect("a file");
    host.env("SSL_CERT_FILE", &bundle.to_string_lossy());
    let value = format!("1024 system name={NAME} cert=tls/cert.pem key=tls/key.pem");
    // Down, it would be refused by the kernel.
    host.conf("UPSTREAMTLS", &value)
        .conf("HEALTH", "passive fails=1000");
    host.pod(POD, greeting(&ground.issued, "hello"));
    let mut check = host.command();
    check.arg("check").arg("--conf").arg(host.conf_file());
    let checked = host.namespace().output(&mut check);
    assert_eq!(checked.status.code(), Some(0), "{}", printed(&checked));
    assert!(
        !printed(&checked).contains("expire"),
        "{}",
        printed(&checked)
    );
    host.start();
    assert_eq!(host.open(PORT).read(5), b"hello");
    assert!(!host.log().contains("old root"), "{}", host.log());
    let other = Ca::new("another root");
    fs::write(&bundle, other.pem()).expect("a file");
    eventually(SOON, "the bundle is read again", || {
        let conn = host.attempt(PORT).connected();
        conn.is_some_and(|conn| conn.rest(Duration::from_millis(500)).0.is_empty())
    });
}

#[test]
fn key_that_others_can_read_is_a_warning() {
    let ground = Ground::terminating("", Pod::echo());
    let host = ground.host();
    let folder = tempfile::tempdir_in("/tmp").expect("a folder");
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode(folder.path(), 0o755);
    ground.issued.write_folder(folder.path());
    let key = folder.path().join("key.pem");
    mode(&key, 0o644);
    host.conf("CLIENTTLS", &format!("1024 {}", folder.path().display()));
    let warning = "all users of this host can read the private key (mode 0644)";
    let checked = printed(&host.run(&["check"]));
    assert!(checked.contains(warning), "{checked}");
    host.start();
    assert!(host.log().contains(warning), "{}", host.log());
    let reloaded = printed(&host.reload());
    assert!(reloaded.contains(warning), "{reloaded}");
    mode(&key, 0o600);
    let checked = printed(&host.run(&["check"]));
    assert!(!checked.contains(warning), "{checked}");
}
