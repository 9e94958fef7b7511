//! PROXY headers over two hosts: the caller adds or strips, and the pod hears of the true client.

use super::start_all;
use snproxy_tests::{Conn, Net, Pod};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const TOLD: u16 = 1024;
const PLAIN: u16 = 1025;
const TOLD_V2: u16 = 1026;

/// Hosts a and b; b has three pods, which record what they hear.
fn cluster() -> (Net, [Pod; 3]) {
    let net = Net::hosts(["a", "b"]);
    let b = net.host("b");
    let pods = [30000, 30001, 30002].map(|port| b.pod(port, Pod::recording()));
    b.mappings("1024:30000:99:true 1025:30001:99:false 1026:30002:99:v2\n");
    start_all(&net);
    (net, pods)
}

/// Client and opened address of the PROXY header, and what comes behind it.
fn decode(bytes: &[u8]) -> (SocketAddr, SocketAddr, Vec<u8>) {
    if let Some(rest) = bytes.strip_prefix(SIGNATURE) {
        assert_eq!(rest[..2], [0x21, 0x11], "a PROXY command over IPv4");
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let address = |ip: usize, port: usize| {
            let octets: [u8; 4] = rest[ip..ip + 4].try_into().expect("four bytes");
            let port = u16::from_be_bytes([rest[port], rest[port + 1]]);
            SocketAddr::from((Ipv4Addr::from(octets), port))
        };
        return (address(4, 12), address(8, 14), rest[4 + length..].to_vec());
    }
    let end = bytes
        .iter()
        .position(|&byte| byte == b'\n')
        .expect("a line");
    let line = String::from_utf8_lossy(&bytes[..end]);
    let fields: Vec<_> = line.trim_end().split(' ').collect();
    let ["PROXY", "TCP4" | "TCP6", client, asked, from, to] = fields[..] else {
        panic!("{line}");
    };
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let port = |text: &str| text.parse::<u16>().expect("a port");
    (
        SocketAddr::new(ip(client), port(from)),
        SocketAddr::new(ip(asked), port(to)),
        bytes[end + 1..].to_vec(),
    )
}

#[test]
fn a_pod_of_another_host_hears_of_the_true_client() {
    let (net, pods) = cluster();
    let a = net.host("a");
    for (port, pod) in [(TOLD, &pods[0]), (TOLD_V2, &pods[2])] {
        let conn = a.open(port);
        conn.send("payload").half_close();
        let visit = pod.visit(0);
        visit.wait_for_end();
        let (client, asked, rest) = decode(&visit.first_bytes());
        assert_eq!(client, conn.local(), "port {port}");
        assert_eq!(asked, a.port(port), "port {port}");
        assert_eq!(rest, b"payload");
    }
    let conn = a.open(PLAIN);
    conn.send("payload").half_close();
    pods[1].visit(0).wait_for_end();
    assert_eq!(pods[1].visit(0).first_bytes(), b"payload");
}

#[test]
fn a_pod_of_another_host_hears_of_a_client_that_says_nothing() {
    let (net, pods) = cluster();
    let a = net.host("a");
    a.reloaded_after(|a| a.conf("PROXYWAIT", "200ms"));
    for (port, pod) in [(TOLD, &pods[0]), (TOLD_V2, &pods[2])] {
        let conn = a.open(port);
        let (client, asked, rest) = decode(&pod.visit(0).wait_for_bytes(1));
        assert_eq!((client, asked), (conn.local(), a.port(port)));
        assert!(rest.is_empty());
    }
}

#[test]
fn a_header_of_the_clients_own_is_forwarded_or_stripped() {
    let (net, pods) = cluster();
    let a = net.host("a");
    let v1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n".to_vec();
    let mut v2 = SIGNATURE.to_vec();
    v2.extend([
        0x21, 0x11, 0, 12, 192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 1, 0xbb,
    ]);
    let headers = [v1, v2];
    let sends = |conn: &Conn, pod: &Pod, header: &[u8], turn: usize| {
        conn.send([header, b"payload"].concat()).half_close();
        pod.visit(turn).wait_for_end();
        pod.visit(turn).first_bytes()
    };
    for (turn, header) in headers.iter().enumerate() {
        let heard = sends(&a.open(TOLD), &pods[0], header, turn);
        let forwarded = [&header[..], b"payload"].concat();
        assert_eq!(heard, forwarded, "{}", heard.escape_ascii());
        // As on one host: v1 becomes v2.
        let heard = sends(&a.open(TOLD_V2), &pods[2], header, turn);
        assert!(heard.starts_with(SIGNATURE), "{}", heard.escape_ascii());
        assert_eq!(decode(&heard), decode(&forwarded));
        let heard = sends(&a.open(PLAIN), &pods[1], header, turn);
        assert_eq!(heard, b"payload", "{}", heard.escape_ascii());
    }
}

#[test]
fn a_banner_first_pod_of_another_host_speaks_without_delay() {
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    b.pod(30000, Pod::banner("220 ready\r\n"));
    b.mappings("1024:30000:99:false 1025:30000:99:true\n");
    // Nothing may wait for PROXYWAIT here, however long it is.
    for host in [a, b] {
        host.conf("PROXYWAIT", "30s");
    }
    start_all(&net);
    for port in [1024, 1025] {
        assert_eq!(a.open(port).line(), "220 ready");
    }
}
