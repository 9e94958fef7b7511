//! Certificates from a bucket: fetched at the start, looked at again, and kept while the bucket has none.

use snproxy_tests::{Ca, Conn, Host, Issued, Net, Pod, S3, TlsConn, eventually};
use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

const SOON: Duration = Duration::from_secs(15);
/// How often S3 is asked.
const RENEWAL: Duration = Duration::from_mins(1);
const PORT: u16 = 1024;
const NAME: &str = "pod.example";

fn put(server: &S3, host: &Host, prefix: &str, issued: &Issued) {
    for (name, text) in [
        ("ca.pem", &issued.ca),
        ("cert.pem", &issued.cert),
        ("key.pem", &issued.key),
    ] {
        server.put(host.namespace(), &format!("{prefix}/{name}"), text);
    }
}

/// The variables of the server, with these in place of its own.
fn believe(host: &Host, server: &S3, instead: &[(&str, &str)]) {
    let variables = server.variables();
    for (name, value) in &variables {
        host.env(name, value);
    }
    for (name, value) in instead {
        host.env(name, value);
    }
}

fn open(host: &Host, issued: &Issued) -> TlsConn {
    let conn: Conn = host.open(PORT);
    TlsConn::connect(conn, issued.client(), NAME).expect("a handshake")
}

/// Starts a proxy with a certificate in the bucket, and opens a connection.
fn serve(host: &Host, server: &S3, issued: &Issued) -> TlsConn {
    put(server, host, "some/where", issued);
    believe(host, server, &[]);
    host.pod(30000, Pod::echo());
    host.mappings("1024:30000:900:false\n")
        .conf("CLIENTTLS", "1024 s3://certificates/some/where")
        .start();
    open(host, issued)
}

#[test]
fn a_certificate_that_is_replaced_in_the_bucket_is_shown_from_then_on() {
    let net = Net::one();
    let host = net.host("host");
    let server = S3::start(host.namespace());
    let ca = Ca::new("the authority");
    let [first, second] = [(); 2].map(|()| ca.issue(&[NAME]));
    let old = serve(host, &server, &first);
    let shown = old.peer();
    old.send("hello\n");
    assert_eq!(old.read(6), b"hello\n");
    let status = host.status().to_string();
    assert!(
        status.contains("s3://certificates/some/where/cert.pem"),
        "{status}"
    );

    put(&server, host, "some/where", &second);
    assert!(host.reload().status.success());
    let new = open(host, &first);
    assert_ne!(new.peer(), shown, "the second certificate");
    old.send("goes on\n");
    assert_eq!(old.read(8), b"goes on\n");

    // What is not there, or is none, changes nothing.
    server.delete(host.namespace(), "some/where/key.pem");
    host.reload();
    host.snproxy()
        .wait_for_line(SOON, "the last good certificates stay in use");
    assert!(host.log().contains("some/where/key.pem"), "{}", host.log());
    assert_eq!(open(host, &first).peer(), new.peer());
    put(&server, host, "some/where", &first);
    assert!(host.reload().status.success());
    assert_eq!(open(host, &first).peer(), shown);
    assert!(server.log().contains(" 304 "), "asked by etag");
}

#[test]
fn a_certificate_that_is_replaced_is_seen_at_the_next_look() {
    let net = Net::one();
    let host = net.host("host");
    let server = S3::start(host.namespace());
    let ca = Ca::new("the authority");
    let [first, second] = [(); 2].map(|()| ca.issue(&[NAME]));
    let old = serve(host, &server, &first);
    put(&server, host, "some/where", &second);
    // Nobody says so: S3 is asked once a minute.
    eventually(RENEWAL * 2, "the second certificate", || {
        open(host, &first).peer() != old.peer()
    });
    old.send("goes on\n");
    assert_eq!(old.read(8), b"goes on\n");
}

#[test]
fn what_cannot_be_had_is_said_at_the_start() {
    let net = Net::one();
    let host = net.host("host");
    let server = S3::start(host.namespace());
    let ca = Ca::new("the authority");
    put(&server, host, "tls", &ca.issue(&[NAME]));
    let big = "-".repeat(2 << 20);
    server.put(host.namespace(), "big/ca.pem", &big);
    for (place, instead, expected) in [
        (
            "certificates/nothing",
            ("AWS_REGION", "eu-central-1"),
            "--> s3://certificates/nothing/cert.pem",
        ),
        (
            "forbidden/tls",
            ("AWS_REGION", "eu-central-1"),
            "forbidden (AccessDenied",
        ),
        (
            "certificates/tls",
            ("AWS_SECRET_ACCESS_KEY", "wrong"),
            "forbidden (SignatureDoesNotMatch",
        ),
        (
            "certificates/tls",
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"),
            "Connection refused",
        ),
        (
            "certificates/tls",
            ("AWS_ENDPOINT_URL_S3", "nowhere"),
            "AWS_ENDPOINT_URL_S3 `nowhere` is no http:// or https:// address",
        ),
        (
            "certificates/big",
            ("AWS_REGION", "eu-central-1"),
            "larger than 1048576 bytes",
        ),
    ] {
        host.conf("CLIENTTLS", &format!("1024 s3://{place}"));
        believe(host, &server, &[instead]);
        let checked = host.namespace().output(
            host.command()
                .arg("check")
                .arg("--conf")
                .arg(host.conf_file()),
        );
        let said = String::from_utf8_lossy(&checked.stdout).into_owned()
            + &String::from_utf8_lossy(&checked.stderr);
        assert_eq!(checked.status.code(), Some(2), "{place}: {said}");
        assert!(said.contains(expected), "{place}: {said}");
    }
}

#[test]
fn a_set_that_could_not_be_had_at_a_reload_is_tried_again() {
    let net = Net::one();
    let host = net.host("host");
    let server = S3::start(host.namespace());
    let ca = Ca::new("the authority");
    let [first, second] = [(); 2].map(|()| ca.issue(&[NAME]));
    put(&server, host, "first", &first);
    let big = "-".repeat(2 << 20);
    server.put(host.namespace(), "second/ca.pem", &big);
    believe(host, &server, &[]);
    host.pod(30000, Pod::echo());
    host.mappings("1024:30000:900:false\n")
        .conf("CLIENTTLS", "1024 s3://certificates/first")
        .start();
    let shown = open(host, &first).peer();
    host.conf("CLIENTTLS", "1024 s3://certificates/second");
    host.snproxy()
        .wait_for_line(SOON, "larger than 1048576 bytes");
    assert_eq!(open(host, &first).peer(), shown);
    put(&server, host, "second", &second);
    // S3 is asked once a minute.
    eventually(RENEWAL * 2, "the bucket has it now", || {
        open(host, &first).peer() != shown
    });
}

/// What `snproxy check` prints, and how many bytes it took, of a store that answers with `head`, and `body` without end.
fn hostile(head: &str, body: &'static [u8]) -> (String, usize) {
    let net = Net::one();
    let host = net.host("host");
    let sent = Arc::new(AtomicUsize::new(0));
    let (head, counted) = (format!("{head}\r\n\r\n"), Arc::clone(&sent));
    let store = Pod::serving(move |guest| {
        let mut stream = guest.stream();
        let _ = stream.read(&mut [0; 16 * 1024]);
        let _ = stream.write_all(head.as_bytes());
        // No more than a gigabyte, were it taken.
        while !body.is_empty() && counted.load(Relaxed) < 1 << 30 {
            match stream.write(body) {
                Ok(len) => counted.fetch_add(len, Relaxed),
                Err(_) => return,
            };
        }
    });
    host.pod(9000, store);
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
        (
            "AWS_ENDPOINT_URL_S3",
            &format!("http://{}", host.port(9000)),
        ),
    ] {
        host.env(name, value);
    }
    host.mappings("1024:30000:900:false\n")
        .conf("CLIENTTLS", "1024 s3://bucket/tls");
    let mut check = host.command();
    check.arg("check").arg("--conf").arg(host.conf_file());
    let checked = host.namespace().output(&mut check);
    assert_eq!(checked.status.code(), Some(2));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let printed = text(&checked.stdout) + &text(&checked.stderr);
    (printed, sent.load(Relaxed))
}

#[test]
fn endless_answers_are_cut_at_a_bound() {
    // What fits into the buffers of both sockets is on its way as well.
    const MOST: usize = 64 << 20;
    const NOISE: &[u8] = &[b'x'; 64 * 1024];
    let error = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml";
    let (printed, sent) = hostile(error, NOISE);
    assert!(printed.contains("larger than 65536 bytes"), "{printed}");
    assert!(sent < MOST, "{sent} bytes");
    let object = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nLast-Modified: Tue, 01 Dec 2026 00:00:00 GMT";
    let (printed, sent) = hostile(&format!("{object}\r\nContent-Length: 900000000"), NOISE);
    assert!(printed.contains("larger than 1048576 bytes"), "{printed}");
    assert!(sent < MOST, "{sent} bytes");
}

#[test]
fn redirects_are_not_followed() {
    let (printed, _) = hostile(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0",
        b"",
    );
    let expected = "redirects are not followed (to http://169.254.169.254/)";
    assert!(printed.contains(expected), "{printed}");
}

#[test]
fn messages_of_a_store_steer_no_terminal() {
    let body = "<Error><Code>AccessDenied</Code><Message>a\u{1b}[31mb</Message></Error>";
    let head = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (printed, _) = hostile(&head, b"");
    assert!(!printed.contains('\u{1b}'), "{printed:?}");
    assert!(printed.contains("[31mb"), "{printed:?}");
}
