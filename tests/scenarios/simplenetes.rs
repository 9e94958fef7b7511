//! The pod of Simplenetes in which snproxy stands in for the original executable.

use snproxy_tests::{Host, Net, Pod, eventually, snproxy_binary};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(15);
const POD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/simplenetes");
/// Who runs the pods of a host: its daemon gives up root before it starts one.
const USER: &str = "1000";

/// The home of a host as Simplenetes lays it out, with this pod in it; dropped, the pod is stopped.
struct Home<'h> {
    folder: TempDir,
    host: &'h Host,
}

impl<'h> Home<'h> {
    fn new(host: &'h Host, hosts: &str, mappings: &str) -> Self {
        let folder = TempDir::new().expect("a home");
        let home = Self { folder, host };
        let executable = home.pod().join("config/executable/proxy");
        fs::create_dir_all(home.pod()).expect("folders of a pod");
        run(Command::new("cp")
            .args(["-r", &format!("{POD}/.")])
            .arg(home.pod()));
        // What a developer's machine has and a host has not.
        fs::remove_dir_all(home.pod().join("config/_dev.conf")).expect("the developer's files");
        fs::copy(snproxy_binary(), &executable).expect("the executable");
        home.file("hosts.conf", hosts);
        home.file("portmappings.conf", mappings);
        let everybody = fs::Permissions::from_mode(0o755);
        fs::set_permissions(home.folder.path(), everybody).expect("mode");
        run(Command::new("chown")
            .args(["-R", USER])
            .arg(home.folder.path()));
        home
    }

    fn pod(&self) -> PathBuf {
        self.folder.path().join("pods/proxy/release/0.1.0")
    }

    /// Replaces a file by rename, as the daemon of Simplenetes does.
    fn file(&self, name: &str, text: &str) {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, text).expect("a draft");
        fs::rename(draft, self.folder.path().join(name)).expect("rename");
    }

    /// What `./proxy-wrapper ACTION` prints, started as the daemon starts it.
    fn action(&self, action: &str) -> String {
        let mut setpriv = Command::new("setpriv");
        let user = [format!("--reuid={USER}"), format!("--regid={USER}")];
        setpriv.args(user).args(["--clear-groups", "sh", "-c"]);
        setpriv.arg(format!(
            "{} {action}",
            self.pod().join("proxy-wrapper").display()
        ));
        let output = self.host.namespace().output(setpriv.current_dir("/"));
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{action}: {stdout}{stderr}");
        stdout
    }

    fn log(&self) -> String {
        self.action("logs")
    }
}

impl Drop for Home<'_> {
    fn drop(&mut self) {
        let wrapper = self.pod().join("proxy-wrapper");
        let _ = Command::new(wrapper).arg("kill").output();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let status = command.status();
    assert!(status.is_ok_and(|status| status.success()), "{command:?}");
}

fn grant(executable: &Path) {
    run(Command::new("setcap")
        .arg("cap_bpf,cap_net_admin+ep")
        .arg(executable));
}

/// Started, changed and stopped by the actions that Simplenetes knows.
fn stands_in(steering: &str, granted: bool) {
    let net = Net::one();
    let host = net.host("host");
    host.pod(30000, Pod::answering("pod"));
    let home = Home::new(host, "10.77.0.1:32767\n", "61000:30000:10:false\n");
    if granted {
        grant(&home.pod().join("config/executable/proxy"));
    }
    assert!(home.action("ps").contains("status: non-existing"));
    home.action("run");
    // Again: it runs already.
    home.action("run");
    let status = home.action("status");
    assert!(status.contains("status: running\n"), "{status}");
    assert!(status.contains("readiness: 1\n"), "{status}");
    assert!(
        home.log().contains(&format!(" by {steering};")),
        "{}",
        home.log()
    );
    assert_eq!(host.open(61000).greeting(), "pod");

    home.file(
        "portmappings.conf",
        " 61001:30000:10:false\n 61001:30000:10:false\n",
    );
    eventually(SOON, "the new mapping", || !host.is_refused(61001));
    assert_eq!(host.open(61001).greeting(), "pod");
    home.action("reload-configs conf");

    home.action("rerun");
    assert_eq!(host.open(61001).greeting(), "pod");
    home.action("stop");
    assert!(host.is_refused(61001));
    assert!(home.log().contains(" stopped"), "{}", home.log());
    let status = home.action("ps");
    assert!(status.contains("status: exited"), "{status}");
    // Again: there is nothing to stop.
    home.action("stop");
    home.action("rm");
    assert!(home.action("create-ramdisks -l").is_empty());
}

#[test]
fn the_pod_is_run_by_an_ordinary_user_with_a_listener_for_each_mapped_port() {
    stands_in("listeners", false);
}

#[test]
fn the_pod_steers_by_ebpf_where_its_executable_was_granted_two_capabilities() {
    stands_in("ebpf", true);
}
