//! Forms of the values that hold for some ports: policies, limits, checks.

#![expect(
    clippy::option_option,
    reason = "the outer `None` is a finding, the inner one is 0: off"
)]

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::port::{
    Balance, Check, Fate, Lifetime, Network, OverLimit, Persist, Rate, SourceMaxConn, SourceRate,
};
use super::suggest::hint;
use super::text::{Field, Findings, is_blank};
use super::value::{choice, duration, ip, list, number, show_duration, some_duration};
use super::{Locality, Policy};

/// Most bytes that a check sends or expects.
const MAX_CHECK_BYTES: usize = 256;
/// Every address is a source of its own.
const EACH: Network = Network { v4: 32, v6: 128 };

/// Options of HEALTH.
const CHECK_OPTIONS: [&str; 8] = [
    "fails=", "hold=", "rise=", "fall=", "jitter=", "timeout=", "send=", "expect=",
];

/// What stands for the address of HOST.
const HOST: &str = "host";

/// The parts of a value between blanks.
fn words(value: Field<'_>) -> impl Iterator<Item = Field<'_>> {
    value.split(is_blank)
}

pub(super) fn expected(what: impl fmt::Display, found: Field<'_>, findings: &mut Findings<'_>) {
    findings.error(found.place, format_args!("expected {what}, found {found}"));
}

/// An option that a value does not have; those with a value end in `=`.
pub(super) fn unknown_option(known: &[&'static str], word: Field<'_>, findings: &mut Findings<'_>) {
    let name = match word.text.find('=') {
        Some(at) => &word.text[..=at],
        None => word.text,
    };
    let listed = list(known);
    let hint = hint(known.iter().copied(), name);
    findings.error(
        word.place,
        format_args!("expected {listed}, found {word}{hint}"),
    );
}

/// An address of this host; the inner `None` is that of HOST.
pub(super) fn bind(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Option<IpAddr>> {
    if value.text.eq_ignore_ascii_case(HOST) {
        return Some(None);
    }
    let address = ip(value.text);
    if address.is_none() {
        expected("an address such as 127.0.0.1, or host", value, findings);
    }
    address.map(Some)
}

pub(super) fn show_bind(bind: Option<IpAddr>) -> String {
    bind.map_or_else(|| HOST.to_owned(), |ip| ip.to_string())
}

/// A policy, and for those that hash what they hash.
pub(super) fn balance(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Balance> {
    let mut words = words(value);
    let policy = choice(words.next()?, findings)?;
    let mut balance = Balance {
        policy,
        port: false,
        strict: false,
    };
    for word in words {
        match word.text {
            "port" | "strict" if !policy.hashes() => {
                findings.error(word.place, format_args!("{word} is for sh and mh"));
                return None;
            }
            "port" => balance.port = true,
            "strict" => balance.strict = true,
            _ => {
                unknown_option(&["port", "strict"], word, findings);
                return None;
            }
        }
    }
    Some(balance)
}

impl Policy {
    /// Whether the client's address says which upstream it gets.
    pub fn hashes(self) -> bool {
        matches!(self, Self::Sh | Self::Mh)
    }

    /// Whether chance has a part in it.
    pub fn is_by_chance(self) -> bool {
        matches!(self, Self::P2c | Self::Twos | Self::Random)
    }
}

/// In the form of proxy.conf.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy,
            port,
            strict,
        } = self;
        let port = if *port { " port" } else { "" };
        let strict = if *strict { " strict" } else { "" };
        write!(f, "{policy}{port}{strict}")
    }
}

pub(super) fn locality(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Locality> {
    choice(value, findings)
}

/// `/24`, or `/24 /64` for the two families.
fn network<'a>(
    words: &mut impl Iterator<Item = Field<'a>>,
    findings: &mut Findings<'_>,
) -> Option<Network> {
    let mut network = EACH;
    for (most, bits) in [(32, &mut network.v4), (128, &mut network.v6)] {
        let Some(word) = words.next() else { break };
        let length = word.text.strip_prefix('/').and_then(number::<u8>);
        let Some(length) = length.filter(|length| (1..=most).contains(length)) else {
            expected(
                format_args!("a length such as /24 (at most /{most})"),
                word,
                findings,
            );
            return None;
        };
        *bits = length;
    }
    no_more(words, findings)?;
    Some(network)
}

fn no_more<'a>(
    mut words: impl Iterator<Item = Field<'a>>,
    findings: &mut Findings<'_>,
) -> Option<()> {
    match words.next() {
        None => Some(()),
        Some(word) => {
            findings.error(word.place, format_args!("unexpected {word}"));
            None
        }
    }
}

fn show_network(network: Network) -> String {
    match network {
        EACH => String::new(),
        Network { v4, v6: 128 } => format!(" /{v4}"),
        Network { v4, v6 } => format!(" /{v4} /{v6}"),
    }
}

/// `5m /24 /64`; 0 is off.
pub(super) fn persist(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Option<Persist>> {
    let mut words = words(value);
    let time = duration(words.next()?, findings)?;
    let network = network(&mut words, findings)?;
    Some((!time.is_zero()).then_some(Persist { time, network }))
}

pub(super) fn show_persist(persist: Option<Persist>) -> String {
    persist.map_or_else(off, |Persist { time, network }| {
        show_duration(time) + &show_network(network)
    })
}

fn off() -> String {
    "0".to_owned()
}

/// A number of connections.
pub(super) fn count(value: Field<'_>, findings: &mut Findings<'_>) -> Option<u32> {
    let count = number(value.text);
    if count.is_none() {
        expected("a number of connections", value, findings);
    }
    count
}

/// A number of connections; 0 is off.
pub(super) fn limit(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Option<u32>> {
    count(value, findings).map(|count| (count > 0).then_some(count))
}

pub(super) fn show_limit(limit: Option<u32>) -> String {
    limit.unwrap_or(0).to_string()
}

/// `100 /24 /64`; 0 is off.
pub(super) fn source_max_conn(
    value: Field<'_>,
    findings: &mut Findings<'_>,
) -> Option<Option<SourceMaxConn>> {
    let mut words = words(value);
    let count = count(words.next()?, findings)?;
    let network = network(&mut words, findings)?;
    Some((count > 0).then_some(SourceMaxConn { count, network }))
}

pub(super) fn show_source_max_conn(limit: Option<SourceMaxConn>) -> String {
    limit.map_or_else(off, |SourceMaxConn { count, network }| {
        count.to_string() + &show_network(network)
    })
}

/// `50/s`, `50/s burst=100`; `None` inside: 0, which is off. The other words stay.
fn rate<'a>(
    words: &mut std::iter::Peekable<impl Iterator<Item = Field<'a>>>,
    findings: &mut Findings<'_>,
) -> Option<Option<Rate>> {
    let word = words.next()?;
    let text = word.text.strip_suffix("/s").unwrap_or(word.text);
    let off = text == "0";
    let per_second = number::<u32>(text).filter(|_| off || word.text.ends_with("/s"));
    let Some(per_second) = per_second else {
        expected("a rate such as 50/s", word, findings);
        return None;
    };
    let mut burst = per_second;
    if let Some(said) = words.next_if(|word| word.text.starts_with("burst=")) {
        let digits = said.tail("burst=".len());
        if let Some(said @ 1..) = number(digits.text) {
            burst = said;
        } else {
            expected("a number of connections, at least 1", digits, findings);
            return None;
        }
    }
    Some((!off).then_some(Rate { per_second, burst }))
}

fn show_rate(rate: Rate) -> String {
    let Rate { per_second, burst } = rate;
    if burst == per_second {
        format!("{per_second}/s")
    } else {
        format!("{per_second}/s burst={burst}")
    }
}

pub(super) fn port_rate(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Option<Rate>> {
    let mut words = words(value).peekable();
    let rate = rate(&mut words, findings)?;
    no_more(words, findings)?;
    Some(rate)
}

pub(super) fn show_port_rate(rate: Option<Rate>) -> String {
    rate.map_or_else(off, show_rate)
}

pub(super) fn source_rate(
    value: Field<'_>,
    findings: &mut Findings<'_>,
) -> Option<Option<SourceRate>> {
    let mut words = words(value).peekable();
    let rate = rate(&mut words, findings)?;
    let network = network(&mut words, findings)?;
    Some(rate.map(|rate| SourceRate { rate, network }))
}

pub(super) fn show_source_rate(rate: Option<SourceRate>) -> String {
    rate.map_or_else(off, |SourceRate { rate, network }| {
        show_rate(rate) + &show_network(network)
    })
}

/// `10%`, between `least` and 100.
pub(super) fn percent(least: u8, value: Field<'_>, findings: &mut Findings<'_>) -> Option<u8> {
    let percent = value.text.strip_suffix('%').and_then(number::<u8>);
    let percent = percent.filter(|percent| (least..=100).contains(percent));
    if percent.is_none() {
        expected(format_args!("{least}% to 100%"), value, findings);
    }
    percent
}

/// `keep`, `reset`, `drain:30s`.
pub(super) fn fate(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Fate> {
    match value.text {
        "keep" => Some(Fate::Keep),
        "reset" => Some(Fate::Reset),
        text if text.starts_with("drain:") => {
            some_duration(value.tail("drain:".len()), findings).map(Fate::Drain)
        }
        _ => {
            unknown_option(&["keep", "drain:30s", "reset"], value, findings);
            None
        }
    }
}

pub(super) fn show_fate(fate: Fate) -> String {
    match fate {
        Fate::Keep => "keep".to_owned(),
        Fate::Drain(time) => format!("drain:{}", show_duration(time)),
        Fate::Reset => "reset".to_owned(),
    }
}

pub(super) fn over_limit(value: Field<'_>, findings: &mut Findings<'_>) -> Option<OverLimit> {
    choice(value, findings)
}

/// `1h`, `1h 10%`; 0 is off.
pub(super) fn lifetime(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Option<Lifetime>> {
    let mut words = words(value);
    let time = duration(words.next()?, findings)?;
    let jitter = match words.next() {
        Some(word) => percent(0, word, findings)?,
        None => 0,
    };
    no_more(words, findings)?;
    Some((!time.is_zero()).then_some(Lifetime { time, jitter }))
}

pub(super) fn show_lifetime(lifetime: Option<Lifetime>) -> String {
    lifetime.map_or_else(off, |Lifetime { time, jitter }| match jitter {
        0 => show_duration(time),
        _ => format!("{} {jitter}%", show_duration(time)),
    })
}

/// `passive` or `tcp/5s`, and options.
pub(super) fn check(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Check> {
    let (first, mut rest) = next_word(value)?;
    let interval = match first.text.strip_prefix("tcp/") {
        Some(_) => Some(some_duration(first.tail("tcp/".len()), findings)?),
        None if first.text == "passive" => None,
        None => {
            expected("passive or a check such as tcp/5s", first, findings);
            return None;
        }
    };
    let mut check = Check {
        interval,
        ..unchecked()
    };
    while let Some((word, left)) = next_word(rest) {
        rest = left;
        let len = word.text.find('=').unwrap_or(word.text.len());
        let value = word.tail(len + 1);
        let times = |findings: &mut Findings<'_>| {
            let times = number(value.text).filter(|times| (1..=1000).contains(times));
            if times.is_none() {
                expected("a number from 1 to 1000", value, findings);
            }
            times
        };
        match word.part(0, len).text {
            "fails" => check.fails = times(findings)?,
            "rise" => check.rise = times(findings)?,
            "fall" => check.fall = times(findings)?,
            "hold" => check.hold = some_duration(value, findings)?,
            "timeout" => check.timeout = some_duration(value, findings)?,
            "jitter" => check.jitter = percent(0, value, findings)?,
            "send" => check.send = bytes(value, findings)?,
            "expect" => check.expect = bytes(value, findings)?,
            _ => {
                unknown_option(&CHECK_OPTIONS, word, findings);
                return None;
            }
        }
    }
    Some(check)
}

/// A check of which nothing is said.
pub(super) fn unchecked() -> Check {
    Check {
        interval: None,
        fails: 1,
        hold: Duration::from_secs(1),
        rise: 1,
        fall: 1,
        jitter: 10,
        timeout: Duration::from_secs(1),
        send: Box::default(),
        expect: Box::default(),
    }
}

/// The first word, and the rest; quotes hold a word together.
fn next_word(value: Field<'_>) -> Option<(Field<'_>, Field<'_>)> {
    let value = value.trim();
    let (mut quoted, mut escaped) = (false, false);
    let end = value.text.find(|c| {
        let is_end = !quoted && is_blank(c);
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        is_end
    });
    let end = end.unwrap_or(value.text.len());
    (end > 0).then(|| (value.part(0, end), value.tail(end)))
}

/// Bytes as text, in quotes or not, with `\r`, `\n`, `\t`, `\0`, `\"`, `\\` and `\xff`.
fn bytes(value: Field<'_>, findings: &mut Findings<'_>) -> Option<Box<[u8]>> {
    let text = match value.text.strip_prefix('"') {
        None => value.text,
        Some(text) => {
            if let Some(text) = text.strip_suffix('"') {
                text
            } else {
                findings.error(value.place, "quote is never closed");
                return None;
            }
        }
    };
    let bytes = unescape(text);
    match bytes {
        None => expected(
            r#"text with \r, \n, \t, \0, \", \\ or \xff"#,
            value,
            findings,
        ),
        Some(ref bytes) if bytes.len() > MAX_CHECK_BYTES => {
            let message = format_args!("more than {MAX_CHECK_BYTES} bytes");
            findings.error(value.place, message);
            return None;
        }
        Some(_) => {}
    }
    bytes.map(Vec::into_boxed_slice)
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                c @ (b'"' | b'\\') => c,
                b'x' => {
                    let digits = [rest.next()?, rest.next()?];
                    let digits = str::from_utf8(&digits).ok()?;
                    u8::from_str_radix(digits, 16).ok()?
                }
                _ => return None,
            },
            b'"' => return None,
            byte => byte,
        });
    }
    Some(bytes)
}

/// The form that HEALTH takes.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_check(self))
    }
}

pub(super) fn show_check(check: &Check) -> String {
    let unsaid = unchecked();
    let mut shown = match check.interval {
        Some(interval) => format!("tcp/{}", show_duration(interval)),
        None => "passive".to_owned(),
    };
    let mut option = |is_said: bool, name: &str, value: String| {
        if is_said {
            shown.extend([" ", name, "=", &value]);
        }
    };
    option(
        check.fails != unsaid.fails,
        "fails",
        check.fails.to_string(),
    );
    option(check.hold != unsaid.hold, "hold", show_duration(check.hold));
    option(check.rise != unsaid.rise, "rise", check.rise.to_string());
    option(check.fall != unsaid.fall, "fall", check.fall.to_string());
    let jitter = format!("{}%", check.jitter);
    option(check.jitter != unsaid.jitter, "jitter", jitter);
    let timeout = show_duration(check.timeout);
    option(check.timeout != unsaid.timeout, "timeout", timeout);
    option(!check.send.is_empty(), "send", quoted(&check.send));
    option(!check.expect.is_empty(), "expect", quoted(&check.expect));
    shown
}

fn quoted(bytes: &[u8]) -> String {
    let mut shown = String::from("\"");
    for byte in bytes {
        match byte {
            b'\r' => shown.push_str("\\r"),
            b'\n' => shown.push_str("\\n"),
            b'\t' => shown.push_str("\\t"),
            b'"' => shown.push_str("\\\""),
            b'\\' => shown.push_str("\\\\"),
            b' '..=b'~' => shown.push(char::from(*byte)),
            _ => shown.extend(["\\x", &format!("{byte:02x}")]),
        }
    }
    shown.push('"');
    shown
}
