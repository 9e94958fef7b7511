//! Which process holds a socket: looked up in /proc with the rights of the command's caller, since the
//! daemon has given up its own.

use std::collections::HashMap;
use std::fs;

use crate::admin::api::Ports;
use crate::diag::printable;

/// Adds process id and name to every owner that may be seen.
pub(super) fn name(ports: &mut Ports) {
    let wanted: Vec<u32> = ports
        .ranges
        .iter()
        .filter_map(|range| range.owner.as_ref().map(|owner| owner.inode))
        .collect();
    if wanted.is_empty() {
        return;
    }
    let found = holders(&wanted);
    for owner in ports
        .ranges
        .iter_mut()
        .filter_map(|range| range.owner.as_mut())
    {
        if let Some((pid, name)) = found.get(&owner.inode) {
            owner.pid = Some(*pid);
            owner.name = Some(name.clone());
        }
    }
}

fn holders(wanted: &[u32]) -> HashMap<u32, (u32, String)> {
    let mut found = HashMap::new();
    let Ok(processes) = fs::read_dir("/proc") else {
        return found;
    };
    let pids = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        // Another user's process, or one that just ended.
        let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            let inode = target.to_str().and_then(socket_inode);
            if let Some(inode) = inode.filter(|inode| wanted.contains(inode)) {
                // Any process names itself as it likes.
                let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
                let name = String::from_utf8_lossy(&name);
                let name = name.strip_suffix('\n').unwrap_or(&name);
                found
                    .entry(inode)
                    .or_insert((pid, printable(name).into_owned()));
            }
        }
    }
    found
}

/// `socket:[4711]` names inode 4711.
fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn our_own_listener_is_found_by_its_inode() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let inode = socket_inode(link.to_str().unwrap()).unwrap();
        assert_eq!(holders(&[inode])[&inode].0, std::process::id());
    }
}
