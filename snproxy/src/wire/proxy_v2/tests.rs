use super::*;

/// The header with this command, family and block.
fn header(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let len = u16::try_from(block.len()).unwrap();
    [SIGNATURE, &[command, family][..], &len.to_be_bytes(), block].concat()
}

/// 192.168.0.1:56324 to 192.168.0.11:443, then `tlvs`.
fn tcp4(tlvs: &[u8]) -> Vec<u8> {
    let addresses = [192, 168, 0, 1, 192, 168, 0, 11, 0xDC, 0x04, 0x01, 0xBB];
    header(PROXY, TCP4, &[&addresses[..], tlvs].concat())
}

fn tcp4_value() -> ProxyHeader {
    ProxyHeader {
        source: "192.168.0.1:56324".parse().unwrap(),
        destination: "192.168.0.11:443".parse().unwrap(),
    }
}

fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).unwrap();
    [&[kind][..], &len.to_be_bytes(), value].concat()
}

/// `bytes` is a whole header, and nothing less of it is.
#[track_caller]
fn check(bytes: &[u8], value: Option<ProxyHeader>) {
    let used = bytes.len();
    let text = bytes.escape_ascii();
    assert_eq!(decode(bytes), Ok(Decoded::Done { value, used }), "{text}");
    let longer = [bytes, b"\x03\0\x04payload"].concat();
    assert_eq!(decode(&longer), decode(bytes), "{text} and payload");
    for end in 0..used {
        let cut = decode(&bytes[..end]);
        assert_eq!(cut, Ok(Decoded::Partial), "{text} cut at {end}");
    }
}

/// The byte before `end`, and none before it, is impossible in `bytes`: an invalid `what`.
#[track_caller]
fn check_refused_at(bytes: &[u8], end: usize, what: &'static str) {
    let text = bytes.escape_ascii();
    let before = decode(&bytes[..end - 1]);
    assert_eq!(before, Ok(Decoded::Partial), "{text} cut before {end}");
    for end in end..=bytes.len() {
        let cut = decode(&bytes[..end]);
        assert_eq!(cut, Err(Invalid(what)), "{text} cut at {end}");
    }
}

#[test]
fn addresses_of_tcp_are_read() {
    check(&tcp4(b""), Some(tcp4_value()));
    let mut block = [0; 36];
    block[..16].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    block[31] = 2;
    block[32..].copy_from_slice(&[0xFF, 0xFF, 0, 80]);
    let value = ProxyHeader {
        source: "[2001:db8::1]:65535".parse().unwrap(),
        destination: "[::2]:80".parse().unwrap(),
    };
    check(&header(PROXY, TCP6, &block), Some(value));
}

#[test]
fn tlvs_are_walked() {
    check(&tcp4(&tlv(0x04, b"")), Some(tcp4_value()));
    check(&tcp4(&tlv(0x04, b"padding")), Some(tcp4_value()));
    check(
        &tcp4(&[tlv(0x05, b"id"), tlv(0x04, b"")].concat()),
        Some(tcp4_value()),
    );
    check(&tcp4(&tlv(0x05, &[7; MAX_UNIQUE_ID])), Some(tcp4_value()));
    check(&tcp4(&tlv(0xEE, &[7; 1000])), Some(tcp4_value()));
    // Inside TLVs that are not ours anything may stand.
    check(&tcp4(&tlv(0x20, b"\x01")), Some(tcp4_value()));
}

#[test]
fn the_block_of_local_is_skipped_whatever_it_holds() {
    check(&header(LOCAL, UNSPEC, b""), None);
    check(&header(LOCAL, TCP4, b""), None);
    check(&header(LOCAL, TCP4, &tcp4(b"")[FIXED..]), None);
    check(&header(LOCAL, 0xFF, b"\x03\0\x04wrong"), None);
    check(&header(LOCAL, TCP6, &[0x03; MAX_BLOCK]), None);
}

#[test]
fn what_is_not_tcp_means_the_real_addresses() {
    check(&header(PROXY, UNSPEC, b""), None);
    check(&header(PROXY, UNSPEC, b"x"), None);
    check(&header(PROXY, UDP4, &[7; 12]), None);
    check(&header(PROXY, UDP6, &[7; 36]), None);
    check(&header(PROXY, UNIX_STREAM, &[7; 216]), None);
    check(
        &header(
            PROXY,
            UNIX_DATAGRAM,
            &[&[7; 216][..], &tlv(4, b"x")].concat(),
        ),
        None,
    );
}

#[test]
fn a_family_too_short_for_its_addresses_is_refused_at_the_length() {
    for (family, len) in [
        (TCP4, 12),
        (UDP4, 12),
        (TCP6, 36),
        (UDP6, 36),
        (UNIX_STREAM, 216),
        (UNIX_DATAGRAM, 216),
    ] {
        check_refused_at(&header(PROXY, family, &vec![7; len - 1]), FIXED, LENGTH);
        check_refused_at(&header(PROXY, family, b""), FIXED, LENGTH);
        // One or two bytes more are no TLV.
        check_refused_at(&header(PROXY, family, &vec![7; len + 1]), FIXED, LENGTH);
        check_refused_at(&header(PROXY, family, &vec![7; len + 2]), FIXED, LENGTH);
    }
}

#[test]
fn another_signature_version_command_or_family_is_refused_at_once() {
    let good = tcp4(b"");
    for at in 0..SIGNATURE.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x20;
        check_refused_at(&bytes, at + 1, HEADER);
    }
    for command in (0..=u8::MAX).filter(|command| ![LOCAL, PROXY].contains(command)) {
        let block = &good[FIXED..];
        check_refused_at(&header(command, TCP4, block), 13, COMMAND);
    }
    let known = [UNSPEC, TCP4, UDP4, TCP6, UDP6, UNIX_STREAM, UNIX_DATAGRAM];
    for family in (0..=u8::MAX).filter(|family| !known.contains(family)) {
        check_refused_at(&header(PROXY, family, &[0; 216]), 14, FAMILY);
    }
}

#[test]
fn a_block_beyond_the_limit_is_refused_before_it_is_read() {
    check(
        &tcp4(&tlv(0xEE, &vec![7; MAX_BLOCK - 15])),
        Some(tcp4_value()),
    );
    check_refused_at(&tcp4(&tlv(0xEE, &vec![7; MAX_BLOCK - 14])), FIXED, LENGTH);
    check_refused_at(&header(PROXY, UNSPEC, &[0; MAX_BLOCK + 1]), FIXED, LENGTH);
    check_refused_at(&header(LOCAL, UNSPEC, &[0; MAX_BLOCK + 1]), FIXED, LENGTH);
    check_refused_at(&header(LOCAL, UNSPEC, &[0; 0x0900]), FIXED - 1, LENGTH);
    check_refused_at(&header(PROXY, TCP4, &vec![0; 0xFFFF]), FIXED - 1, LENGTH);
}

#[test]
fn tlvs_that_do_not_fill_the_block_are_refused_at_their_length() {
    let first = FIXED + 12;
    // Longer than the block, by one byte and by much.
    check_refused_at(&tcp4(&[0xEE, 0, 2, 7]), first + 3, TLV);
    check_refused_at(&tcp4(&[0xEE, 1, 0, 7]), first + 2, TLV);
    // What is left holds no further TLV.
    check_refused_at(&tcp4(&[0xEE, 0, 0, 7]), first + 3, TLV);
    check_refused_at(&tcp4(&[0xEE, 0, 0, 7, 7]), first + 3, TLV);
    let second = [&tlv(4, b"x")[..], &[0xEE, 0, 9, 7]].concat();
    check_refused_at(&tcp4(&second), first + 4 + 3, TLV);
}

#[test]
fn a_tlv_of_a_known_type_has_a_size_of_that_type() {
    let first = FIXED + 12;
    check_refused_at(&tcp4(&tlv(TYPE_UNIQUE_ID, &[7; 129])), first + 3, TLV);
    check_refused_at(&tcp4(&tlv(TYPE_UNIQUE_ID, &[7; 256])), first + 2, TLV);
    check_refused_at(&tcp4(&tlv(TYPE_CRC32C, &[0; 3])), first + 1, TLV);
    check_refused_at(&tcp4(&tlv(TYPE_CRC32C, &[0; 5])), first + 1, TLV);
    check_refused_at(&tcp4(&tlv(TYPE_CRC32C, &[0; 7])), first + 3, TLV);
    check_refused_at(&tcp4(&tlv(TYPE_CRC32C, &[0; 260])), first + 2, TLV);
}

#[test]
fn the_checksum_is_the_one_of_rfc_4960() {
    assert_eq!(Crc32c::new().add(b"").end(), 0);
    assert_eq!(Crc32c::new().add(b"123456789").end(), 0xE306_9283);
    // RFC 3720, B.4.
    assert_eq!(Crc32c::new().add(&[0; 32]).end(), 0x8A91_36AA);
    assert_eq!(Crc32c::new().add(&[0xFF; 32]).end(), 0x62A8_AB43);
    let halves = Crc32c::new().add(b"1234").add(b"56789");
    assert_eq!(halves.end(), 0xE306_9283);
}

/// A header whose checksum stands between two other TLVs, as it may.
fn summed() -> Vec<u8> {
    let mut bytes = tcp4(&[tlv(4, b"x"), tlv(3, &[0; 4]), tlv(5, b"id")].concat());
    let sum = Crc32c::new().add(&bytes).end();
    bytes[35..39].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn a_checksum_is_verified_over_the_header_alone() {
    check(&summed(), Some(tcp4_value()));
}

#[test]
fn one_bit_off_breaks_the_checksum() {
    let good = summed();
    // Before the addresses another check comes first; in the TLV heads too.
    for at in (FIXED..28).chain(31..32).chain(35..39).chain(42..44) {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            check_refused_at(&bytes, good.len(), CHECKSUM);
        }
    }
}

#[test]
fn a_second_checksum_is_refused() {
    // Which of the two is taken as zeroes, the specification does not say.
    let bytes = tcp4(&[tlv(3, &[0; 4]), tlv(3, &[0; 4])].concat());
    check_refused_at(&bytes, FIXED + 12 + 7 + 1, CHECKSUM);
}

#[test]
fn a_header_with_tlvs_becomes_these_bytes() {
    let header = tcp4_value();
    let tlvs = Tlvs {
        cluster_port: ClusterPort::new(1024),
        unique_id: UniqueId::new(b"id"),
    };
    let mut out = BytesMut::from("before ");
    encode(&header, &tlvs, &mut out);
    let sum = &out[out.len() - 4..];
    let expected = tcp4(&[tlv(0xE5, &[4, 0]), tlv(5, b"id"), tlv(3, sum)].concat());
    assert_eq!(&out[7..], expected);
    check(&out[7..], Some(header));
}

#[test]
fn the_largest_header_we_make_is_one_we_take() {
    let end = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
    let header = ProxyHeader::new(end.parse().unwrap(), end.parse().unwrap());
    let id = [0xFF; MAX_UNIQUE_ID];
    let tlvs = Tlvs {
        cluster_port: ClusterPort::new(u16::MAX),
        unique_id: UniqueId::new(&id),
    };
    let mut out = BytesMut::new();
    encode(&header, &tlvs, &mut out);
    assert_eq!(out.len(), FIXED + 36 + 5 + 3 + MAX_UNIQUE_ID + 7);
    check(&out, Some(header));
}

#[test]
fn a_unique_id_has_at_most_128_bytes() {
    assert!(UniqueId::new(&[0; MAX_UNIQUE_ID]).is_some());
    assert!(UniqueId::new(&[0; MAX_UNIQUE_ID + 1]).is_none());
    assert!(UniqueId::new(&[0; 256 + 5]).is_none());
    assert!(UniqueId::new(b"").is_some());
}

#[test]
fn ends_of_two_families_are_both_written_as_ipv6() {
    let header = ProxyHeader {
        source: "192.0.2.1:5".parse().unwrap(),
        destination: "[2001:db8::1]:6".parse().unwrap(),
    };
    let mut out = BytesMut::new();
    encode(&header, &Tlvs::default(), &mut out);
    let read = ProxyHeader {
        source: "[::ffff:192.0.2.1]:5".parse().unwrap(),
        ..header
    };
    check(&out, Some(read));
}

#[test]
fn a_local_header_has_no_block() {
    let mut out = BytesMut::new();
    encode_local(&mut out);
    assert_eq!(&out[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    check(&out, None);
}
