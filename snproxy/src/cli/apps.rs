//! An apps file alone: `snproxy apps`, and every command that is given one in the place of a proxy.conf.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::conf::APPS_COMMAND;
use crate::diag::Source;
use crate::discovery::Root;
use crate::proxy::every_address;

/// Connections at once unless it is said otherwise.
pub(super) const MAX_WORKERS: NonZeroU32 = NonZeroU32::new(50).unwrap();

/// Connections that wait for a worker. Those that come then wait for it in the kernel, as long as they like.
const MAX_WAITING: u32 = 65_536;

/// Whether this is an apps file rather than a proxy.conf.
pub(super) fn is_apps(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
}

/// The set of files that begins with an apps file; `settings` are lines of a proxy.conf.
pub(super) fn root(
    file: &Path,
    max_workers: NonZeroU32,
    settings: &[String],
) -> anyhow::Result<Root> {
    let Some(name) = quoted(file) else {
        bail!(
            "{}: the name of the file cannot be said in one line",
            file.display()
        );
    };
    if let Some(several) = settings.iter().find(|line| line.contains(['\n', '\r'])) {
        bail!("--set {several:?}: expected one `KEY value`");
    }
    // What a proxy for apps alone is: no other hosts, no pods, one target after the other, and blind to what it carries.
    let own = [
        format!("HOST {}", every_address()),
        "PORT none".to_owned(),
        "CLUSTERPORTS none".to_owned(),
        format!("APPSCONF {name}"),
        "BALANCE rr".to_owned(),
        "CLIENTPROXY never".to_owned(),
        format!("MAXCONN {max_workers}"),
        format!("QUEUE {MAX_WAITING}"),
    ];
    let mut lines: Vec<&str> = Vec::new();
    for line in own.iter().chain(settings) {
        // Of what is said for all ports the last one counts, as of any option.
        if let Some(key) = key_for_all(line) {
            let is_same = |before: &str| {
                key_for_all(before).is_some_and(|before| before.eq_ignore_ascii_case(key))
            };
            lines.retain(|before| !is_same(before));
        }
        lines.push(line);
    }
    let text = format!("{}\n", lines.join("\n"));
    Ok(Root::Apps(Source {
        path: PathBuf::from(APPS_COMMAND),
        text,
    }))
}

/// The key of a line that is not for some ports only.
fn key_for_all(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let key = words.next()?;
    let is_list = |word: &str| {
        word.chars()
            .all(|c| c.is_ascii_digit() || c == ',' || c == '-')
    };
    let is_scoped = words.next().is_some_and(is_list) && words.next().is_some();
    (!is_scoped).then_some(key)
}

/// A file's name as a value of proxy.conf.
fn quoted(file: &Path) -> Option<String> {
    let name = file
        .to_str()
        .filter(|name| !name.contains(char::is_control))?;
    let quote = ['"', '\'']
        .into_iter()
        .find(|quote| !name.contains(*quote))?;
    (!name.is_empty()).then(|| format!("{quote}{name}{quote}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf;

    #[test]
    fn what_is_set_replaces_what_is_ours() {
        let set = [
            "balance lc",
            "BALANCE 5001 wlc",
            "Host 10.0.0.1",
            "X 1",
            "X 2",
        ];
        let set = set.map(str::to_owned);
        let Root::Apps(said) = root(Path::new("a.json"), MAX_WORKERS, &set).unwrap() else {
            panic!("no apps");
        };
        let lines: Vec<&str> = said.text.lines().collect();
        for gone in ["BALANCE rr", "HOST 0.0.0.0", "HOST ::", "X 1"] {
            assert!(!lines.contains(&gone), "{lines:?}");
        }
        for kept in [
            "PORT none",
            "balance lc",
            "BALANCE 5001 wlc",
            "Host 10.0.0.1",
            "X 2",
        ] {
            assert!(lines.contains(&kept), "{lines:?}");
        }
    }

    #[test]
    fn any_name_of_a_file_is_found_again() {
        for name in [
            "config.json",
            "/a b/c#d,.json",
            "it's.json",
            "say \"x\".json",
        ] {
            let Root::Apps(said) = root(Path::new(name), MAX_WORKERS, &[]).unwrap() else {
                panic!("no apps");
            };
            assert_eq!(conf::files(&said).apps.unwrap(), Path::new(name));
        }
        assert!(root(Path::new("a\nb.json"), MAX_WORKERS, &[]).is_err());
        assert!(root(Path::new("a.json"), MAX_WORKERS, &["A b\nC d".to_owned()]).is_err());
    }
}
