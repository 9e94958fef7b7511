//! Names of hosts.conf get other addresses while the files stay as they are.

use snproxy_tests::{Host, Net, eventually, snproxy_binary};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    time::Duration,
};

/// Names are resolved again every minute; the rest is patience.
const A_MINUTE_AND_MORE: Duration = Duration::from_secs(90);

/// Starts snproxy with an /etc/hosts of its own: the file `names` in the folder of the host.
fn start_with_names(host: &Host, names: &str) {
    host.overwrite("names", names);
    let (names, script) = (host.folder().join("names"), host.folder().join("start"));
    // The mount is of this process alone, and gone with it.
    let inside = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c '{inside}' '{}' '{}' \"$@\"\n",
        names.display(),
        snproxy_binary().display()
    );
    fs::write(&script, text).expect("write the script");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("mode of the script");
    host.binary(&script).start();
}

/// Lines of the log that say that a configuration is in force.
fn in_force(host: &Host) -> Vec<String> {
    let log = host.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("configuration in force"));
    lines.map(str::to_owned).collect()
}

#[test]
fn names_that_move_are_followed_without_a_reload_and_others_change_nothing() {
    let net = Net::hosts(["still", "new", "gone"]);
    let [still, new, gone] = ["still", "new", "gone"].map(|name| net.host(name));
    for host in [still, new, gone] {
        host.hosts(&format!(
            "{}\nb.example:32767\nc.example:32767\n",
            host.port(32767)
        ));
    }
    start_with_names(
        still,
        "10.77.0.8 b.example\n10.77.0.9 b.example\n10.77.0.7 c.example\n",
    );
    start_with_names(new, "");
    start_with_names(gone, "10.77.0.8 b.example\n10.77.0.7 c.example\n");
    let unresolved = |host: &Host| host.status()["reload"]["diagnostics"].to_string();
    assert!(unresolved(new).contains("`b.example` does not resolve"));
    assert_eq!(new.action(2000), "pass", "no other host has an address");
    assert_eq!(gone.action(2000), "steer");

    // The same addresses in another order; a name that begins to resolve; one that ends beside one that moves.
    still.overwrite(
        "names",
        "10.77.0.7 c.example\n10.77.0.9 b.example\n10.77.0.8 b.example\n",
    );
    new.overwrite("names", "fd77::8 b.example\n10.77.0.8 b.example\n");
    gone.overwrite("names", "10.77.0.6 c.example\n");

    eventually(A_MINUTE_AND_MORE, "a name has an address", || {
        new.action(2000) == "steer"
    });
    eventually(A_MINUTE_AND_MORE, "a name moved", || {
        !in_force(gone).is_empty()
    });
    let said = in_force(new).concat();
    assert!(
        said.contains("b.example nothing -> 10.77.0.8+fd77::8"),
        "{said}"
    );
    let left = unresolved(new);
    assert!(
        !left.contains("b.example") && left.contains("c.example"),
        "{left}"
    );
    let said = in_force(gone).concat();
    assert!(
        said.contains("c.example 10.77.0.7 -> 10.77.0.6") && !said.contains("b.example"),
        "{said}"
    );
    assert_eq!(unresolved(gone), "[]", "the last addresses stay");
    // It was started first, so its names were looked at before theirs.
    assert_eq!(in_force(still), [""; 0]);
    assert_eq!(
        [still, new, gone].map(|host| host.count("/generation")),
        [1, 2, 2]
    );
}
