//! The memory that the control groups of this process allow.

use std::fs;
use std::path::{Path, PathBuf};

/// From this value on a limit of cgroup v1 stands for none: it is the largest multiple of a page.
const UNLIMITED: u64 = 1 << 60;

/// Returns the smallest memory limit of the cgroup of this process and of those above it, as far as they are visible;
/// `None` without a limit.
///
/// Units: bytes.
/// Source: Linux `Documentation/admin-guide/cgroup-v2.rst` (memory.max), `cgroup-v1/memory.rst`.
pub fn memory_limit() -> Option<u64> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (own, mounts) = (read("/proc/self/cgroup"), read("/proc/self/mountinfo"));
    folders(&own, &mounts)
        .iter()
        .filter_map(|folder| limit_of(folder))
        .min()
}

/// The folders of the cgroup and of those above it, of v2 and of the memory controller of v1.
fn folders(own: &str, mounts: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for mount in mounts.lines().filter_map(Mount::parse) {
        let cgroup = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers) = (fields.next()?, fields.next()?);
            let is_it = if mount.is_v2 {
                number == "0" && controllers.is_empty()
            } else {
                controllers.split(',').any(|name| name == "memory")
            };
            fields.next().filter(|_| is_it)
        });
        let Some(cgroup) = cgroup else { continue };
        // Of a mount of a part of the tree, as containers have it, the root is that part. Where the own cgroup is not
        // below it, the root is all that can be seen.
        let below = Path::new(cgroup).strip_prefix(mount.root);
        let below = below.unwrap_or(Path::new(""));
        let is_plain = !below.components().any(|part| part.as_os_str() == "..");
        let mut folder = mount
            .point
            .join(if is_plain { below } else { Path::new("") });
        while folder.starts_with(&mount.point) {
            folders.push(folder.clone());
            if !folder.pop() {
                break;
            }
        }
    }
    folders
}

/// One line of mountinfo about cgroups.
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    is_v2: bool,
}

impl<'a> Mount<'a> {
    /// Layout: `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [FIELD…] - TYPE SOURCE SUPEROPTIONS`.
    ///
    /// Source: `proc_pid_mountinfo(5)`.
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut file_system = file_system.split(' ');
        let (kind, options) = (file_system.next()?, file_system.nth(1)?);
        let is_v2 = kind == "cgroup2";
        let is_memory = kind == "cgroup" && options.split(',').any(|option| option == "memory");
        (is_v2 || is_memory).then(|| Self {
            root,
            point: PathBuf::from(point),
            is_v2,
        })
    }
}

fn limit_of(folder: &Path) -> Option<u64> {
    let number = |name: &str| {
        let text = fs::read_to_string(folder.join(name)).ok()?;
        parse_limit(&text)
    };
    let files = ["memory.max", "memory.high", "memory.limit_in_bytes"];
    files.into_iter().filter_map(number).min()
}

/// `None` for `max`, and for the number that stands for it.
fn parse_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < UNLIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(own: &str, mounts: &str, expected: &[&str]) {
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(folders(own, mounts), expected);
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
    const V1: &str = "40 33 0:37 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                      41 33 0:38 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    #[test]
    fn every_cgroup_up_the_tree_is_found() {
        check(
            "0::/a.slice/b.service\n",
            V2,
            &[
                "/sys/fs/cgroup/a.slice/b.service",
                "/sys/fs/cgroup/a.slice",
                "/sys/fs/cgroup",
            ],
        );
        check(
            "9:pids:/x\n8:memory:/a\n0::/\n",
            V1,
            &["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory"],
        );
    }

    #[test]
    fn mounted_part_of_the_tree_is_the_root() {
        let part = "40 33 0:37 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        check("8:memory:/docker/1\n", part, &["/sys/fs/cgroup/memory"]);
        // A cgroup namespace whose root is elsewhere.
        check("0::/../other\n", V2, &["/sys/fs/cgroup"]);
        check("8:memory:/elsewhere\n", part, &["/sys/fs/cgroup/memory"]);
        check("nonsense\n", "nonsense\n\n - \n", &[]);
    }

    #[test]
    fn limits_are_numbers_below_that_of_none() {
        assert_eq!(parse_limit("25165824\n"), Some(25_165_824));
        assert_eq!(parse_limit("max\n"), None);
        assert_eq!(parse_limit("9223372036854771712\n"), None);
    }
}
