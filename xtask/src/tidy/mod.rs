//! `cargo xtask tidy`: what the compiler does not refuse, but the house does.

mod code;
mod layers;

use crate::root::workspace;
use anyhow::{Context, bail};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

const MOST_LINES: usize = 600;

/// Folders and files in which `unsafe` may stand; all but these keep the promise that they need no second look.
const UNSAFE: &[&str] = &["snproxy/src/sys/", "snproxy/src/sys.rs", "snproxy-ebpf/"];
/// The one promise about shared bytes that must be made beside their declaration.
const SHARED: (&str, &str) = ("snproxy-common/src/", "unsafe impl aya::Pod for");

/// Words that do not get in, each with the way out.
const REFUSED: &[(&str, &str)] = &[
    (
        "#[ignore",
        "a test runs or goes: skip at run time with a printed reason",
    ),
    (
        "#[should_panic",
        "assert on the error or use catch_unwind, so that the wrong panic does not pass",
    ),
    ("todo!", "write it, or leave it out and open an issue"),
    (
        "unimplemented!",
        "write it, or leave it out and open an issue",
    ),
];

pub(crate) fn run() -> anyhow::Result<()> {
    let sources = sources(workspace())?;
    let findings = findings(&sources);
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings in {} files", findings.len(), sources.len());
    }
    println!("{} files are tidy", sources.len());
    Ok(())
}

/// A Rust file of the repository.
struct Source {
    /// From the workspace's folder, with `/`.
    path: String,
    text: String,
}

#[derive(Debug, Eq, PartialEq)]
struct Finding {
    path: String,
    line: usize,
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}", self.path, self.line, self.message)
    }
}

/// All Rust files below a folder but those of builds and hidden folders, in order.
fn sources(root: &Path) -> anyhow::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder))
            .with_context(|| format!("read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(root.join(&path))
                    .with_context(|| format!("read {}", path.display()))?;
                sources.push(Source {
                    path: path.to_string_lossy().into_owned(),
                    text,
                });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn findings(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Source { path, text } in sources {
        let code = code::without_text(text);
        let mut found = |line: usize, message: String| {
            findings.push(Finding {
                path: path.clone(),
                line,
                message,
            });
        };
        let lines = text.lines().count();
        if lines > MOST_LINES {
            found(
                lines,
                format!("{lines} lines; split it (at most {MOST_LINES})"),
            );
        }
        for (number, line) in (1..).zip(code.lines()) {
            if has_word(line, "unsafe") && !may_be_unsafe(path, line) {
                found(
                    number,
                    "unsafe code; it belongs into snproxy/src/sys".to_owned(),
                );
            }
            for (word, way_out) in REFUSED {
                if line.contains(word) {
                    found(number, format!("{word}: {way_out}"));
                }
            }
        }
        for (line, message) in layers::findings(path, &code) {
            found(line, message);
        }
    }
    findings
}

fn may_be_unsafe(path: &str, line: &str) -> bool {
    UNSAFE.iter().any(|place| path.starts_with(place))
        || (path.starts_with(SHARED.0) && line.contains(SHARED.1))
}

fn has_word(line: &str, word: &str) -> bool {
    let is_part =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = line.as_bytes();
    line.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        !is_part(before) && !is_part(bytes.get(at + word.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, expected: &[(usize, &str)]) {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let found = findings(&[source]);
        let found: Vec<_> = found
            .iter()
            .map(|finding| (finding.line, finding.message.as_str()))
            .collect();
        let agree = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, expected)| found.0 == expected.0 && found.1.contains(expected.1));
        assert!(agree, "{path}: found {found:?}, expected {expected:?}");
    }

    #[test]
    fn the_repository_is_tidy() {
        let sources = sources(workspace()).expect("read the repository");
        assert!(
            sources
                .iter()
                .any(|source| source.path == "xtask/src/tidy/mod.rs")
        );
        let findings: Vec<_> = findings(&sources)
            .iter()
            .map(|finding| format!("\n{finding}"))
            .collect();
        assert!(findings.is_empty(), "{}", findings.concat());
    }

    #[test]
    fn unsafe_code_stays_in_its_places() {
        let text = "#![expect(unsafe_code)]\nfn f() { unsafe { g() } }\n";
        check("snproxy/src/sys/bpf.rs", text, &[]);
        check("snproxy-ebpf/src/steering.rs", text, &[]);
        check("snproxy/src/net/dial.rs", text, &[(2, "unsafe code")]);
        check(
            "snproxy-common/src/steering.rs",
            text,
            &[(2, "unsafe code")],
        );
        check(
            "snproxy-common/src/steering.rs",
            "unsafe impl aya::Pod for super::Counts {}\n",
            &[],
        );
        check(
            "tests/src/net.rs",
            "// unsafe\nconst A: &str = \"unsafe\";\n",
            &[],
        );
    }

    #[test]
    fn long_files_are_named_with_their_length() {
        check("tests/src/net.rs", &"\n".repeat(MOST_LINES), &[]);
        check(
            "tests/src/net.rs",
            &"\n".repeat(MOST_LINES + 1),
            &[(601, "601 lines")],
        );
    }

    #[test]
    fn every_refused_word_is_found_and_all_are_told() {
        let text = "#[ignore = \"slow\"]\n#[should_panic]\nfn f() { todo!(); unimplemented!() }\n";
        let expected = [
            (1, "#[ignore"),
            (2, "#[should_panic"),
            (3, "todo!"),
            (3, "unimplemented!"),
        ];
        check("tests/scenarios/pump.rs", text, &expected);
    }

    #[test]
    fn a_module_uses_itself_and_lower_layers_only() {
        check(
            "snproxy/src/flow/mod.rs",
            "use crate::{net::dial, route::Table, wire::proxy::{self, X}};\n",
            &[],
        );
        check(
            "snproxy/src/flow/mod.rs",
            "use crate::flow::header;\nfn f() { crate::pump::run() }\n",
            &[],
        );
        check(
            "snproxy/src/net/dial.rs",
            "use crate::pump;\n",
            &[(1, "net may not use pump")],
        );
        check(
            "snproxy/src/pump/copy.rs",
            "\nfn f() -> crate::flow::End {}\n",
            &[(2, "pump may not use flow")],
        );
        let nested = "use crate::{\n    addr::HostPort,\n    conf::{Conf, route},\n    daemon::{self, reload::X},\n    admin,\n};\n";
        check(
            "snproxy/src/wire/proxy.rs",
            nested,
            &[(3, "conf"), (4, "daemon"), (5, "admin")],
        );
        check("snproxy/src/main.rs", "use snproxy::cli;\n", &[]);
        check("tests/src/net.rs", "use crate::pump;\n", &[]);
    }

    #[test]
    fn an_undeclared_module_asks_for_a_place() {
        check("snproxy/src/relay.rs", "fn f() {}\n", &[(1, "no layer")]);
        check(
            "snproxy/src/cli/mod.rs",
            "use crate::helpers::x;\n",
            &[(1, "cli may not use helpers")],
        );
    }
}
