//! Parts of the way of a connection that touch no socket.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use bytes::BytesMut;
use snproxy::addr::ClusterPort;
use snproxy::route::service::{Asker, Tried};
use snproxy::wire::Decoded;
use snproxy::wire::peer::{self, Reply, Request};
use snproxy::wire::proxy::{self, ProxyHeader, Version};
use snproxy::wire::proxy_v2::{Tlvs, UniqueId};

use crate::table::{mappings, table};
use crate::{done, mark};

const OPERATIONS: u32 = 1000;
const PORT: u16 = 1024;

pub(crate) fn run() {
    for pods in [2, 256] {
        pick(pods);
    }
    let v4 = |last: u8, port| SocketAddr::new(Ipv4Addr::new(10, 0, 0, last).into(), port);
    let v6 = |last: u16, port| {
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        SocketAddr::new(IpAddr::V6(ip), port)
    };
    let families = [
        ("IPv4", ProxyHeader::new(v4(9, 51_234), v4(1, PORT))),
        ("IPv6", ProxyHeader::new(v6(9, 51_234), v6(1, PORT))),
    ];
    for (version, called) in [(Version::V1, "v1"), (Version::V2, "v2")] {
        for (family, header) in families {
            headers(version, &format!("{called}, {family}"), &header);
        }
    }
    lines(v4(9, 51_234), v4(1, PORT));
}

/// Counts `operation`, which is told how many were before it.
fn count(name: &str, mut operation: impl FnMut(u32)) {
    // What is done once only, by the first: lazy tables, room in buffers.
    operation(0);
    mark();
    for turn in 0..OPERATIONS {
        operation(turn);
    }
    mark();
    done(name, OPERATIONS);
}

fn pick(pods: u16) {
    let now = Instant::now();
    let table = table("", &mappings(PORT, pods));
    count(&format!("route lookup and pick, {pods} pods"), |turn| {
        // Any well spread bits; the same in every run.
        let random = u64::from(turn).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let service = table.service(black_box(PORT)).expect("it is mapped");
        let taken = service.take(Asker::default(), random, now, &mut Tried::default());
        assert!(black_box(&taken).is_ok(), "pods have room");
    });
}

fn headers(version: Version, called: &str, header: &ProxyHeader) {
    let id = b"0123456789abcdef";
    let tlvs = Tlvs {
        cluster_port: ClusterPort::new(PORT),
        unique_id: UniqueId::new(id),
    };
    let mut bytes = BytesMut::with_capacity(proxy::MAX_HEADER);
    count(&format!("PROXY header made, {called}"), |_| {
        bytes.clear();
        proxy::encode(version, black_box(header), black_box(&tlvs), &mut bytes);
    });
    count(&format!("PROXY header decoded, {called}"), |_| {
        let decoded = proxy::decode(black_box(&bytes));
        assert!(matches!(
            decoded,
            Ok(Decoded::Done { value: Some(found), .. }) if found == *header
        ));
    });
}

fn lines(client: SocketAddr, asked: SocketAddr) {
    let port = ClusterPort::new(PORT).expect("no port 0");
    let request = Request::connect(port, client, asked);
    let mut bytes = BytesMut::with_capacity(peer::MAX_LINE);
    count("request line made", |_| {
        bytes.clear();
        black_box(request).encode(&mut bytes);
    });
    count("request line decoded", |_| {
        let decoded = peer::decode_request(black_box(&bytes));
        assert!(matches!(decoded, Ok(Decoded::Done { value, .. }) if value == request));
    });
    bytes.clear();
    let reply = Reply::Accept { send_proxy: true };
    reply.encode(&mut bytes);
    count("answer decoded", |_| {
        let decoded = peer::decode_reply(black_box(&bytes));
        assert!(matches!(decoded, Ok(Decoded::Done { value, .. }) if value == reply));
    });
}
