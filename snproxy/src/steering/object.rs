//! The compiled program that is part of this binary.

/// What was recorded when the object was built.
const RECORD: &str = include_str!("../../../snproxy-ebpf/prebuilt/steering.toolchain");

/// SHA-256 of the object, in hexadecimal; empty if the record has none.
pub fn sha256() -> &'static str {
    RECORD
        .lines()
        .find_map(|line| line.strip_prefix("sha256 = \""))
        .map_or("", |rest| rest.trim_end_matches('"'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_record_names_the_object() {
        assert_eq!(super::sha256().len(), 64);
    }
}
