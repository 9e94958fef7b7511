//! Kinds of certificates and keys that OpenSSL takes: they work, or the diagnostic names what does not.

use super::{Ground, NAME, PORT, SOON};
use snproxy_tests::{Pod, eventually};
use std::{io::Write, process::Command, time::Duration};

/// A CA of version 1 in `ca.pem`, and a request for pod.example with its key.
const REQUEST: &str = "
    curve='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
    openssl req $curve -subj /CN=authority -keyout ca-key.pem -out ca-req.pem
    openssl x509 -req -in ca-req.pem -signkey ca-key.pem -days 30 -out ca.pem
    openssl req $curve -subj /CN=pod.example -keyout key.pem -out req.pem
    sign() { openssl x509 -req -in req.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 30 \"$@\" -out cert.pem; }
";

/// Runs a script in the folder `tls`.
#[track_caller]
fn shell(ground: &Ground, script: &str) -> String {
    let mut command = Command::new("sh");
    command
        .args(["-ec", &format!("{{ {REQUEST} }} 2>/dev/null; {script}")])
        .current_dir(ground.folder("tls"));
    let output = ground.host().namespace().output(&mut command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{script}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn version_1_certificates_work_at_both_ends() {
    let ground = Ground::new();
    let host = ground.host();
    let text = shell(&ground, "sign; openssl x509 -in cert.pem -noout -text");
    assert!(text.contains("Version: 1 "), "{text}");
    host.mappings(
        "1024:30000:9:false\n1025:30001:9:false\n1026:30001:9:false\n1027:30001:9:false\n",
    )
    .conf("CLIENTTLS", "1024 tls")
    .conf("UPSTREAMTLS 1025", &format!("tls name={NAME}"))
    .conf("UPSTREAMTLS 1026", "tls name=other.example")
    .conf("UPSTREAMTLS 1027", "tls name=other.example verify=none");
    host.pod(30000, Pod::echo());
    host.start();
    for version in ["-tls1_2", "-tls1_3"] {
        let mut server = Command::new("openssl");
        server
            .args(["s_server", "-accept", "30001", "-rev", "-quiet", version])
            .args(["-cert", "cert.pem", "-key", "key.pem", "-CAfile", "ca.pem"])
            .args(["-Verify", "1", "-verify_return_error"])
            .current_dir(ground.folder("tls"));
        let server = host.namespace().server("s_server", &mut server, 30001);
        for port in [1025, 1027] {
            eventually(SOON, &format!("{version} {port}"), || {
                let conn = host.attempt(port).connected();
                conn.is_some_and(|conn| {
                    let sent = conn.stream().write_all(b"abc\n");
                    sent.is_ok() && conn.rest(Duration::from_secs(1)).0 == b"cba\n"
                })
            });
        }
        if let Some(conn) = host.attempt(1026).connected() {
            // The reset may be there already.
            let _ = conn.stream().write_all(b"abc\n");
            let (heard, _) = conn.rest(SOON);
            assert!(heard.is_empty(), "{version}: {heard:?}");
        }
        server.kill();
        let at = host.port(PORT);
        let client = |cert: &str| {
            let script = format!(
                "(echo hello; sleep 2) | timeout 20 openssl s_client -connect {at} -CAfile tls/ca.pem \
                 -cert {cert}/cert.pem -key {cert}/key.pem -verify_return_error -quiet -no_ign_eof {version} || true"
            );
            let mut command = Command::new("sh");
            command.args(["-c", &script]).current_dir(host.folder());
            let output = host.namespace().output(&mut command);
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(client("tls"), "hello\n", "{version}");
        // Another CA of the same name, whose certificates have version 1 too.
        std::fs::create_dir_all(host.folder().join("stranger")).expect("a folder");
        let script = format!("{{ cd ../stranger; {REQUEST} sign; }} 2>/dev/null");
        let mut command = Command::new("sh");
        command
            .args(["-ec", &script])
            .current_dir(ground.folder("tls"));
        assert!(host.namespace().output(&mut command).status.success());
        assert_eq!(client("stranger"), "", "{version}");
    }
    let log = || host.log();
    eventually(SOON, "the log says why", || {
        log().contains("a signature does not match") && log().contains("is for another name")
    });
}

#[test]
fn forms_of_files_that_openssl_takes_are_taken() {
    let ground = Ground::terminating("", Pod::echo());
    for script in [
        "sign; for f in cert key ca; do (printf '\\357\\273\\277'; sed 's/$/\\r/' $f.pem) > x; mv x $f.pem; done",
        "sign; cat ca.pem cert.pem > x; mv x cert.pem",
        "openssl ecparam -name secp384r1 -genkey -out key.pem; openssl req -new -key key.pem -subj /CN=a -out req.pem; \
         sign 2>/dev/null; grep -q 'BEGIN EC PARAMETERS' key.pem",
        "sign; sed -i 's/ CERTIFICATE/ X509 CERTIFICATE/' cert.pem",
        "sign; openssl x509 -in cert.pem -text > x; mv x cert.pem",
        "sign; openssl ec -in key.pem -out x; mv x key.pem; cat cert.pem >> key.pem",
    ] {
        shell(&ground, &format!("exec 2>/dev/null; {script}"));
        let checked = ground.host().run(&["check"]);
        let text = String::from_utf8_lossy(&checked.stderr).into_owned();
        assert_eq!(checked.status.code(), Some(0), "{script}: {text}");
    }
    ground.host().start();
}

#[test]
fn unsupported_kinds_are_named() {
    let ground = Ground::terminating("", Pod::echo());
    let own = |args: &str| {
        format!("openssl req -new {args} -nodes -subj /CN=a -keyout key.pem -out req.pem; sign")
    };
    for (script, file, expected) in [
        (
            own("-newkey ec -pkeyopt ec_paramgen_curve:P-521"),
            "key.pem",
            "found an ECDSA key on P-521; expected RSA with 2048 to 4096 bits",
        ),
        (own("-newkey rsa:1024"), "key.pem", "found an RSA key with 1024 bits; expected"),
        (own("-newkey rsa-pss"), "key.pem", "found an RSA-PSS key (id-RSASSA-PSS); expected"),
        (own("-newkey ed448"), "key.pem", "found an Ed448 key; expected"),
        (
            "sign; openssl pkcs8 -topk8 -in key.pem -passout pass:secret -out x; mv x key.pem".into(),
            "key.pem",
            "the private key is encrypted, and snproxy has no passphrase; decrypt it with `openssl pkey",
        ),
        (
            "sign; openssl ec -in key.pem -aes128 -passout pass:secret -out x; mv x key.pem".into(),
            "key.pem",
            "the private key is encrypted",
        ),
        (
            "sign; openssl x509 -in cert.pem -outform der -out x; mv x cert.pem".into(),
            "cert.pem",
            "expected PEM, found DER or PKCS#12; convert it with `openssl x509 -inform der",
        ),
        (
            "sign; openssl pkey -in key.pem -outform der -out x; mv x key.pem".into(),
            "key.pem",
            "expected PEM, found DER",
        ),
        (
            "sign; openssl x509 -in cert.pem -trustout -out x; mv x cert.pem".into(),
            "cert.pem",
            "a TRUSTED CERTIFICATE is OpenSSL's own form",
        ),
        (
            "sign; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-521 -nodes -subj /CN=big \
             -keyout x -out ca.pem"
                .into(),
            "ca.pem",
            "the CA CN=big has an ECDSA key on P-521; expected RSA with 2048 to 8192 bits",
        ),
    ] {
        shell(&ground, &format!("exec 2>/dev/null; {script}"));
        let checked = ground.host().run(&["check"]);
        let text = String::from_utf8_lossy(&checked.stderr).into_owned()
            + &String::from_utf8_lossy(&checked.stdout);
        assert_eq!(checked.status.code(), Some(2), "{script}: {text}");
        assert!(text.contains(expected) && text.contains(file), "{script}: {text}");
    }
}
