//! `snproxy check`: is this a configuration, and what does it say?

use crate::conf;
use crate::daemon;
use crate::discovery::Root;

use super::output::{err, out};
use super::{BAD_CONFIGURATION, DONE, show};

/// How a configuration is checked.
pub(super) struct Options {
    /// Print each key.
    pub(super) explain: bool,
    /// Warnings fail.
    pub(super) strict: bool,
    pub(super) ignore_unknown: bool,
}

pub(super) fn check(root: &Root, options: &Options) -> u8 {
    let mut parsed = match root.read(None) {
        Ok(sources) => {
            let names = daemon::Names::new(options.ignore_unknown);
            daemon::parse_to_check(&sources, &names)
        }
        Err(diagnostics) => {
            show(&diagnostics);
            return BAD_CONFIGURATION;
        }
    };
    if let Some(conf) = &parsed.value {
        parsed.diagnostics.extend(daemon::check_certs(conf));
    }
    let (errors, warnings) = show(&parsed.diagnostics);
    let wrong = errors > 0 || options.strict && warnings > 0;
    if wrong && errors == 0 {
        err!("warnings fail with --strict");
    }
    if let Some(conf) = &parsed.value {
        if options.explain {
            print_explained(conf);
        }
        if !wrong {
            let apps = match conf.apps.len() {
                0 => String::new(),
                apps => format!("{apps} apps, "),
            };
            out!(
                "{}: fine: {} mappings, {apps}{} cluster ports, {} hosts",
                root,
                conf.mappings.len(),
                conf.cluster_ports.len(),
                conf.hosts.len()
            );
        }
    }
    if wrong { BAD_CONFIGURATION } else { DONE }
}

fn print_explained(conf: &conf::Conf) {
    for line in conf::explain(conf) {
        out!("{:<15} {:<28} {}", line.key, line.value, line.origin);
        out!("                {}", line.doc);
    }
}
