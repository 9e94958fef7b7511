//! The first 64 picks of every policy, checked in as files: tests/golden/balance.
//!
//! `SNPROXY_BLESS=1` writes them anew; `oracle.py` beside them works out by itself what they must say.

use std::collections::VecDeque;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::*;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/balance");
const PICKS: u8 = 64;
const WEIGHTS: [u32; 5] = [1, 2, 5, 0, 3];
/// The last pod.
const FULL: usize = 4;
const NAMES: [char; 5] = ['a', 'b', 'c', 'd', 'e'];
/// A connection ends after so many more picks.
const STAY: usize = 12;

fn run(text: &mut String, policy: Policy, full: bool) {
    let pods: Vec<(u64, u32)> = (1..)
        .zip(WEIGHTS)
        .map(|(last, weight)| (identity(([10, 0, 0, last], 30_000).into()), weight))
        .collect();
    let scheme = Scheme::build(policy, false, &pods);
    let mut loads = [0; 5];
    let mut live = VecDeque::new();
    writeln!(text, "\n{}", if full { "e is full" } else { "e has room" }).unwrap();
    writeln!(text, "turn random           client       a b c d e  pick").unwrap();
    for turn in 0..PICKS {
        if live.len() == STAY {
            let ended: usize = live.pop_front().expect("as many as STAY");
            loads[ended] -= 1;
        }
        let draw = Draw {
            random: hash::mix(turn.into()),
            turn: turn.into(),
            key: key([192, 0, 2, turn].into(), None),
        };
        let picked = scheme
            .pick(
                5,
                |pod| !(full && pod == FULL),
                |pod| loads[pod].into(),
                draw,
            )
            .expect("three have room");
        let (random, name) = (draw.random, NAMES[picked]);
        let before = loads.map(|load: u8| load.to_string()).join(" ");
        let client = format!("192.0.2.{turn}");
        writeln!(text, "{turn:4} {random:016x} {client:12} {before}  {name}").unwrap();
        loads[picked] += 1;
        live.push_back(picked);
    }
}

#[test]
fn the_first_picks_of_every_policy_are_those_on_file() {
    for &policy in Policy::ALL {
        let mut text = format!(
            "# {policy}: pods a to e at 10.0.0.1:30000 to 10.0.0.5:30000 weigh 1, 2, 5, 0 and 3.\n\
             # a to e: their connections before the pick; each connection ends {STAY} picks later.\n"
        );
        run(&mut text, policy, true);
        run(&mut text, policy, false);
        let path = Path::new(ROOT).join(format!("{policy}.txt"));
        if std::env::var_os("SNPROXY_BLESS").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            text == expected,
            "{} differs; SNPROXY_BLESS=1 writes it anew:\n{text}",
            path.display()
        );
    }
}

#[test]
fn every_file_of_vectors_is_of_a_policy() {
    let names: Vec<String> = Policy::ALL
        .iter()
        .map(|policy| format!("{policy}.txt"))
        .collect();
    for entry in fs::read_dir(ROOT).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "oracle.py" || names.contains(&name), "{name}");
    }
}
