//! The known word that an unknown word probably means.

use std::fmt;

/// Words of HAProxy, nginx and Envoy, without `-` and `_`, and words of snproxy with the same
/// meaning.
const FOREIGN: &[(&str, &str)] = &[
    ("consistenthash", "mh"),
    ("failover", "fo"),
    ("first", "ordered"),
    ("hash", "sh"),
    ("iphash", "sh"),
    ("leastconn", "lc"),
    ("leastconnection", "lc"),
    ("leastconnections", "lc"),
    ("leastrequest", "p2c"),
    ("maglev", "mh"),
    ("poweroftwo", "p2c"),
    ("priority", "ordered"),
    ("ringhash", "mh"),
    ("roundrobin", "rr"),
    ("source", "sh"),
    ("sourcehash", "sh"),
    ("staticrr", "wrr"),
    ("weightedleastconn", "wlc"),
    ("weightedroundrobin", "wrr"),
    ("healthcheck", "HEALTH"),
    ("listenaddress", "HOST"),
    ("lbmethod", "BALANCE"),
    ("lbpolicy", "BALANCE"),
    ("loadbalancing", "BALANCE"),
    ("maxconnections", "MAXCONN"),
    ("proxyprotocol", "CLIENTPROXY"),
    ("acceptproxy", "CLIENTPROXY"),
    ("tls", "CLIENTTLS"),
    ("ssl", "CLIENTTLS"),
    ("stickiness", "PERSIST"),
    ("sticky", "PERSIST"),
    ("threads", "WORKERS"),
    ("warning", "warn"),
    ("notice", "info"),
    ("fatal", "error"),
    ("critical", "error"),
    ("verbose", "debug"),
    ("yes", "true"),
    ("on", "true"),
    ("1", "true"),
    ("no", "false"),
    ("0", "false"),
    ("sendproxy", "v1"),
    ("sendproxyv2", "v2"),
];

/// The end of a message about an unknown word: `: did you mean ...?`, or nothing.
pub(super) struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(near) => write!(f, ": did you mean `{near}`?"),
            None => Ok(()),
        }
    }
}

/// The hint for an unknown word where `words` are known.
pub(super) fn hint(words: impl IntoIterator<Item = &'static str>, unknown: &str) -> Hint {
    Hint(nearest(words, unknown))
}

/// The known word that an unknown word probably means.
pub fn nearest<'a>(words: impl IntoIterator<Item = &'a str>, unknown: &str) -> Option<&'a str> {
    let unknown = plain(unknown);
    let foreign = FOREIGN.iter().find(|(word, _)| *word == unknown);
    let foreign = foreign.map(|(_, ours)| *ours);
    let mut near: Option<(usize, &'a str)> = None;
    for word in words {
        if foreign.is_some_and(|ours| ours.eq_ignore_ascii_case(word)) {
            return Some(word);
        }
        let known = plain(word);
        // One letter in three may be wrong.
        let most = known.len().div_ceil(3);
        if unknown.len().abs_diff(known.len()) > most {
            continue;
        }
        let distance = distance(&unknown, &known);
        if distance <= most && near.is_none_or(|best| (distance, word) < best) {
            near = Some((distance, word));
        }
    }
    near.map(|(_, word)| word)
}

/// A word in small letters, without `-` and `_`.
fn plain(word: &str) -> String {
    let kept = word.chars().filter(|c| !matches!(c, '-' | '_'));
    kept.flat_map(char::to_lowercase).collect()
}

/// Single-letter changes between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (slot, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let changed = corner + usize::from(from != to);
            corner = *slot;
            left = changed.min(left + 1).min(corner + 1);
            *slot = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn nearest_finds_typos_and_foreign_words() {
        let policies = [
            "p2c", "rr", "wrr", "random", "ordered", "lc", "wlc", "sh", "mh",
        ];
        for (unknown, expected) in [
            ("leastconn", Some("lc")),
            ("least_conn", Some("lc")),
            ("LEAST-CONN", Some("lc")),
            ("roundrobin", Some("rr")),
            ("round_robin", Some("rr")),
            ("source", Some("sh")),
            ("ip_hash", Some("sh")),
            ("ring_hash", Some("mh")),
            ("least_request", Some("p2c")),
            ("randon", Some("random")),
            ("best", None),
            // A foreign word is no hint where its counterpart has no meaning.
            ("warning", None),
        ] {
            assert_eq!(nearest(policies, unknown), expected, "{unknown}");
        }
        let keys = ["CLIENTTLS", "MAXCONN", "PORT", "HEALTH"];
        for (unknown, expected) in [
            ("CLIENT_TLS", Some("CLIENTTLS")),
            ("client-tls", Some("CLIENTTLS")),
            ("Max_Conn", Some("MAXCONN")),
            ("PROT", Some("PORT")),
            ("HealthCheck", Some("HEALTH")),
            ("Allow", None),
            ("", None),
        ] {
            assert_eq!(nearest(keys, unknown), expected, "{unknown}");
        }
    }
}
