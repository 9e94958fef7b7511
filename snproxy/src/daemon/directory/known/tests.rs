use super::*;
use crate::conf::fixture::Texts;

fn further(known: &Known, conf: &Conf) -> Vec<String> {
    let further = known.further(conf);
    further.iter().map(|(_, addr)| addr.to_string()).collect()
}

#[test]
fn a_host_at_a_cluster_port_is_none_unless_the_files_say_so() {
    let mut known = Known::default();
    for addr in [
        "10.0.0.1:32767",
        "10.0.0.1:8080",
        "10.0.0.3:8080",
        "10.0.0.3:32767",
        "10.0.0.4:32000",
    ] {
        let key = Key::decode(addr).unwrap();
        assert_eq!(known.directory.put(key, b"1 x").1, Ok(()));
    }
    let mut texts = Texts {
        hosts: "10.0.0.1:32767\n",
        ..Texts::default()
    };
    let conf = texts.conf();
    assert_eq!(further(&known, &conf), ["10.0.0.3:32767", "10.0.0.4:32000"]);
    known.say_for_clients(&conf);
    let said: Vec<&str> = known.said.iter().map(String::as_str).collect();
    assert_eq!(said, ["10.0.0.1:8080", "10.0.0.3:8080"]);
    // PORT itself may be one.
    texts.proxy = "PORT 8080\nHOST 10.0.0.1\n";
    texts.hosts = "";
    let all = [
        "10.0.0.1:32767",
        "10.0.0.3:8080",
        "10.0.0.3:32767",
        "10.0.0.4:32000",
    ];
    assert_eq!(further(&known, &texts.conf()), all);

    texts.proxy = "";
    texts.hosts = "10.0.0.1:32767\n10.0.0.3:8080\n";
    let conf = texts.conf();
    assert_eq!(conf.other_hosts().count(), 1);
    assert_eq!(further(&known, &conf), ["10.0.0.3:32767", "10.0.0.4:32000"]);
}
