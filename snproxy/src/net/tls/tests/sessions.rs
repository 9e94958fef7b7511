//! Which sessions are resumed, and until when: the times are given.

use rustls::{Connection, HandshakeKind};

use super::verifier::year;
use super::*;

/// Gives one end what the other one has to say.
fn tell(from: &mut Connection, to: &mut Connection) {
    let mut said = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut said).unwrap();
    }
    let mut said = &said[..];
    while !said.is_empty() {
        to.read_tls(&mut said).unwrap();
        to.process_new_packets().unwrap();
    }
}

/// How a handshake of the two goes, at a time.
fn shake(server: &ServerConfig, client: &ClientConfig, now: SystemTime) -> HandshakeKind {
    let name = ServerName::try_from("pod").unwrap();
    let client = ClientConnection::new(client.config_at(now), name).unwrap();
    let server = ServerConnection::new(server.config_at(now)).unwrap();
    let (mut near, mut far) = (client.into(), server.into());
    for _ in 0..4 {
        tell(&mut near, &mut far);
        tell(&mut far, &mut near);
    }
    assert_eq!(near.handshake_kind(), far.handshake_kind());
    let is_known = far
        .peer_certificates()
        .is_some_and(|chain| !chain.is_empty());
    assert!(is_known, "who it is");
    far.handshake_kind().unwrap()
}

#[test]
fn a_session_is_resumed_for_five_minutes() {
    let pki = pki();
    let texts = pki.texts(&pki.issue("pod", 2020, 2090));
    let now = SystemTime::now();
    let client = client_config(&texts, UpstreamVerify::Ca, &[], now).unwrap();
    let peers = peer_configs(&texts, true, now).unwrap();
    let server = server_config(&texts, ClientVerify::Require, &[], now).unwrap();
    for (server, client) in [(&*server, &*client), (&*peers.server, &*peers.client)] {
        let shake = |minutes: u64, seconds| {
            let after = Duration::from_secs(minutes * 60 + seconds);
            shake(server, client, now + after)
        };
        assert_eq!(shake(0, 0), HandshakeKind::Full);
        assert_eq!(shake(0, 1), HandshakeKind::Resumed);
        assert_eq!(shake(4, 59), HandshakeKind::Resumed);
        assert_eq!(shake(5, 0), HandshakeKind::Full);
        assert_eq!(shake(5, 1), HandshakeKind::Resumed);
        // A clock that was wrong.
        assert_eq!(shake(0, 0), HandshakeKind::Full);
    }
}

#[test]
fn a_session_is_resumed_however_many_others_came_meanwhile() {
    /// Two sessions each are more than a server of rustls keeps by itself.
    const OTHERS: usize = 140;
    let pki = pki();
    let texts = pki.texts(&pki.issue("pod", 2020, 2090));
    let now = SystemTime::now();
    let client = || client_config(&texts, UpstreamVerify::Ca, &[], now).unwrap();
    let ported = server_config(&texts, ClientVerify::Require, &[], now).unwrap();
    let peers = peer_configs(&texts, false, now).unwrap();
    for server in [&*ported, &*peers.server] {
        let (one, others) = (client(), client());
        assert_eq!(shake(server, &one, now), HandshakeKind::Full);
        for _ in 0..OTHERS {
            shake(server, &others, now);
        }
        assert_eq!(shake(server, &one, now), HandshakeKind::Resumed);
    }
}

#[test]
fn the_end_of_an_authority_is_the_end_of_sessions() {
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(year(2030).as_secs());
    let (old, new) = (authority("old", 2020, 2030), pki());
    let (cert, key) = old.issue("pod", 2020, 2090);
    let both = format!("{}{}", old.ca, new.ca);
    let texts = texts(Some(&both), Some(&cert), Some(&key));
    let read = SystemTime::now();
    let server = server_config(&texts, ClientVerify::Optional, &[], read).unwrap();
    let client = client_config(&texts, UpstreamVerify::Ca, &[], read).unwrap();
    let before = ends - Duration::from_secs(1);
    let is_same = |now| {
        let server = Arc::ptr_eq(&server.config_at(before), &server.config_at(now));
        let client = Arc::ptr_eq(&client.config_at(before), &client.config_at(now));
        (server, client)
    };
    assert_eq!(is_same(ends), (true, true));
    assert_eq!(is_same(ends + Duration::from_secs(1)), (false, false));
}

#[test]
fn sessions_of_one_set_of_certificates_are_none_of_another() {
    let (pki, now) = (pki(), SystemTime::now());
    let [first, second] = [(); 2].map(|()| pki.texts(&pki.issue("pod", 2020, 2090)));
    let client = client_config(&first, UpstreamVerify::Ca, &[], now).unwrap();
    let server = |texts, verify| server_config(texts, verify, &[], now).unwrap();
    let one = server(&first, ClientVerify::Require);
    for other in [
        server(&first, ClientVerify::Optional),
        server(&second, ClientVerify::Require),
    ] {
        shake(&one, &client, now);
        assert_eq!(shake(&one, &client, now), HandshakeKind::Resumed);
        assert_eq!(shake(&other, &client, now), HandshakeKind::Full);
    }
}
