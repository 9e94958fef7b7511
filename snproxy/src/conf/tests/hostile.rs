//! Files that nobody meant: cut, damaged, random.

use super::*;

/// A small generator with a known sequence (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(bits).unwrap() % limit.max(1)
    }
}

/// Parses and shows what was found.
fn survive(sources: &Sources, world: &World<'_>, show: bool) {
    let parsed = parse(sources, world);
    if let Some(conf) = &parsed.value {
        assert!(conf.other_hosts().all(|other| other.addr().is_some()));
        conf.allows_peer(conf.host);
    }
    for found in &parsed.diagnostics {
        assert!(!found.message.is_empty());
        assert!(!found.to_string().chars().any(char::is_control), "{found}");
    }
    // Rendering takes far longer than parsing: a part of the cases will do.
    let shown = parsed.diagnostics.iter().take(if show { 8 } else { 0 });
    for found in shown {
        assert!(found.block().len() < 4096);
    }
}

#[test]
fn every_truncation_of_the_samples_is_survived() {
    let world = world();
    for folder in cases() {
        let whole = case(&folder);
        let truncated =
            |source: &Source, end| source_of(&source.path, &source.text.as_bytes()[..end]);
        for end in 0..whole.proxy.text.len().min(2000) {
            survive(
                &Sources {
                    proxy: truncated(&whole.proxy, end),
                    ..whole.clone()
                },
                &world,
                end % 8 == 0,
            );
        }
        for end in 0..whole
            .mappings
            .as_ref()
            .map_or(0, |file| file.text.len().min(600))
        {
            let mappings = whole.mappings.as_ref().map(|file| truncated(file, end));
            survive(
                &Sources {
                    mappings,
                    ..whole.clone()
                },
                &world,
                end % 8 == 0,
            );
        }
        for end in 0..whole
            .apps
            .as_ref()
            .map_or(0, |file| file.text.len().min(1200))
        {
            let apps = whole.apps.as_ref().map(|file| truncated(file, end));
            survive(
                &Sources {
                    apps,
                    ..whole.clone()
                },
                &world,
                end % 8 == 0,
            );
        }
        for end in 0..whole
            .hosts
            .as_ref()
            .map_or(0, |file| file.text.len().min(600))
        {
            let hosts = whole.hosts.as_ref().map(|file| truncated(file, end));
            survive(
                &Sources {
                    hosts,
                    ..whole.clone()
                },
                &world,
                end % 8 == 0,
            );
        }
    }
}

fn source_of(path: &Path, bytes: &[u8]) -> Source {
    Source::decode(path, bytes.to_vec())
}

#[test]
fn twenty_thousand_mutations_are_survived() {
    const PIECES: &[&[u8]] = &[
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\n",
        b"\r\n",
        b"\"",
        b"'",
        b"#",
        b",",
        b":",
        b"-",
        b"0",
        b"65536",
        b"99999999999999999999",
        b"\x1b[31m",
        "é".as_bytes(),
        "\u{fffd}".as_bytes(),
        b"CLIENTPROXY ",
        b"CLUSTERPORTS ",
        b"[::1]:1",
        b"PEERS hosts,",
        b"\t",
        b"{",
        b"}",
        b"[",
        b"]",
        b"null",
        b"\\ud800",
        b"\\u0000",
        b"\\u0061",
        b"\\ud83e\\udd80",
        "ééé é".as_bytes(),
        "\u{1f980}".as_bytes(),
        b"\"Ports\":[",
        b"{\"Addr\":\"",
    ];
    let samples: Vec<Sources> = cases().iter().map(|folder| case(folder)).collect();
    let mut small = sources("HOST 10.0.0.1", "1024:30000:1:v1", "10.0.0.1:32767");
    small.apps = Some(source("config.json", ""));
    let world = world();
    let mut random = Random(0x5eed);
    for _ in 0..20_000 {
        let sample = &samples[random.below(samples.len())];
        let mut sources = small.clone();
        let (victim, text) = match random.below(4) {
            0 => (&mut sources.proxy, Some(&sample.proxy)),
            // Cut out of its middle it would be no JSON at once.
            3 => {
                let mutated = mutated_apps(sample.apps.as_ref(), PIECES, &mut random);
                sources.apps = Some(source_of(Path::new("config.json"), &mutated));
                survive(&sources, &world, random.below(64) == 0);
                continue;
            }
            1 => (sources.mappings.as_mut().unwrap(), sample.mappings.as_ref()),
            _ => (sources.hosts.as_mut().unwrap(), sample.hosts.as_ref()),
        };
        // A short stretch: most of a file says nothing new.
        let mut bytes = text
            .map_or(b"".as_slice(), |file| file.text.as_bytes())
            .to_vec();
        bytes.drain(..random.below(bytes.len()));
        bytes.truncate(60);
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len());
            let until = (at + random.below(4)).min(bytes.len());
            let piece = PIECES[random.below(PIECES.len())];
            bytes.splice(at..until, piece.iter().copied());
        }
        *victim = source_of(&victim.path, &bytes);
        survive(&sources, &world, random.below(64) == 0);
    }
}

/// Texts in every place that takes one, with escapes and with characters of several bytes.
const ONE_APP: &str = r#"{"Apps":[{"Name":"\u00e9 é","Ports":[1,"3-9"],"Balance":"\u0061éé ééé q",
"IdleTimeout":"5m # \u00e9é","Health":"\u0074cp/5s é=é","ClientProxy":"\u0072equire é,10.0.0.0/8 éé",
"Targets":["b.example\u003a1é",{"Addr":"[::1]:2","SendProxy":"\u0076é"}]}]}"#;

#[test]
fn every_truncation_and_every_letter_as_an_escape_are_survived() {
    let world = world();
    let apps = |bytes: &[u8]| {
        let mut sources = sources("HOST 10.0.0.1", "", "");
        sources.apps = Some(source_of(Path::new("config.json"), bytes));
        survive(&sources, &world, true);
    };
    for (at, c) in ONE_APP.char_indices() {
        let (before, after) = (&ONE_APP[..at], &ONE_APP[at + c.len_utf8()..]);
        apps(before.as_bytes());
        for piece in [
            format!("\\u{:04x}", u32::from(c)),
            "é".to_owned(),
            format!("\\u0061{c}é"),
        ] {
            apps(format!("{before}{piece}{after}").as_bytes());
        }
    }
}

/// One app of the file, or another, with a few pieces in other places.
fn mutated_apps(whole: Option<&Source>, pieces: &[&[u8]], random: &mut Random) -> Vec<u8> {
    let short = whole.map(|file| file.text.as_bytes());
    let short = short.filter(|bytes| bytes.len() < 1000);
    let mut bytes = short.unwrap_or(ONE_APP.as_bytes()).to_vec();
    for _ in 0..random.below(3) {
        let at = random.below(bytes.len());
        let until = (at + random.below(4)).min(bytes.len());
        let piece = pieces[random.below(pieces.len())];
        bytes.splice(at..until, piece.iter().copied());
    }
    bytes
}

#[test]
fn random_bytes_are_survived() {
    let world = world();
    let mut random = Random(0xb17e5);
    for _ in 0..3000 {
        let mut bytes = || {
            let len = random.below(200);
            (0..len)
                .map(|_| u8::try_from(random.below(256)).unwrap())
                .collect::<Vec<u8>>()
        };
        survive(
            &Sources {
                proxy: source("proxy.conf", bytes()),
                mappings: Some(source("portmappings.conf", bytes())),
                hosts: Some(source("hosts.conf", bytes())),
                apps: Some(source("config.json", bytes())),
            },
            &world,
            true,
        );
    }
}
