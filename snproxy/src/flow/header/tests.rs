use std::io::Write;

use tokio::net::TcpListener;

use super::*;
use crate::wire::proxy_v2;

const V1: &[u8] = b"PROXY TCP4 10.0.0.9 10.0.0.1 40000 1024\r\n";

/// What a pod that wants `send` hears of a peer that sends `before` behind its request, then `after`.
async fn heard(send: SendProxy, before: &[u8], after: &[u8]) -> Vec<u8> {
    first(send, false, before, after).await.0
}

/// The same, and how much of it is known to be a header.
async fn first(
    send: SendProxy,
    tell_header: bool,
    before: &[u8],
    after: &[u8],
) -> (Vec<u8>, usize) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let accepted = Stream::new(accepted.into_std().unwrap()).unwrap();
    peer.write_all(after).unwrap();
    peer.shutdown(std::net::Shutdown::Write).unwrap();
    let relay = Relay {
        cluster_port: ClusterPort::new(1024).unwrap(),
        id: 7,
        wait: Duration::from_millis(50),
        send,
        tell_header,
    };
    match relay.decide(&accepted, before.into()).await {
        First::Bytes {
            bytes,
            read,
            header,
        } => {
            assert!((before.len()..=before.len() + after.len()).contains(&read));
            (bytes.to_vec(), header)
        }
        First::Reset => panic!("nobody reset"),
    }
}

#[tokio::test]
async fn a_v1_header_becomes_v2_for_a_pod_that_wants_that_wherever_it_is_cut() {
    let mut expected = BytesMut::new();
    let tlvs = Tlvs {
        cluster_port: ClusterPort::new(1024),
        unique_id: UniqueId::new(b"0000000000000007"),
    };
    let Ok(Decoded::Done {
        value: Some(header),
        ..
    }) = proxy::decode(V1)
    else {
        panic!("a v1 header");
    };
    proxy_v2::encode(&header, &tlvs, &mut expected);
    expected.extend_from_slice(b"payload");
    let sent = [V1, b"payload"].concat();
    for cut in 0..=sent.len() {
        let (before, after) = sent.split_at(cut);
        let heard = heard(SendProxy::V2, before, after).await;
        // What came after the header may be left for the pump.
        let len = heard.len().max(expected.len() - b"payload".len());
        assert_eq!(heard, expected[..len], "cut at {cut}");
    }
}

#[tokio::test]
async fn whatever_else_a_peer_sends_reaches_the_pod_as_it_came() {
    let mut v2 = BytesMut::new();
    proxy_v2::encode_local(&mut v2);
    for (send, sent) in [
        (SendProxy::V2, &v2[..]),
        (SendProxy::V2, b"PROX"),
        (SendProxy::V2, b"PROXIMITY"),
        (SendProxy::V2, b"GET / HTTP/1.0\r\n\r\n"),
        (SendProxy::V2, b""),
        (SendProxy::V1, V1),
        (SendProxy::V1, b"PROX"),
        (SendProxy::No, V1),
        (SendProxy::No, b""),
    ] {
        assert_eq!(heard(send, sent, b"").await, sent, "{send:?}");
    }
}

#[tokio::test]
async fn where_a_header_ends_is_told_to_whom_it_matters() {
    let sent = [V1, b"payload"].concat();
    for (send, tell_header, header) in [
        (SendProxy::V1, true, V1.len()),
        (SendProxy::V1, false, 0),
        (SendProxy::V2, true, V1.len()),
        (SendProxy::V2, false, V1.len()),
        // None was sent: what looks like one is payload.
        (SendProxy::No, true, 0),
    ] {
        let (bytes, told) = first(send, tell_header, &sent, b"").await;
        assert_eq!(told, header, "{send:?}");
        assert!(bytes.ends_with(b"payload"));
        assert!(send == SendProxy::V2 || bytes == sent);
    }
    let (bytes, told) = first(SendProxy::V1, true, b"GET /", b"").await;
    assert_eq!((&bytes[..], told), (&b"GET /"[..], 0));
}

#[tokio::test]
async fn a_header_that_names_nobody_stays_one() {
    let heard = heard(SendProxy::V2, b"PROXY UNKNOWN\r\nhi", b"").await;
    let mut local = BytesMut::new();
    proxy_v2::encode_local(&mut local);
    assert_eq!(heard, [&local[..], b"hi"].concat());
}
