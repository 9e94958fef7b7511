use super::*;
use crate::conf::fixture::Texts;

fn host(number: usize, port: u16) -> Key {
    let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
    Key {
        host: SocketAddr::new([10, 1, high, low].into(), port),
        block: None,
    }
}

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

#[test]
fn hosts_outside_targetnets_are_left_out_unless_listed() {
    let mut known = Known::default();
    for addr in [
        "10.0.0.2:32767",
        "169.254.169.254:32767",
        "[fe80::2]:32767",
        "[64:ff9b::a9fe:a9fe]:32767",
    ] {
        let key = Key::decode(addr).unwrap();
        assert_eq!(known.directory.put(key, b"1 x").1, Ok(()));
    }
    let mut texts = Texts {
        hosts: "10.0.0.1:32767\n",
        ..Texts::default()
    };
    let conf = texts.conf();
    assert_eq!(further(&known, &conf), ["10.0.0.2:32767"]);
    assert_eq!(known.left_out(&conf).len(), 3);
    known.report_left_out(&conf);
    known.report_left_out(&conf);
    assert_eq!(known.said.len(), 3);
    // What stands in hosts.conf is the operator's word.
    texts.hosts = "10.0.0.1:32767\n169.254.169.254:32767\n";
    let conf = texts.conf();
    assert_eq!(conf.other_hosts().count(), 1);
    assert_eq!(known.left_out(&conf).len(), 2);
    texts.proxy = "TARGETNETS any\n";
    assert_eq!(known.left_out(&texts.conf()), []);
}

#[test]
fn hosts_that_come_and_go_are_bounded() {
    let mut known = Known::default();
    let texts = Texts {
        hosts: "10.0.0.1:32767\n",
        ..Texts::default()
    };
    let conf = texts.conf();
    for round in 0..3 {
        let hosts = || (0..MAX_HOSTS).map(|at| host(round * MAX_HOSTS + at, 32767));
        for key in hosts() {
            assert_eq!(known.directory.put(key, b"1 x").1, Ok(()));
        }
        known.note_publishing();
        assert_eq!(known.further(&conf).len(), MAX_HOSTS);
        for key in hosts() {
            known.directory.delete(key, None);
        }
        known.note_publishing();
        assert_eq!(known.left.len(), MAX_HOSTS);
        assert_eq!(known.further(&conf).len(), MAX_HOSTS);
    }
}
