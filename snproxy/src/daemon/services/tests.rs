use super::*;
use crate::net::etcd::Changes;

const SRV: &str = "/srv/redis";

fn kv(own: &str, value: &str) -> KeyValue {
    KeyValue {
        key: format!("{SRV}/{own}").into_bytes(),
        value: value.into(),
        revision: 0,
        lease: 0,
    }
}

fn all(own: &[&str]) -> News {
    News::All(Snapshot {
        kvs: own.iter().map(|own| kv(own, "")).collect(),
        revision: 7,
        cluster: "1".to_owned(),
    })
}

fn changed(events: Vec<Event>) -> News {
    News::Changed(Changes {
        events,
        revision: 8,
    })
}

fn lost() -> News {
    News::Lost(EtcdError::NoLease { id: 1 }, None)
}

fn nodes(services: &Services) -> String {
    let known = services.lock();
    let nodes = known[SRV].nodes.as_ref().unwrap();
    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    nodes.join(" ")
}

#[test]
fn nodes_are_in_the_order_of_their_keys_and_what_is_no_address_is_left_out() {
    let services = Services::default();
    let keys = [
        "10.0.0.2:80",
        "[fd00::1]:80",
        "10.0.0.10:80",
        "[::ffff:10.0.0.3]:80",
        "10.0.0.4:0",
        "b.example:80",
        "10.0.0.5:80/more",
        "",
    ];
    assert!(services.take(SRV, all(&keys)));
    assert_eq!(
        nodes(&services),
        "10.0.0.10:80 10.0.0.2:80 10.0.0.3:80 [fd00::1]:80"
    );
    let status = services.status().remove(0);
    assert_eq!((status.nodes, status.ignored), (Some(4), 4));
    let snapshot = services.snapshot(SRV).unwrap();
    assert_eq!((snapshot.revision, &*snapshot.cluster), (7, "1"));
}

#[test]
fn only_other_nodes_are_news() {
    let services = Services::default();
    assert!(services.take(SRV, all(&["10.0.0.1:80"])));
    // A read after a compaction, a refreshed key, another value, a key that is no node.
    assert!(!services.take(SRV, all(&["10.0.0.1:80"])));
    let put = |own, value| changed(vec![Event::Put(kv(own, value))]);
    let delete = |own: &str| {
        let key = kv(own, "").key;
        changed(vec![Event::Delete { key, revision: 8 }])
    };
    assert!(!services.take(SRV, put("10.0.0.1:80", "x")));
    assert!(!services.take(SRV, put("nonsense", "")));
    assert!(!services.take(SRV, delete("nonsense")));
    assert!(!services.take(SRV, delete("10.0.0.9:80")));
    assert!(services.take(SRV, put("10.0.0.2:80", "")));
    assert!(services.take(SRV, delete("10.0.0.1:80")));
    assert_eq!(nodes(&services), "10.0.0.2:80");
    assert!(services.take(SRV, delete("10.0.0.2:80")));
    assert_eq!(nodes(&services), "");
}

#[test]
fn what_was_known_goes_on_while_etcd_is_away() {
    let services = Services::default();
    assert!(!services.take(SRV, lost()));
    let status = services.status().remove(0);
    assert_eq!((status.nodes, status.stale_ms.is_some()), (None, true));
    assert!(services.snapshot(SRV).is_none());
    // The first answer is news even where it is empty: the list is known now.
    assert!(services.take(SRV, all(&[])));
    assert!(services.take(SRV, all(&["10.0.0.1:80"])));
    assert!(!services.take(SRV, lost()));
    assert_eq!(nodes(&services), "10.0.0.1:80");
    let status = services.status().remove(0);
    assert_eq!(status.why_stale.unwrap(), "lease 1 is gone");
    assert!(!services.take(SRV, all(&["10.0.0.1:80"])));
    assert_eq!(services.status()[0].stale_ms, None);
}
