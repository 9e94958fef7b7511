use proptest::prelude::*;

use super::*;

fn run(first: u16, last: u16, pods: u16, is_full: bool) -> Run {
    Run {
        first,
        last,
        serves: Serves { pods, is_full },
    }
}

#[test]
fn a_block_is_its_runs() {
    let text = "1\n1024-1030 2\n1031 1 full\n2047 65535\n";
    let runs = [
        run(1024, 1030, 2, false),
        run(1031, 1031, 1, true),
        run(2047, 2047, 65535, false),
    ];
    assert_eq!(&*decode_block(1, text.as_bytes()).unwrap(), runs);
    assert_eq!(encode_block(&runs), text);
    assert_eq!(&*decode_block(1, b"1\n").unwrap(), []);
}

#[test]
fn what_is_not_in_the_one_form_is_refused() {
    let bad: [&[u8]; 24] = [
        b"",
        b"1",
        b"2\n",
        b"1\n1024 1",
        b"1\r\n1024 1\r\n",
        b"1\n\n",
        b"1\n1024\n",
        b"1\n1024 0\n",
        b"1\n1024 01\n",
        b"1\n1024 +1\n",
        b"1\n1024 65536\n",
        b"1\n1024  1\n",
        b"1\n1024 1 \n",
        b"1\n1024 1 busy\n",
        b"1\n1024 1 full full\n",
        b"1\n1024-1024 1\n",
        b"1\n1025-1024 1\n",
        b"1\n1024-1026-1028 1\n",
        b"1\n1024 1\n1024 1\n",
        b"1\n1030 1\n1029 1\n",
        b"1\n1023 1\n",
        b"1\n2048 1\n",
        b"1\n2047-2048 1\n",
        b"1\n1024 1\n\xff",
    ];
    for value in bad {
        let text = value.escape_ascii();
        assert!(decode_block(1, value).is_err(), "{text}");
    }
    assert!(decode_block(0, b"1\n0 1\n").is_err());
    assert!(decode_block(1, &vec![b'1'; MAX_VALUE + 1]).is_err());
}

#[test]
fn a_key_has_one_form() {
    let key = |text: &str| Key::decode(text);
    for text in [
        "10.0.0.1:32767",
        "10.0.0.1:32767/0",
        "[fd00::1]:1/64512",
        "[fd00:1111:2222:3333:4444:5555:6666:7777]:65535/64512",
    ] {
        let read = key(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read.encode(), text);
    }
    for text in [
        "",
        "host:32767",
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:032767",
        "010.0.0.1:1",
        "0.0.0.0:1",
        "[::]:1",
        "224.0.0.1:1",
        "127.0.0.1:32767",
        "[::1]:32767",
        "[::ffff:10.0.0.1]:1",
        "[FD00::1]:1",
        "[fe80::1%2]:1",
        "10.0.0.1:1/",
        "10.0.0.1:1/1",
        "10.0.0.1:1/01024",
        "10.0.0.1:1/65536",
        "10.0.0.1:1/1024/",
    ] {
        assert!(key(text).is_err(), "{text}");
    }
}

#[test]
fn a_name_is_one_that_hosts_conf_may_have() {
    assert_eq!(
        decode_name(encode_name("host-a.local").as_bytes()),
        Ok("host-a.local")
    );
    assert_eq!(decode_name(b"1 fd00::1"), Ok("fd00::1"));
    let long = encode_name(&"a".repeat(MAX_NAME + 1));
    for value in ["", "1", "1 ", "2 a", "1 a b", "1 a\n", "1 \u{e4}", &long] {
        assert!(decode_name(value.as_bytes()).is_err(), "{value}");
    }
}

/// The ports of a block, each served in some way or not.
fn ports() -> impl Strategy<Value = Vec<Option<(u16, bool)>>> {
    let port = prop_oneof![
        4 => Just(None),
        4 => Just(Some((1, false))),
        1 => (1..=u16::MAX, any::<bool>()).prop_map(Some),
    ];
    prop::collection::vec(port, usize::from(BLOCK))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_read(block in 0..BLOCKS, ports in ports(), cut: prop::sample::Index) {
        let mut runs: Vec<Run> = Vec::new();
        for (port, serves) in (first_of(block)..=u16::MAX).zip(ports) {
            let Some((pods, is_full)) = serves.filter(|_| port > 0) else { continue };
            let serves = Serves { pods, is_full };
            match runs.last_mut() {
                Some(run) if run.last + 1 == port && run.serves == serves => run.last = port,
                _ => runs.push(Run { first: port, last: port, serves }),
            }
        }
        let text = encode_block(&runs);
        prop_assert!(text.len() <= MAX_VALUE);
        prop_assert_eq!(&*decode_block(block, text.as_bytes()).unwrap(), &*runs);
        // Cut anywhere but behind a line it is none.
        let end = cut.index(text.len());
        let cut = decode_block(block, &text.as_bytes()[..end]);
        prop_assert_eq!(cut.is_ok(), text[..end].ends_with('\n'));
    }

    #[test]
    fn nothing_that_is_written_there_panics(block in 0..BLOCKS, value in "(1\n)?([0-9]{0,6}[-]?[0-9]{0,6} ?[0-9]{0,6}( full)?\n?){0,8}", key in "[0-9.:\\[\\]a-f/%]{0,70}") {
        let _ = decode_block(block, value.as_bytes());
        let _ = decode_name(value.as_bytes());
        if let Ok(read) = Key::decode(&key) {
            prop_assert_eq!(read.encode(), key);
        }
    }
}
