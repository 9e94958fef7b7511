//! Bytes that nobody well-meaning sends.

use std::net::Ipv4Addr;

use super::*;

/// Decodes `bytes` cut at each of `cuts` in rising order. None panics or uses what it was not given; once
/// there is an answer, more bytes do not change it.
#[track_caller]
fn check_monotone(bytes: &[u8], cuts: impl IntoIterator<Item = usize>) {
    let mut answer = None;
    for cut in cuts {
        let text = bytes.escape_ascii();
        let decoded = decode(&bytes[..cut]);
        match (&decoded, &answer) {
            (decoded, Some(answer)) => assert_eq!(decoded, answer, "{text} cut at {cut}"),
            (Ok(Decoded::Partial), None) => {
                assert!(cut < MAX_HEADER, "{text} waits at {cut}");
            }
            (Ok(Decoded::Done { used, .. }), None) => {
                assert!(*used <= cut, "{text} cut at {cut}, used {used}");
                answer = Some(decoded);
            }
            (Err(_), None) => answer = Some(decoded),
        }
    }
}

#[test]
fn a_million_damaged_headers_are_answered_once_and_for_all() {
    let mut seeded = Seeded::new(2);
    let mut done = 0_u32;
    for _ in 0..10_000 {
        let good = seeded.header();
        for _ in 0..100 {
            let mut bytes = good.clone();
            seeded.damage(&mut bytes);
            let cut = seeded.below(bytes.len() + 1);
            check_monotone(&bytes, [cut, bytes.len()]);
            done += u32::from(matches!(decode(&bytes), Ok(Decoded::Done { .. })));
        }
    }
    // Damage that leaves nothing good, or nothing bad, would test one branch only.
    assert!(
        (50_000..950_000).contains(&done),
        "{done} of a million are good"
    );
}

#[test]
fn stripped_header_has_the_same_ends_and_no_identity() {
    let mut seeded = Seeded::new(11);
    let mut stripped = 0;
    for _ in 0..20_000 {
        let mut bytes = seeded.header();
        if seeded.below(2) == 0 {
            seeded.damage(&mut bytes);
        }
        let Ok(Decoded::Done { value, used }) = decode(&bytes) else {
            continue;
        };
        let header = &bytes[..used];
        let Some(kept) = strip_identity(header) else {
            continue;
        };
        stripped += 1;
        let text = header.escape_ascii();
        let used = kept.len();
        assert!(used < header.len(), "{text}");
        assert_eq!(decode(&kept), Ok(Decoded::Done { value, used }), "{text}");
        assert_eq!(strip_identity(&kept), None, "{text}");
    }
    // The cluster port of our own headers, and blocks of LOCAL.
    assert!(stripped > 1000, "{stripped}");
}

#[test]
fn every_cut_of_a_damaged_header_is_answered_alike() {
    let mut seeded = Seeded::new(3);
    for _ in 0..5_000 {
        let mut bytes = seeded.header();
        seeded.damage(&mut bytes);
        let len = seeded.below(20);
        bytes.extend(seeded.bytes(len));
        check_monotone(&bytes, 0..=bytes.len());
    }
}

#[test]
fn every_cut_of_a_good_header_is_partial() {
    let mut seeded = Seeded::new(4);
    for _ in 0..3_000 {
        let bytes = seeded.header();
        let text = bytes.escape_ascii();
        for cut in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..cut]),
                Ok(Decoded::Partial),
                "{text} cut at {cut}"
            );
        }
        let decoded = decode(&bytes);
        assert!(
            matches!(decoded, Ok(Decoded::Done { used, .. }) if used == bytes.len()),
            "{text}"
        );
    }
}

#[test]
fn random_bytes_are_answered() {
    let mut seeded = Seeded::new(5);
    for _ in 0..50_000 {
        let start = seeded.pick(&[
            &b""[..],
            b"PROXY ",
            b"PROXY TCP4 ",
            b"PROXY TCP6 ",
            b"PROXY UNKNOWN",
            b"\r\n\r\n\0\r\nQUIT\n",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x40",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x80",
        ]);
        let len = seeded.below(150);
        let bytes = [start, &seeded.bytes(len)].concat();
        let cut = seeded.below(bytes.len() + 1);
        check_monotone(&bytes, [cut, bytes.len()]);
    }
}

#[test]
fn a_decoder_never_waits_beyond_the_longest_header() {
    for start in [
        &b"PROXY UNKNOWN "[..],
        b"PROXY TCP4 1.2.3.4",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\x08\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x08\0",
    ] {
        let mut bytes = start.to_vec();
        bytes.resize(MAX_HEADER, 0);
        assert_ne!(
            decode(&bytes),
            Ok(Decoded::Partial),
            "{}",
            start.escape_ascii()
        );
    }
}

/// A byte is refused as soon as no header has it in its place: so what is not refused is the start of one.
/// Finds that header, byte by byte.
#[track_caller]
fn check_completable(start: &[u8]) {
    // Those that lead to an end come first: a line in progress must not run into its limit.
    let likely = b"\n\r :.0CP46NKOWUXY";
    let all = || likely.iter().copied().chain(0..=u8::MAX);
    let mut bytes = start.to_vec();
    while decode(&bytes) == Ok(Decoded::Partial) {
        let text = start.escape_ascii();
        let good = all().find(|byte| {
            bytes.push(*byte);
            let is_good = decode(&bytes).is_ok();
            bytes.pop();
            is_good
        });
        bytes.push(good.unwrap_or_else(|| panic!("{text} cannot become a header")));
    }
}

#[test]
fn a_partial_header_can_become_a_whole_one() {
    let mut seeded = Seeded::new(6);
    let mut seen = 0;
    while seen < 3_000 {
        let mut bytes = seeded.header();
        // A checksum comes out right by chance only: take it for a NOOP of its size.
        if bytes.len() > 28 && bytes[0] == b'\r' {
            let at = bytes.len() - 7;
            bytes[at..at + 3].copy_from_slice(b"\x04\0\x04");
        }
        seeded.damage(&mut bytes);
        let cut = seeded.below(bytes.len() + 1);
        let mut bytes = &bytes[..cut];
        // Of a refused one, all that came before the refusal.
        while decode(bytes).is_err() {
            bytes = &bytes[..bytes.len() - 1];
        }
        let has_checksum = bytes.get(28..).is_some_and(|tlvs| tlvs.contains(&3));
        if decode(bytes) == Ok(Decoded::Partial) && !has_checksum {
            check_completable(bytes);
            seen += 1;
        }
    }
}

#[test]
fn every_start_of_every_form_of_an_ipv6_address_is_partial() {
    let mut seeded = Seeded::new(7);
    for _ in 0..5_000 {
        let ip = seeded.ipv6();
        let groups = ip.segments().map(|group| format!("{group:x}"));
        let quad = Ipv4Addr::from_octets([(); 4].map(|()| seeded.byte()));
        let all = groups.join(":");
        for text in [
            ip.to_string(),
            ip.segments().map(|group| format!("{group:04X}")).join(":"),
            format!("{}:{quad}", groups[..6].join(":")),
            format!("{}::{}", groups[..2].join(":"), groups[6..].join(":")),
            format!("{}::{quad}", groups[0]),
            format!("::{}", groups[1..].join(":")),
            format!("{}::", groups[..7].join(":")),
            all,
        ] {
            let line = format!("PROXY TCP6 {text} ");
            for cut in 0..=line.len() {
                let decoded = decode(&line.as_bytes()[..cut]);
                assert_eq!(decoded, Ok(Decoded::Partial), "{line} cut at {cut}");
            }
        }
    }
}
