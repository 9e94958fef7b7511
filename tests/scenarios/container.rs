//! The image, as the manifest for Kubernetes runs it: the host's network, read-only, with its configuration mounted.

use rustix::process::{Resource, getrlimit};
use serde_json::Value;
use snproxy_tests::{Host, Net, Pod, Process, eventually};
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tempfile::TempDir;

const START: Duration = Duration::from_mins(1);
const SOON: Duration = Duration::from_secs(15);
const MANIFEST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/kubernetes/snproxy.yaml"
);
/// `capabilities` and `seccompProfile` of the manifest, in podman's words.
const LEAST: &[&str] = &[
    "--cap-drop=all",
    "--cap-add=BPF,NET_ADMIN",
    "--security-opt=seccomp=unconfined",
    "--security-opt=no-new-privileges",
];
const PRIVILEGED: &[&str] = &["--privileged"];

/// A file of the manifest's `ConfigMap`.
fn of_manifest(file: &str) -> String {
    let manifest = fs::read_to_string(MANIFEST).expect("the manifest");
    let head = format!("  {file}: |\n");
    let (_, block) = manifest.split_once(&head).expect("a file of the manifest");
    let lines = block.lines().map_while(|line| line.strip_prefix("    "));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The image under test, in a storage of its own; `None` where it may be missing and is.
struct Image {
    storage: TempDir,
    name: String,
}

impl Image {
    fn load() -> Option<Self> {
        let Some(archive) = env::var_os("SNPROXY_IMAGE") else {
            let strict = env::var_os("SNPROXY_TEST_STRICT").is_some_and(|strict| strict != "0");
            assert!(
                !strict,
                "SNPROXY_IMAGE names no image: `cargo xtask test` builds it"
            );
            eprintln!("skipped: SNPROXY_IMAGE names no image");
            return None;
        };
        let storage = TempDir::new().expect("storage of podman");
        let mut image = Self {
            storage,
            name: String::new(),
        };
        let loaded = output(
            image
                .podman()
                .args(["load", "--quiet", "--input"])
                .arg(archive),
        );
        let name = loaded.trim().rsplit(' ').next().expect("a name");
        name.clone_into(&mut image.name);
        Some(image)
    }

    fn podman(&self) -> Command {
        let mut podman = Command::new("podman");
        let store = self.storage.path().join("store");
        let run = self.storage.path().join("run");
        // What works in containers, on any file system, and with every layout of control groups.
        podman.args([
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--runtime=runc",
        ]);
        podman.arg("--root").arg(store).arg("--runroot").arg(run);
        podman
    }
}

/// What a command says; fails with what it says where it fails.
#[track_caller]
fn output(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error} (`cargo xtask test` installs what scenarios need)")
    });
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}\n{stderr}");
    String::from_utf8(stdout).expect("text")
}

/// One container on a host, and what is mounted into it; dropped, it is gone.
struct Container<'i> {
    image: &'i Image,
    name: String,
    /// `/etc/snproxy` and `/var/lib/snproxy`.
    conf: TempDir,
    mappings: TempDir,
    process: Process,
}

impl<'i> Container<'i> {
    /// Starts with these files, and waits until it is ready.
    #[track_caller]
    fn start(
        image: &'i Image,
        host: &Host,
        flags: &[&str],
        files: &[(&str, &str)],
        mappings: &str,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("snproxy-{}-{number}", std::process::id());
        let folder = || TempDir::new().expect("a folder to mount");
        let (conf, mapped) = (folder(), folder());
        config_map(conf.path(), files);
        fs::write(mapped.path().join("portmappings.conf"), mappings).expect("port mappings");
        let mut podman = image.podman();
        podman.args([
            "run",
            "--rm",
            "--read-only",
            "--network=host",
            "--tmpfs=/run/snproxy",
        ]);
        podman.arg(format!("--name={name}")).args(flags);
        // Podman asks for more than the hard limits of this machine otherwise.
        let files_most = getrlimit(Resource::Nofile)
            .maximum
            .map_or(1 << 20, |most| most.min(1 << 20));
        podman.arg(format!("--ulimit=nofile={files_most}:{files_most}"));
        podman.arg("--ulimit=nproc=4096:4096");
        for (from, to) in [(&conf, "/etc/snproxy"), (&mapped, "/var/lib/snproxy")] {
            podman.arg(format!("--volume={}:{to}:ro", from.path().display()));
        }
        podman
            .arg(&image.name)
            .args(["--conf", "/etc/snproxy/proxy.conf"]);
        let process = Process::spawn(host.namespace(), &name, &mut podman);
        let container = Self {
            image,
            name,
            conf,
            mappings: mapped,
            process,
        };
        container.process.wait_for_line(START, " ready: ");
        container
    }

    /// The probe of the manifest.
    #[track_caller]
    fn status(&self) -> Value {
        let mut exec = self.image.podman();
        exec.args(["exec", &self.name, "/snproxy", "status", "--json"]);
        let status = output(exec.args(["--conf", "/etc/snproxy/proxy.conf"]));
        serde_json::from_str(&status).expect("JSON")
    }

    /// Waits until files of this generation are in force.
    #[track_caller]
    fn reaches(&self, generation: u64) {
        let what = format!("generation {generation}");
        eventually(SOON, &what, || {
            self.status()["generation"].as_u64() == Some(generation)
        });
    }

    #[track_caller]
    fn signal(&self, signal: &str) {
        let mut kill = self.image.podman();
        output(kill.args(["kill", "--signal", signal, &self.name]));
    }

    /// Replaces the port mappings by rename.
    fn mappings(&self, text: &str) {
        let draft = self.mappings.path().join("draft");
        fs::write(&draft, text).expect("a draft");
        fs::rename(draft, self.mappings.path().join("portmappings.conf")).expect("rename");
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // It is none of our children: podman's end would not end it.
        let mut remove = self.image.podman();
        let _ = remove
            .args(["rm", "--force", "--ignore", "--time=0", &self.name])
            .output();
    }
}

/// What the kubelet does: a new folder with all files, `..data` renamed to it, and each file a link through `..data`.
fn config_map(folder: &Path, files: &[(&str, &str)]) {
    let version = tempfile::Builder::new().prefix("..").tempdir_in(folder);
    let version: PathBuf = version.expect("a folder of files").keep();
    for (name, text) in files {
        fs::write(version.join(name), text).expect("a file");
        let link = folder.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link).expect("a link");
        }
    }
    let draft = folder.join("..data_tmp");
    symlink(version.file_name().expect("a name"), &draft).expect("a link");
    fs::rename(draft, folder.join("..data")).expect("rename");
}

/// As on two nodes: the files of the manifest on both, a pod on one of them.
fn serves_as_the_manifest_runs_it(flags: &[&str]) {
    let Some(image) = Image::load() else { return };
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    b.pod(20000, Pod::echo());
    let (proxy, hosts) = (of_manifest("proxy.conf"), of_manifest("hosts.conf"));
    let files = [("proxy.conf", &*proxy), ("hosts.conf", &*hosts)];
    let on_a = Container::start(&image, a, flags, &files, "");
    let on_b = Container::start(
        &image,
        b,
        flags,
        &files,
        "61000:20000:10:false\n62000:20000:10:false\n",
    );
    assert_eq!(on_a.status()["steering"], "ebpf");

    // From the node that has no pod to the one that has, and there by itself.
    for host in [a, b] {
        let conn = host.open(61000);
        conn.send(b"hello");
        assert_eq!(conn.read(5), b"hello");
    }

    // A mapping more, by mv; then other files of the ConfigMap, by its swap.
    on_b.mappings("61000:20000:10:false\n61001:20000:10:false\n62000:20000:10:false\n");
    on_b.reaches(2);
    b.open(61001).send(b"hello").read(5);
    b.open(62000).send(b"hello").read(5);
    let fewer = proxy.replace("61000-63999", "61000-61999");
    assert_ne!(fewer, proxy);
    config_map(
        on_b.conf.path(),
        &[("proxy.conf", &fewer), ("hosts.conf", &hosts)],
    );
    on_b.reaches(3);
    assert!(b.is_refused(62000));

    // What Kubernetes does first when it stops a pod.
    let conn = b.open(61000);
    conn.send(b"before").read(6);
    on_b.signal("TERM");
    eventually(SOON, "no new connections", || b.is_refused(61000));
    assert_eq!(on_b.status()["state"], "draining");
    conn.send(b"after");
    assert_eq!(conn.read(5), b"after");
    drop(conn);
    assert_eq!(on_b.process.wait(SOON).code(), Some(0));
    assert_eq!(b.attached(), [0; 0]);
}

#[test]
fn a_privileged_container_serves_the_cluster_reloads_and_drains() {
    serves_as_the_manifest_runs_it(PRIVILEGED);
}

#[test]
fn a_container_with_two_capabilities_serves_the_cluster_reloads_and_drains() {
    serves_as_the_manifest_runs_it(LEAST);
}

#[test]
fn names_of_hosts_resolve_in_an_image_that_holds_nothing_but_snproxy() {
    let Some(image) = Image::load() else { return };
    let net = Net::one();
    let host = net.host("host");
    host.pod(20000, Pod::answering("pod"));
    let proxy = "CLUSTERPORTS 61000-63999\nPORTSCONF /var/lib/snproxy/portmappings.conf\n";
    let hosts = "node-b.test:32767\nnode-a.test:32767\n";
    // A name service that is a library of the host's would not fit the libc inside: it is not asked.
    let folder = TempDir::new().expect("a folder");
    let services = folder.path().join("nsswitch.conf");
    fs::write(&services, "hosts: resolve\n").expect("nsswitch.conf");
    let services = format!("--volume={}:/etc/nsswitch.conf:ro", services.display());
    let mut flags = LEAST.to_vec();
    flags.push(&services);
    flags.extend([
        "--add-host=node-a.test:10.77.0.1",
        "--add-host=node-b.test:10.77.0.2",
    ]);
    let container = Container::start(
        &image,
        host,
        &flags,
        &[("proxy.conf", proxy), ("hosts.conf", hosts)],
        "61000:20000:10:false\n",
    );
    // Its own is the name that resolves to an address of this host.
    assert_eq!(container.status()["host"], "10.77.0.1");
    assert_eq!(host.open(61000).greeting(), "pod");
}
