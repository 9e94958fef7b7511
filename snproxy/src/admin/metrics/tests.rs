use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/metrics");
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");

fn status() -> Status {
    let json = fs::read_to_string(format!("{GOLDEN}/status.json")).expect("status.json");
    serde_json::from_str(&json).expect("a status")
}

/// Whether what is expected is to be written anew.
fn is_blessed() -> bool {
    std::env::var_os("SNPROXY_BLESS").is_some()
}

#[test]
fn a_status_has_its_page() {
    let page = page(status()).unwrap();
    let file = format!("{GOLDEN}/page.txt");
    if is_blessed() {
        fs::write(&file, &page).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(page, expected, "SNPROXY_BLESS=1 writes it");
}

#[test]
fn what_is_not_there_has_no_series() {
    let mut status = status();
    status.kernel = None;
    status.directory = None;
    status.limits = crate::admin::api::Limits::default();
    status.pods.clear();
    let page = page(status).unwrap();
    for name in [
        "lookups",
        "directory",
        "descriptors",
        "pod_",
        "connections_max",
    ] {
        assert!(!page.contains(&format!("snproxy_{name}")), "{name}: {page}");
    }
}

#[test]
fn pods_beyond_the_limit_are_counted_only() {
    let mut status = status();
    let pod = status.pods[0].clone();
    status.pods = (1..=61_744)
        .map(|port| crate::admin::api::PodStatus {
            cluster_port: port,
            ..pod.clone()
        })
        .collect();
    let page = page(status).unwrap();
    let up = page
        .lines()
        .filter(|line| line.starts_with("snproxy_pod_up{"));
    assert_eq!(up.count(), MAX_EACH);
    let left = format!(
        "snproxy_series_left_out{{of=\"pods\"}} {}\n",
        61_744 - MAX_EACH
    );
    assert!(page.contains(&left), "{left}");
    let help = FAMILIES
        .iter()
        .find(|family| family.name == "series_left_out");
    let said = help.unwrap().help.replace(',', "");
    assert!(said.contains(&format!(" {MAX_EACH} ")), "{said}");
}

#[test]
fn each_family_has_a_name_of_its_own() {
    let mut names = HashSet::new();
    for family in FAMILIES {
        assert!(names.insert(family.name), "{} twice", family.name);
        let is_good = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(family.name.chars().all(is_good), "{}", family.name);
        assert!(!family.name.ends_with("_total"), "{}", family.name);
        for sample in (family.read)(&status()) {
            assert_eq!(sample.labels.len(), family.labels.len(), "{}", family.name);
        }
    }
}

/// As README has it.
fn table() -> String {
    let mut table = "| metric | labels | what it says |\n| --- | --- | --- |\n".to_owned();
    for family in FAMILIES {
        let end = match family.kind {
            Kind::Gauge => "",
            Kind::Counter => "_total",
        };
        let labels: Vec<_> = family
            .labels
            .iter()
            .map(|label| format!("`{label}`"))
            .collect();
        let (name, labels, help) = (family.name, labels.join(" "), family.help);
        let _ = writeln!(table, "| `snproxy_{name}{end}` | {labels} | {help} |");
    }
    table
}

#[test]
fn readme_has_the_table_of_metrics() {
    const START: &str = "<!-- metrics -->\n";
    const END: &str = "<!-- /metrics -->";

    let readme = fs::read_to_string(README).expect("README.md");
    let (head, rest) = readme.split_once(START).expect("where it starts");
    let (found, tail) = rest.split_once(END).expect("where it ends");
    if is_blessed() {
        let whole = [head, START, &table(), END, tail].concat();
        fs::write(README, whole).unwrap();
    } else {
        assert_eq!(found, table(), "SNPROXY_BLESS=1 writes it");
    }
}
