use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::error::Code;
use super::json::{Done, Failure, Leased, Line, Ranged, Watched, range_end};
use super::{Client, Etcd, EtcdError, Event, Follow, News, Part};

// Captured from etcd 3.4.23.
const RANGED: &str = r#"{"header":{"cluster_id":"15118495548433857066","member_id":"13668033151171901709","revision":"2","raft_term":"2"},"kvs":[{"key":"L3Nydi9hLzEwLjAuMC4xOjE=","create_revision":"2","mod_revision":"2","version":"1","value":"eA=="}],"count":"1"}"#;
const NOTHING: &str = r#"{"header":{"cluster_id":"15118495548433857066","member_id":"13668033151171901709","revision":"2","raft_term":"2"}}"#;
const LEASED: &str = r#"{"result":{"header":{"cluster_id":"15118495548433857066","member_id":"13668033151171901709","revision":"2","raft_term":"2"},"ID":"4111120156062696970","TTL":"5"}}"#;
const LEASE_GONE: &str = r#"{"result":{"header":{"cluster_id":"15118495548433857066","member_id":"13668033151171901709","revision":"2","raft_term":"2"},"ID":"4111120156062696970"}}"#;
const CREATED: &str = r#"{"result":{"header":{"cluster_id":"15118495548433857066","member_id":"13668033151171901709","revision":"3","raft_term":"2"},"created":true}}"#;
const EVENTS: &str = r#"{"result":{"header":{"cluster_id":"15118495548433857066","member_id":"13668033151171901709","revision":"3","raft_term":"2"},"events":[{"kv":{"key":"L3Nydi9hLzEwLjAuMC4xOjE=","create_revision":"2","mod_revision":"2","version":"1","value":"eA=="}},{"type":"DELETE","kv":{"key":"L3Nydi9hLzEwLjAuMC4xOjE=","mod_revision":"3"}}]}}"#;
const COMPACTED: &str = r#"{"result":{"header":{"cluster_id":"15118495548433857066","member_id":"13668033151171901709","raft_term":"2"},"canceled":true,"compact_revision":"8"}}"#;
const REFUSED: &str = r#"{"error":"etcdserver: requested lease not found","message":"etcdserver: requested lease not found","code":5}"#;

fn read<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_range_ends_behind_the_last_key_of_its_prefix() {
    assert_eq!(range_end("/srv/").0, b"/srv0");
    assert_eq!(range_end("").0, [0]);
    assert_eq!(range_end("a\u{7f}").0, b"a\x80");
}

#[test]
fn answers_of_a_real_etcd_are_read() {
    let ranged: Ranged = read(RANGED);
    assert_eq!(ranged.kvs[0].key.0, b"/srv/a/10.0.0.1:1");
    assert_eq!(
        (ranged.kvs[0].mod_revision.0, ranged.header.revision.0),
        (2, 2)
    );
    assert!(read::<Ranged>(NOTHING).kvs.is_empty());
    let leased = |text| read::<Line<Leased>>(text).result.unwrap();
    assert_eq!(
        (leased(LEASED).id.0, leased(LEASED).ttl.0),
        (4_111_120_156_062_696_970, 5)
    );
    assert_eq!(leased(LEASE_GONE).ttl.0, 0);
    let watched = |text| read::<Line<Watched>>(text).result.unwrap();
    assert!(watched(CREATED).created);
    let events: Vec<Event> = watched(EVENTS)
        .events
        .into_iter()
        .map(Event::from)
        .collect();
    assert!(
        matches!(&events[0], Event::Put(kv) if kv.value == b"x"),
        "{events:?}"
    );
    assert!(
        matches!(&events[1], Event::Delete { revision: 3, .. }),
        "{events:?}"
    );
    assert_eq!(watched(COMPACTED).compact_revision.0, 8);
    assert_eq!(Code::from(read::<Failure>(REFUSED).code), Code::NotFound);
}

#[test]
fn what_etcd_never_says_is_not_read() {
    for text in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"header":{}}"#,
        r#"{"header":{"cluster_id":"1"}}"#,
        r#"{"header":{"cluster_id":"1","revision":"x"}}"#,
        r#"{"header":{"cluster_id":"1","revision":"99999999999999999999"}}"#,
        r#"{"header":{"cluster_id":"1","revision":1.5}}"#,
    ] {
        assert!(serde_json::from_str::<Ranged>(text).is_err(), "{text}");
        assert!(serde_json::from_str::<Done>(text).is_err(), "{text}");
    }
    let in_range =
        |kvs: &str| format!(r#"{{"header":{{"cluster_id":"1","revision":"1"}},"kvs":{kvs}}}"#);
    for kvs in [
        "{}",
        r#"[{"key":"%"}]"#,
        r#"[{"key":"YQ"}]"#,
        r#"[{"key":7}]"#,
        r#"[{"mod_revision":"-"}]"#,
    ] {
        let text = in_range(kvs);
        assert!(serde_json::from_str::<Ranged>(&text).is_err(), "{text}");
    }
    // Every beginning of a good answer; as deep as nobody nests.
    for text in [RANGED, EVENTS, LEASED] {
        for end in 0..text.len() {
            assert!(serde_json::from_str::<Ranged>(&text[..end]).is_err());
            assert!(serde_json::from_str::<Line<Watched>>(&text[..end]).is_err());
        }
    }
    let deep = "[".repeat(100_000);
    assert!(serde_json::from_str::<Ranged>(&in_range(&deep)).is_err());
}

/// Somebody who answers each connection with these bytes; gives where.
async fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(bytes).await;
        }
    });
    url
}

#[tokio::test]
async fn who_is_no_member_of_etcd_is_left_for_the_next_one() {
    let good = b"HTTP/1.1 200 OK\r\nContent-Length: 47\r\n\r\n{\"header\":{\"cluster_id\":\"7\",\"revision\":\"9\"}}   ";
    let good = answering(good).await;
    for bytes in [
        &b""[..],
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{\"header\":",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno!",
        b"HTTP/1.1 503 no\r\nContent-Length: 39\r\n\r\n{\"code\":14,\"message\":\"etcd: no leader\"}",
        b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
    ] {
        let odd = answering(bytes).await;
        let shown = String::from_utf8_lossy(bytes);
        let alone = Arc::new(Client::new(&Etcd::parse(&odd).unwrap().0, None));
        let error = alone.read("/srv/", Part::Key).await.unwrap_err();
        assert!(error.is_of_member(), "{shown}: {error:?}");
        let both = Client::new(&Etcd::parse(&format!("{odd},{good}")).unwrap().0, None);
        let read = both.read("/srv/", Part::Key).await.unwrap();
        assert_eq!((read.revision, &*read.cluster), (9, "7"), "{shown}");
        assert_eq!(both.member(), good, "it stays with the one that answers");
    }
}

#[tokio::test]
async fn a_no_is_an_answer() {
    let no = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 52\r\n\r\n{\"code\":7,\"message\":\"etcdserver: permission denied\"}";
    let client = Client::new(&Etcd::parse(&answering(no).await).unwrap().0, None);
    let error = client.read("/srv/", Part::Key).await.unwrap_err();
    let EtcdError::Refused { code, message, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!(
        (code, &*message),
        (Code::PermissionDenied, "etcdserver: permission denied")
    );
}

#[tokio::test]
async fn where_no_watch_can_be_read_all_is_read_now_and_then() {
    for bytes in [
        // No line of a watch, and one that never ends.
        &b"HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n{\"header\":{\"cluster_id\":\"7\",\"revision\":\"9\"}}\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 45\r\n\r\n{\"header\":{\"cluster_id\":\"7\",\"revision\":\"9\"}} ",
    ] {
        let (etcd, _) = Etcd::parse(&answering(bytes).await).unwrap();
        let mut follow = Follow::new(Arc::new(Client::new(&etcd, None)), "/srv/", Part::Key);
        for _ in 0..3 {
            let news = timeout(Duration::from_mins(1), follow.next()).await;
            let news = news.expect("it goes on");
            assert!(matches!(&news, News::All(read) if read.revision == 9), "{news:?}");
        }
    }
}

#[test]
fn lists_have_a_bound() {
    let list = |element: &str, count: usize| vec![element; count].join(",");
    let ranged = |count: usize| {
        let kvs = list("{}", count);
        let text = format!(r#"{{"header":{{"cluster_id":"1","revision":"1"}},"kvs":[{kvs}]}}"#);
        serde_json::from_str::<Ranged>(&text).map(|ranged| ranged.kvs.len())
    };
    assert_eq!(ranged(4096).unwrap(), 4096);
    assert!(ranged(4097).is_err());
    let watched = |count: usize| {
        let text = format!(r#"{{"result":{{"events":[{}]}}}}"#, list("{}", count));
        serde_json::from_str::<Line<Watched>>(&text).map(|line| line.result.unwrap().events.len())
    };
    assert_eq!(watched(65_536).unwrap(), 65_536);
    assert!(watched(65_537).is_err());
}
