//! `snproxy check`: is this a configuration, and what does it say?

use crate::conf;
use crate::daemon;
use crate::discovery::Root;

use super::{BAD_CONFIGURATION, DONE, show};

pub(super) fn check(root: &Root, explain: bool) -> u8 {
    let mut parsed = match root.read(None) {
        Ok(sources) => daemon::parse(&sources, &daemon::Names::default()),
        Err(diagnostics) => {
            show(&diagnostics);
            return BAD_CONFIGURATION;
        }
    };
    if let Some(conf) = &parsed.value {
        parsed.diagnostics.extend(daemon::check_certs(conf));
    }
    let wrong = show(&parsed.diagnostics);
    if let Some(conf) = &parsed.value {
        if explain {
            print_explained(conf);
        }
        if !wrong {
            let apps = match conf.apps.len() {
                0 => String::new(),
                apps => format!("{apps} apps, "),
            };
            println!(
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
        println!("{:<15} {:<28} {}", line.key, line.value, line.origin);
        println!("                {}", line.doc);
    }
}
