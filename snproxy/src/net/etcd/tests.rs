use super::json::{Line, Ranged, Watched, range_end};

#[test]
fn a_range_ends_behind_the_last_key_of_its_prefix() {
    assert_eq!(range_end("/srv/").0, b"/srv0");
    assert_eq!(range_end("").0, [0]);
    assert_eq!(range_end("a\u{7f}").0, b"a\x80");
}

#[test]
fn answers_of_a_real_etcd_are_read() {
    let ranged: Ranged = serde_json::from_str(
        r#"{"header":{"cluster_id":"15118495548433857066","member_id":"13668033151171901709","revision":"2","raft_term":"2"},"kvs":[{"key":"L3Nydi9hLzEwLjAuMC4xOjE=","create_revision":"2","mod_revision":"2","version":"1","value":"eA=="}],"count":"1"}"#,
    )
    .unwrap();
    assert_eq!(ranged.kvs[0].key.0, b"/srv/a/10.0.0.1:1");
    assert_eq!(ranged.kvs[0].mod_revision.0, 2);
    let line: Line<Watched> = serde_json::from_str(
        r#"{"result":{"header":{"cluster_id":"1","revision":"3"},"events":[{"kv":{"key":"YQ==","mod_revision":"2","value":"eA=="}},{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"3"}}]}}"#,
    )
    .unwrap();
    assert_eq!(line.result.unwrap().events.len(), 2);
}
