use std::io::{Read, Write};

use tokio::net::TcpListener;

use super::*;
use crate::conf::Conf;
use crate::conf::fixture::Texts;
use crate::flow::carry_to_end;

/// Far above what anything here takes: only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(20);

fn conf(mappings: &str) -> Arc<Conf> {
    conf_with("", mappings)
}

/// With more lines of proxy.conf.
fn conf_with(more: &str, mappings: &str) -> Arc<Conf> {
    let conf = Texts {
        proxy: &format!("HOST 10.0.0.1\nPODHOST 127.0.0.1\n{more}"),
        mappings,
        hosts: "10.0.0.1:32767\n",
        apps: None,
    };
    conf.conf()
}

fn shared(mappings: &str) -> Arc<Shared> {
    shared_by(conf(mappings))
}

fn shared_by(conf: Arc<Conf>) -> Arc<Shared> {
    let table = Table::build(conf, None, std::time::Instant::now());
    Arc::new(Shared::new(table, 1))
}

fn reload(shared: &Shared, mappings: &str) {
    let old = shared.table.load_full();
    let table = Table::build(conf(mappings), Some(&old), std::time::Instant::now());
    shared.table.store(Arc::new(table));
}

/// A peer's end, and the connection as it was accepted.
async fn pair() -> (std::net::TcpStream, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = listener.local_addr().unwrap();
    let peer = std::net::TcpStream::connect(asked).unwrap();
    peer.set_read_timeout(Some(LIMIT)).unwrap();
    let (accepted, addr) = listener.accept().await.unwrap();
    let client = Client {
        stream: Stream::new(accepted.into_std().unwrap()).unwrap(),
        addr,
        asked,
        id: 1,
    };
    (peer, client)
}

async fn answered(shared: &Arc<Shared>, mut accepted: Client) -> (Stated, Closed) {
    carry_to_end(shared, shared.table.load_full(), &mut accepted, true).await
}

fn count(port: u16) -> String {
    format!("PROXY TCP4 1.2.3.4 1.2.3.4 {port} 0\r\n")
}

/// All that came, once the other side has closed.
fn rest(mut peer: std::net::TcpStream) -> String {
    let mut got = String::new();
    peer.read_to_string(&mut got).unwrap();
    got
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_has_a_minute() {
    let (_peer, accepted) = pair().await;
    let start = Instant::now();
    let (_, closed) = answered(&shared(""), accepted).await;
    assert_eq!(closed.end, End::Unused);
    assert!((SILENCE..SILENCE + LINE_LIMIT).contains(&start.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_does_not_end_has_three_seconds() {
    let (mut peer, accepted) = pair().await;
    peer.write_all(&count(1024).as_bytes()[..20]).unwrap();
    let start = Instant::now();
    let (_, closed) = answered(&shared(""), accepted).await;
    assert_eq!(closed.end, End::Request);
    // No upper bound closer than this: a paused clock jumps while bytes are under way.
    assert!((LINE_LIMIT..SILENCE).contains(&start.elapsed()));
}

#[tokio::test]
async fn only_pods_that_can_take_connections_are_counted() {
    let shared = shared("1024:30000:1:false 1024:30001:5:v2 1024:30002:0:true 1025:30003:1:false");
    for (upstream, _) in shared.table.load().upstreams() {
        if upstream.addr.port() == 30001 {
            let client = [192, 0, 2, 1].into();
            shared.note_silence(upstream, 1024, client);
        }
    }
    let (mut peer, accepted) = pair().await;
    for port in [1024, 1025, 1026] {
        peer.write_all(count(port).as_bytes()).unwrap();
    }
    peer.shutdown(Shutdown::Write).unwrap();
    let (_, closed) = answered(&shared, accepted).await;
    assert_eq!(closed.end, End::Unused);
    assert_eq!(rest(peer), "PODS=1\r\nPODS=1\r\nPODS=0\r\n");
}

#[tokio::test]
async fn each_line_is_answered_from_the_table_of_its_time() {
    let shared = shared("");
    let (peer, accepted) = pair().await;
    let peer_side = tokio::task::spawn_blocking({
        let shared = Arc::clone(&shared);
        let mut peer = peer;
        move || {
            let mut got = [0; "PODS=0\r\n".len()];
            let mut answers = Vec::new();
            for mappings in [
                "",
                "1024:30000:1:false",
                "1024:30000:1:false 1024:30001:1:false",
            ] {
                reload(&shared, mappings);
                peer.write_all(count(1024).as_bytes()).unwrap();
                peer.read_exact(&mut got).unwrap();
                answers.push(String::from_utf8(got.to_vec()).unwrap());
            }
            answers
        }
    });
    answered(&shared, accepted).await;
    let answers = peer_side.await.unwrap();
    assert_eq!(answers, ["PODS=0\r\n", "PODS=1\r\n", "PODS=2\r\n"]);
}

#[tokio::test]
async fn a_line_that_came_before_the_drain_is_still_answered() {
    // With PEERTLS the first bytes are looked at before they are a line.
    for more in ["", "PEERTLS tls optional\n"] {
        let shared = shared_by(conf_with(more, "1024:30000:0:false"));
        let (mut peer, accepted) = pair().await;
        peer.write_all(b"PROXY TCP4 1.2.3.4 1.2.3.4 123 1024\r\nand payload")
            .unwrap();
        shared.waiting.close();
        let peer_side = tokio::task::spawn_blocking(move || rest(peer));
        let (said, closed) = answered(&shared, accepted).await;
        assert_eq!(closed.end, End::Busy, "{more}");
        assert_eq!(said.cluster_port, ClusterPort::new(1024));
        assert_eq!(peer_side.await.unwrap(), "BUSY\r\n");
    }
}

#[tokio::test]
async fn a_drain_waits_for_no_peer_that_counts_without_end() {
    let shared = shared("");
    let (mut peer, accepted) = pair().await;
    peer.write_all(count(1024).repeat(2).as_bytes()).unwrap();
    shared.waiting.close();
    let (_, closed) = answered(&shared, accepted).await;
    assert_eq!(closed.end, End::Unused);
    assert_eq!(rest(peer), "PODS=0\r\n");

    // Also not for one whose lines are never all there.
    let (mut peer, accepted) = pair().await;
    let peer_side = tokio::task::spawn_blocking(move || {
        let mut answers = String::new();
        let mut answer = [0; "PODS=0\r\n".len()];
        let until = Instant::now() + LIMIT;
        while Instant::now() < until
            && peer.write_all(count(1024).as_bytes()).is_ok()
            && peer.read_exact(&mut answer).is_ok()
        {
            answers.push_str(str::from_utf8(&answer).unwrap());
        }
        answers
    });
    let (_, closed) = answered(&shared, accepted).await;
    assert_eq!(closed.end, End::Unused);
    assert_eq!(peer_side.await.unwrap(), "PODS=0\r\n");
}

#[tokio::test]
async fn a_peer_that_takes_no_answers_is_given_up() {
    let shared = shared("");
    let (mut peer, accepted) = pair().await;
    let asks = tokio::task::spawn_blocking(move || {
        let lines = count(1024).repeat(1000);
        while peer.write_all(lines.as_bytes()).is_ok() {}
    });
    let (_, closed) = answered(&shared, accepted).await;
    assert_eq!(closed.end, End::Client);
    asks.await.unwrap();
}
