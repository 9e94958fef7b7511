//! The words of the command line, as other programs than snproxy are called.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::Cli;
use crate::conf;
use crate::diag::printable;

/// Most characters of a word that a message shows.
const MAX_SHOWN: usize = 64;

/// The program whose place snproxy takes under this name: it needs no command for its usual work.
const GO_PROXY: &str = "go-proxy";

const AMBASSADOR: &str = "ambassador";

/// Commands that take options with a single dash as well, as programs in Go do.
const AMBASSADORS: [&str; 3] = [AMBASSADOR, "tls-client", "tls-server"];

/// The words that clap is given for those that we were called with.
pub(super) fn of(called: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = called.into_iter().collect();
    let is_go_proxy = |word: &OsString| Path::new(word).file_name() == Some(OsStr::new(GO_PROXY));
    let is_ambassador = |word: &OsString| AMBASSADORS.iter().any(|name| word == name);
    let has_command = words.get(1).is_some_and(is_ambassador);
    if words.first().is_some_and(is_go_proxy) && !has_command {
        words.insert(1, AMBASSADOR.into());
    }
    if let Some(command) = words.get(1).and_then(|word| word.to_str())
        && let Some(command) = Cli::command().find_subcommand(command)
        && AMBASSADORS.contains(&command.get_name())
    {
        let longs: Vec<&str> = command
            .get_arguments()
            .filter_map(|argument| argument.get_long())
            .collect();
        for word in &mut words[2..] {
            if let Some(longer) = with_two_dashes(word, &longs) {
                *word = longer;
            }
        }
    }
    words
}

/// `--src` for `-src`, where there is such an option.
fn with_two_dashes(word: &OsStr, longs: &[&str]) -> Option<OsString> {
    let name = word.to_str()?.strip_prefix('-')?;
    let (option, _) = name.split_once('=').unwrap_or((name, ""));
    // A single letter is an option of one letter. Of a typo, clap names the nearest option only after two dashes.
    let is_option = |option: &str| {
        longs.contains(&option) || conf::nearest(longs.iter().copied(), option).is_some()
    };
    let is_name = option.starts_with(|c: char| c.is_ascii_alphabetic());
    (option.len() > 1 && is_name && is_option(option)).then(|| format!("--{name}").into())
}

/// Options of snproxy whose value is the next word.
const WITH_VALUE: [&str; 3] = ["--conf", "--set", "--admin"];

/// Words that are no commands of snproxy, and what does what they name.
const INSTEAD: [(&[&str], &str); 6] = [
    (&["version"], "did you mean `--version`?"),
    (
        &["stop", "shutdown", "quit", "kill", "end", "drain"],
        "the signal TERM to its process ends snproxy after a drain",
    ),
    (
        &["start", "run", "serve", "daemon", "proxy"],
        "`snproxy --conf FILE` starts the proxy",
    ),
    (
        &["test", "validate", "verify", "lint", "configtest"],
        "did you mean `check`?",
    ),
    (
        &["info", "stats", "show", "health"],
        "did you mean `status`?",
    ),
    (
        &["config", "conf", "dump"],
        "did you mean `check --explain`?",
    ),
];

/// The error where the first word is neither a command nor a file: a word without `/` and `.` names a file only if the
/// file exists.
pub(super) fn no_command(words: &[OsString]) -> Option<clap::Error> {
    let mut rest = words.iter().skip(1);
    let word = loop {
        let word = rest.next()?.to_str()?;
        if WITH_VALUE.contains(&word) {
            rest.next()?;
        } else if word == "--" {
            return None;
        } else if !word.starts_with('-') {
            break word;
        }
    };
    let mut command = Cli::command();
    command.build();
    let is_file = word.contains(['/', '.']) || fs::symlink_metadata(word).is_ok();
    if word.is_empty() || is_file || command.find_subcommand(word).is_some() {
        return None;
    }
    let names: Vec<&str> = command
        .get_subcommands()
        .map(clap::Command::get_name)
        .collect();
    let small = word.to_ascii_lowercase();
    let instead = INSTEAD
        .iter()
        .find(|(known, _)| known.contains(&small.as_str()));
    let hint = match (conf::nearest(names, word), instead) {
        (_, Some((_, instead))) => format!(": {instead}"),
        (Some(near), None) => format!(": did you mean `{near}`?"),
        (None, None) => ": there is no file of this name either".to_owned(),
    };
    let shown: String = printable(word).chars().take(MAX_SHOWN).collect();
    let message = format!("unknown command `{shown}`{hint}");
    Some(command.error(ErrorKind::InvalidSubcommand, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(called: &str, expected: &str) {
        let words = of(called.split(' ').map(OsString::from));
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn go_proxy_is_an_ambassador_by_its_name() {
        check(
            "/usr/bin/go-proxy --src :1 --dst a:2",
            "/usr/bin/go-proxy ambassador --src :1 --dst a:2",
        );
        check("go-proxy", "go-proxy ambassador");
        check(
            "go-proxy tls-server --src :1",
            "go-proxy tls-server --src :1",
        );
        check("snproxy --src :1", "snproxy --src :1");
        check("./snproxy ambassador", "./snproxy ambassador");
    }

    #[test]
    fn one_dash_is_as_good_as_two_for_ambassadors_only() {
        check(
            "snproxy tls-client -src :1 -tlscertpath=/a -x -dst b:-1",
            "snproxy tls-client --src :1 --tlscertpath=/a -x --dst b:-1",
        );
        check("go-proxy -lb -src :1", "go-proxy ambassador --lb --src :1");
        check("snproxy check -conf x", "snproxy check -conf x");
    }
}
