//! The keys of proxy.conf as options of the ambassadors: each is declared in `conf`, and here by nothing but its name.

use clap::error::Error;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::conf::{self, KeyDoc};

/// Keys that mean nothing to an ambassador, or that other options stand for.
const LEFT_OUT: &[&str] = &[
    "ADMIN",
    "APPSCONF",
    "BIND",
    "CLIENTPROXY",
    "CLIENTTLS",
    "CLUSTER",
    "CLUSTERPORTS",
    "ETCD",
    "FAMILY",
    "HOST",
    "HOSTSCONF",
    "LOCALITY",
    "LOGLEVEL",
    "PEERS",
    "PEERTIMEOUT",
    "PEERTLS",
    "PODHOST",
    "PORT",
    "PORTSCONF",
    "UNMAPPED",
    "UPSTREAMTLS",
];

/// What holds for an ambassador where nothing is said, if it is not what holds for proxy.conf.
pub(super) const DEFAULTS: [(&str, &str); 1] = [("BALANCE", "ordered")];

/// The same where etcd names the servers: a key that is deleted there means that the server ended. An address that a
/// name server leaves out may still serve.
pub(super) const DISCOVERED: [(&str, &str); 1] = [("ONREMOVE", "reset")];

/// The same, set by [`Builder`](crate::proxy::Builder), found by it, or by the kind of servers.
const BUILT: [(&str, &str); 3] = [
    ("CONFLICT", "fail"),
    ("ONREMOVE", "keep`, with --srv `reset"),
    ("STEERING", "listeners` up to 15 ports, else `auto"),
];

/// Words that names of keys are made of: where a dash belongs.
const WORDS: &[&str] = &[
    "BALANCE",
    "BPF",
    "BYTE",
    "CLIENT",
    "CONFLICT",
    "CONNECT",
    "CONN",
    "DOWN",
    "DRAIN",
    "EJECT",
    "FIRST",
    "FORMAT",
    "HEALTH",
    "IDLE",
    "KEEPALIVE",
    "LIFETIME",
    "LIMIT",
    "LINGER",
    "LOG",
    "MAX",
    "NETS",
    "ON",
    "OVER",
    "PERSIST",
    "PORT",
    "PROXY",
    "PUMP",
    "QUEUE",
    "RATE",
    "REMOVE",
    "REOPEN",
    "SLOW",
    "SOURCE",
    "START",
    "STEERING",
    "TARGET",
    "TIMEOUT",
    "TLS",
    "UPSTREAM",
    "WAIT",
    "WORKERS",
];

/// Keys and values, in the order of the keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(pub(super) Vec<(&'static str, String)>);

fn taken() -> impl Iterator<Item = KeyDoc> {
    conf::key_docs().filter(|key| !LEFT_OUT.contains(&key.name))
}

/// `idle-timeout` for `IDLETIMEOUT`; a name that is made of other words stays one word.
fn dashed(name: &str) -> String {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let is_next = |word: &&&str| rest.starts_with(**word);
        // CONNECT before CONN.
        let Some(word) = WORDS.iter().filter(is_next).max_by_key(|word| word.len()) else {
            return name.to_ascii_lowercase();
        };
        parts.push(*word);
        rest = &rest[word.len()..];
    }
    parts.join("-").to_ascii_lowercase()
}

/// A text for README.md without its links.
fn plain(doc: &str) -> String {
    let mut text = String::new();
    let mut rest = doc;
    while let Some((before, link)) = rest.split_once("](#") {
        text.push_str(&before.replacen('[', "", 1));
        rest = link.split_once(')').map_or("", |(_, rest)| rest);
    }
    text + rest
}

impl Args for Keys {
    fn augment_args(command: Command) -> Command {
        taken().fold(command, |command, key| {
            let ours = DEFAULTS
                .iter()
                .chain(&BUILT)
                .find(|(name, _)| *name == key.name);
            let default = ours.map(|(_, default)| *default).or(key.default);
            let default = default.unwrap_or_default();
            let doc = plain(key.doc);
            let help = format!("{doc} [default: `{default}`; {} of proxy.conf]", key.name);
            command.arg(
                Arg::new(key.name)
                    .long(dashed(key.name))
                    .value_name("VALUE")
                    .help(help)
                    .help_heading("Keys of proxy.conf"),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Keys {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let said = taken().filter_map(|key| {
            let value: &String = matches.get_one(key.name)?;
            Some((key.name, value.clone()))
        });
        Ok(Self(said.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_for_readers_of_the_readme() {
        let doc = "one of those of [Balancing](#balancing), or [more](#other)";
        assert_eq!(plain(doc), "one of those of Balancing, or more");
        for key in taken() {
            assert!(!plain(key.doc).contains("](#"), "{}", key.name);
        }
    }

    #[test]
    fn every_key_is_an_option_or_left_out_and_reads_as_words() {
        for key in taken() {
            let dashed = dashed(key.name);
            assert_eq!(dashed.replace('-', "").to_uppercase(), key.name);
            let is_a_word = WORDS.contains(&key.name);
            assert!(
                is_a_word || dashed.contains('-'),
                "{}: say in WORDS what it is made of",
                key.name
            );
        }
        assert_eq!(dashed("CONNECTTIMEOUT"), "connect-timeout");
        assert_eq!(dashed("SOURCEMAXCONN"), "source-max-conn");
        assert_eq!(dashed("FIRSTBYTETIMEOUT"), "first-byte-timeout");
    }
}
