mod sessions;
mod verifier;

use std::net::{TcpListener, TcpStream};
use std::time::SystemTime;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

use super::*;
use crate::conf::{CertSource, CertTexts, ClientVerify, UpstreamVerify};
use crate::diag::Source;

const LIMIT: Duration = Duration::from_secs(20);

struct Pki {
    ca: String,
    issuer: Issuer<'static, KeyPair>,
}

fn pki() -> Pki {
    authority("ca", 2020, 2090)
}

/// Good from the first of January to the first of January.
fn authority(name: &str, first: i32, last: i32) -> Pki {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(first, 1, 1);
    params.not_after = date_time_ymd(last, 1, 1);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    Pki { ca, issuer }
}

impl Pki {
    /// Certificate and key, good from the first of January to the first of January.
    fn issue(&self, name: &str, first: i32, last: i32) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(first, 1, 1);
        params.not_after = date_time_ymd(last, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        (cert.pem(), key.serialize_pem())
    }

    fn texts(&self, (cert, key): &(String, String)) -> CertTexts {
        texts(Some(&self.ca), Some(cert), Some(key))
    }
}

fn texts(ca: Option<&str>, cert: Option<&str>, key: Option<&str>) -> CertTexts {
    let source = CertSource::Folder("/tls".into());
    let text = |name: &str, text: Option<&str>| {
        text.map(|text| Source {
            path: source.place_of(name).unwrap(),
            text: text.to_owned(),
        })
    };
    CertTexts {
        ca: text("ca", ca),
        cert: text("cert", cert),
        key: text("key", key),
        source: source.clone(),
    }
}

#[track_caller]
fn wrong(texts: &CertTexts) -> String {
    let now = SystemTime::now();
    let config = server_config(texts, ClientVerify::Require, &[], now);
    config.expect_err("it is fine").to_string()
}

#[test]
fn what_is_wrong_is_said_of_its_file() {
    let pki = pki();
    let good = pki.issue("pod", 2020, 2090);
    let (cert, key) = (good.0.as_str(), good.1.as_str());
    let (old, old_key) = pki.issue("pod", 2020, 2021);
    let (early, early_key) = pki.issue("pod", 2080, 2090);
    let other_key = pki.issue("pod", 2020, 2090).1;
    let ca = pki.ca.as_str();
    let half = cert.replace("-----END CERTIFICATE-----", "");
    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let no_base64 = "-----BEGIN CERTIFICATE-----\n#\n-----END CERTIFICATE-----\n";
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (ca, cert, key, expected) in [
        (None, Some(cert), Some(key), "ca.pem: error: no such file"),
        (Some(ca), None, Some(key), "cert.pem: error: no such file"),
        (Some(ca), Some(cert), None, "key.pem: error: no such file"),
        (Some(ca), None, None, "cert.pem: error: no such file"),
        (
            Some(ca),
            Some(""),
            Some(key),
            "cert.pem: error: no certificate in it",
        ),
        (
            Some(key),
            Some(cert),
            Some(key),
            "ca.pem: error: no certificate in it: it has a private key",
        ),
        (
            Some(ca),
            Some(cert),
            Some(cert),
            "key.pem: error: no private key in it",
        ),
        (
            Some(ca),
            Some(cert),
            Some(encrypted),
            "key.pem: error: the private key is encrypted, and snproxy has no passphrase; decrypt it with `openssl pkey -in /tls/key.pem -out FILE`",
        ),
        (
            Some(ca),
            Some(half.as_str()),
            Some(key),
            "cert.pem: error: bad PEM: a section has no END line",
        ),
        (
            Some(ca),
            Some(no_base64),
            Some(key),
            "cert.pem: error: bad PEM: a section is no base64",
        ),
        (
            Some(ca),
            Some(noise),
            Some(key),
            "cert.pem: error: a certificate in it is not valid X.509",
        ),
        (
            Some(ca),
            Some(cert),
            Some(other_key.as_str()),
            "key.pem: error: the key does not fit the certificate in /tls/cert.pem",
        ),
        (
            Some(ca),
            Some(old.as_str()),
            Some(old_key.as_str()),
            "cert.pem: error: the certificate of CN=pod expired on 2021-01-01",
        ),
        (
            Some(ca),
            Some(early.as_str()),
            Some(early_key.as_str()),
            "cert.pem: error: the certificate of CN=pod is not valid before 2080-01-01",
        ),
        (
            Some(old.as_str()),
            Some(cert),
            Some(key),
            "ca.pem: error: the certificate of CN=pod expired on 2021-01-01",
        ),
    ] {
        assert_eq!(wrong(&texts(ca, cert, key)), format!("/tls/{expected}"));
    }
    // Of several authorities one that is good is enough.
    let both = format!("{old}{ca}");
    let fine = texts(Some(&both), Some(cert), Some(key));
    assert!(server_config(&fine, ClientVerify::Require, &[], SystemTime::now()).is_ok());
}

#[test]
fn what_a_role_does_without_may_be_missing() {
    let pki = pki();
    let (cert, key) = pki.issue("pod", 2020, 2090);
    let now = SystemTime::now();
    let no_ca = texts(None, Some(&cert), Some(&key));
    assert!(server_config(&no_ca, ClientVerify::None, &[], now).is_ok());
    let ca_alone = texts(Some(&pki.ca), None, None);
    assert!(client_config(&ca_alone, UpstreamVerify::Ca, &[], now).is_ok());
    let nothing = texts(None, None, None);
    assert!(client_config(&nothing, UpstreamVerify::None, &[], now).is_ok());
    let none = client_config(&nothing, UpstreamVerify::Ca, &[], now).unwrap_err();
    assert_eq!(none.to_string(), "/tls/ca.pem: error: no such file");
    let half = texts(Some(&pki.ca), Some(&cert), None);
    let none = client_config(&half, UpstreamVerify::Ca, &[], now).unwrap_err();
    assert_eq!(none.to_string(), "/tls/key.pem: error: no such file");
}

#[test]
fn the_last_day_of_each_certificate_is_known() {
    let pki = pki();
    let shown: Vec<_> = certificates(&pki.texts(&pki.issue("pod", 2020, 2030)))
        .iter()
        .map(|one| (one.file.clone(), one.subject.clone(), one.last_day()))
        .collect();
    let one = |file: &str, subject: &str, day: &str| (file.into(), subject.into(), day.into());
    assert_eq!(
        shown,
        [
            one("/tls/ca.pem", "CN=ca", "2090-01-01"),
            one("/tls/cert.pem", "CN=pod", "2030-01-01"),
        ]
    );
}

fn pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    let stream = |socket: TcpStream| {
        socket.set_nonblocking(true).unwrap();
        Stream::new(socket).unwrap()
    };
    (stream(near), stream(far))
}

/// Two ends with a session between them; what each handshake came to.
async fn shaken(
    texts: &CertTexts,
    name: &str,
) -> (Stream, Stream, [Result<(), HandshakeError>; 2]) {
    let now = SystemTime::now();
    let server = server_config(texts, ClientVerify::Require, &[], now).unwrap();
    let client = client_config(texts, UpstreamVerify::Ca, &[], now).unwrap();
    let (mut near, mut far) = pair();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (connected, accepted) = tokio::join!(
        connect(&mut near, &client, name, LIMIT),
        accept(&mut far, &server, &[], LIMIT)
    );
    (near, far, [connected, accepted])
}

async fn read(stream: &Stream) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        match stream.try_read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            read => {
                bytes.truncate(read?);
                return Ok(bytes);
            }
        }
    }
}

#[tokio::test]
async fn bytes_come_out_as_they_went_in_however_small_the_reads_are() {
    let pki = pki();
    let texts = pki.texts(&pki.issue("pod", 2020, 2090));
    let (near, far, done) = shaken(&texts, "pod").await;
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    let sent: Vec<u8> = (0..1_000_000_u32).map(|at| at.to_le_bytes()[0]).collect();
    let writing = async {
        let mut rest = &sent[..];
        while !rest.is_empty() || near.unsent() > 0 {
            let wrote = if rest.is_empty() {
                near.try_flush().map(|()| 0)
            } else {
                near.try_write(rest)
            };
            match wrote {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    assert!(near.unsent() < 80 * 1024, "what is held is bounded");
                    near.writable().await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
        near.end();
    };
    let reading = async {
        let mut got = Vec::new();
        let mut sizes = [1, 7, 1024, 65_536].into_iter().cycle();
        loop {
            let mut bytes = vec![0; sizes.next().unwrap()];
            match far.try_read(&mut bytes) {
                Ok(0) => return got,
                Ok(count) => got.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    far.readable().await.unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    };
    let (got, ()) = tokio::join!(reading, writing);
    assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
    // The other direction is as open as it was.
    assert_eq!(far.try_write(b"still here").unwrap(), 10);
    assert_eq!(read(&near).await.unwrap(), b"still here");
}

#[tokio::test]
async fn a_fin_alone_is_no_end() {
    let pki = pki();
    let texts = pki.texts(&pki.issue("pod", 2020, 2090));
    let (near, far, _) = shaken(&texts, "pod").await;
    near.try_write(b"half").unwrap();
    near.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read(&far).await.unwrap(), b"half");
    let error = read(&far).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn who_refuses_says_why_and_the_other_one_hears_it() {
    let pki = pki();
    let texts = pki.texts(&pki.issue("pod", 2020, 2090));
    let (_, _, [connected, accepted]) = shaken(&texts, "another").await;
    let connected = connected.unwrap_err().to_string();
    assert!(connected.contains("not valid for name"), "{connected}");
    let accepted = accepted.unwrap_err().to_string();
    assert!(accepted.contains("received fatal alert"), "{accepted}");
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    let pki = pki();
    let texts = pki.texts(&pki.issue("pod", 2020, 2090));
    let now = SystemTime::now();
    let server = server_config(&texts, ClientVerify::Require, &[], now).unwrap();
    let (near, mut far) = pair();
    let limit = Duration::from_millis(50);
    let error = accept(&mut far, &server, b"\x16\x03\x01", limit).await;
    assert!(matches!(error, Err(HandshakeError::Timeout { .. })));
    drop(near);
}
