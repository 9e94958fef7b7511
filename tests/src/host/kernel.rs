//! What the kernel holds for the snproxy of a host.

use super::Host;
use serde_json::Value;
use std::{fs, os::unix::fs::MetadataExt, process::Command};

/// Lookups that may come on top of the connections that were made: a segment that arrives when its connection is gone
/// (a FIN sent twice, on a busy machine) is looked up as a SYN is.
const STRAY: u64 = 5;
const STRAY_PER_CENT: u64 = 5;

impl Host {
    /// Fails unless the kernel gave this many connections to the listener, a few stray segments aside.
    #[track_caller]
    pub fn assert_steered(&self, count: u64) {
        self.assert_looked_up("steered", count);
    }

    /// Fails unless the kernel refused this many connections, a few stray segments aside.
    #[track_caller]
    pub fn assert_refused(&self, count: u64) {
        self.assert_looked_up("refused", count);
    }

    #[track_caller]
    fn assert_looked_up(&self, outcome: &str, count: u64) {
        let found = self.count(&format!("/kernel/{outcome}"));
        assert!(
            (count..=count + STRAY + count * STRAY_PER_CENT / 100).contains(&found),
            "{outcome} by the kernel: {found}, expected {count}"
        );
    }

    /// Ids of the programs that are attached to this host's network namespace.
    #[track_caller]
    pub fn attached(&self) -> Vec<u64> {
        let namespace = self
            .namespace()
            .run(|| fs::metadata("/proc/thread-self/ns/net"));
        let inode = namespace.expect("a namespace").ino();
        let links = self.bpftool("link show").expect("list of links");
        let links = links.as_array().expect("links");
        links
            .iter()
            .filter(|link| link["netns_ino"].as_u64() == Some(inode))
            .map(|link| link["prog_id"].as_u64().expect("program of a link"))
            .collect()
    }

    /// Id of a map that the running snproxy holds, by its name.
    #[track_caller]
    pub fn map_id(&self, name: &str) -> u32 {
        let maps = format!("/proc/{}/fdinfo", self.snproxy().pid());
        let descriptors = fs::read_dir(&maps).expect("a running process");
        let id_of = |text: String| {
            text.lines()
                .find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok())
        };
        let ids = descriptors
            .flatten()
            .filter_map(|descriptor| fs::read_to_string(descriptor.path()).ok())
            .filter_map(id_of);
        let is_it = |id: &u32| {
            let map = self.bpftool(&format!("map show id {id}"));
            map.is_some_and(|map| map["name"] == name)
        };
        ids.into_iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no map {name} in {maps}"))
    }

    /// What `bpftool` answers to these words; `None` when it failed.
    #[track_caller]
    pub fn bpftool(&self, words: &str) -> Option<Value> {
        let mut bpftool = Command::new("bpftool");
        bpftool.arg("--json").args(words.split_whitespace());
        let output = self.namespace().output(&mut bpftool);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).unwrap_or_default())
    }
}
