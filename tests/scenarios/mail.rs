//! Postfix and Dovecot as pods with sendProxy: servers that speak first, and are strict on headers.

use snproxy_tests::{Figure, Host, Net, Process, eventually, print_figure};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown},
    process::Command,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);
const CLUSTER: u16 = 1024;
const POD: u16 = 30000;

/// A folder that daemons without privileges can enter.
fn folder() -> TempDir {
    let folder = TempDir::new().expect("folder of a mail server");
    let open = Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open).expect("mode of the folder");
    folder
}

/// Postfix with an SMTP server on each port, which demands a PROXY header.
fn postfix(host: &Host, ports: &[u16]) -> (Process, TempDir) {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    for name in ["conf", "queue", "data"] {
        fs::create_dir(path(name)).expect("a folder of Postfix");
    }
    let id = |option: &str| {
        let output = Command::new("id").args([option, "postfix"]).output();
        let text = String::from_utf8(output.expect("id").stdout).expect("text");
        Some(text.trim().parse().expect("an id"))
    };
    chown(path("data"), id("-u"), id("-g")).expect("owner of data");
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\n\
         command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
         maillog_file = /dev/stdout\nmyhostname = mail.example\nmydestination =\n\
         alias_maps =\nsmtpd_peername_lookup = no\ninet_interfaces = all\n",
        path("queue").display(),
        path("data").display(),
    );
    fs::write(path("conf/main.cf"), main).expect("main.cf");
    let mut master = "postlog unix-dgram n - n - 1 postlogd\nanvil unix - - n - 1 anvil\n\
                      rewrite unix - - n - - trivial-rewrite\nproxymap unix - - n - - proxymap\n"
        .to_owned();
    let smtpd = "inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy";
    master.extend(ports.iter().map(|port| format!("{port} {smtpd}\n")));
    fs::write(path("conf/master.cf"), master).expect("master.cf");
    // Makes the folders of the queue.
    let check = Command::new("postfix")
        .arg("-c")
        .arg(path("conf"))
        .arg("check")
        .output()
        .expect("postfix (`cargo xtask test` installs it)");
    assert!(path("queue/public").exists(), "{check:?}");
    let mut command = Command::new("/usr/lib/postfix/sbin/master");
    command.arg("-c").arg(path("conf")).arg("-s");
    let process = host.namespace().server("postfix", &mut command, ports[0]);
    (process, folder)
}

/// Dovecot with an IMAP server, which closes a connection without a PROXY header after 3 s.
fn dovecot(host: &Host) -> (Process, TempDir) {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    for name in ["run", "state"] {
        fs::create_dir(path(name)).expect("a folder of Dovecot");
    }
    let conf = format!(
        "base_dir = {}\nstate_dir = {}\nlog_path = /dev/stderr\nprotocols = imap\nssl = no\n\
         haproxy_trusted_networks = 0.0.0.0/0\n\
         passdb {{\n driver = static\n args = nopassword=y\n}}\n\
         service imap-login {{\n process_min_avail = 1\n service_count = 0\n\
         inet_listener imap {{\n port = {POD}\n haproxy = yes\n }}\n\
         inet_listener imaps {{\n port = 0\n }}\n}}\n",
        path("run").display(),
        path("state").display(),
    );
    fs::write(path("dovecot.conf"), conf).expect("dovecot.conf");
    let mut command = Command::new("dovecot");
    command.arg("-F").arg("-c").arg(path("dovecot.conf"));
    let process = host.namespace().server("dovecot", &mut command, POD);
    (process, folder)
}

#[test]
fn postfix_passes_a_check_that_expects_its_greeting() {
    let net = Net::one();
    let host = net.host("host");
    let _postfix = postfix(host, &[POD, POD + 1]);
    host.conf("HEALTH", r#"tcp/200ms timeout=10s expect="220 ""#)
        .conf("CLIENTPROXY", "never")
        .mappings("1024:30000:99:true\n1025:30001:99:v2\n")
        .start();
    let pods = || {
        let status = host.status();
        status["pods"].as_array().expect("pods").clone()
    };
    let mut passed = 0;
    eventually(SOON, "both pass 5 checks", || {
        for pod in pods() {
            assert_eq!(pod["up"], true, "{pod:#}");
            assert_ne!(pod["health"]["last"], "failed its check", "{pod:#}");
        }
        passed += usize::from(
            pods()
                .iter()
                .all(|pod| pod["health"]["last"] == "passed its check"),
        );
        thread::sleep(Duration::from_millis(200));
        passed >= 5
    });
    for port in [CLUSTER, CLUSTER + 1] {
        assert_eq!(host.open(port).line(), "220 mail.example ESMTP Postfix");
    }
}

#[test]
fn dovecot_serves_silent_clients() {
    const CLIENTS: usize = 20;
    let net = Net::hosts(["a", "b"]);
    let (a, b) = (net.host("a"), net.host("b"));
    let _dovecot = dovecot(b);
    b.mappings("1024:30000:99:true\n").start();
    a.start();
    // The clients have private addresses: their own headers are waited for.
    for host in [b, a] {
        let start = Instant::now();
        let conns: Vec<_> = (0..CLIENTS).map(|_| host.open(CLUSTER)).collect();
        for conn in &conns {
            let greeting = conn.line();
            assert!(greeting.starts_with("* OK "), "{greeting}");
        }
        let name = format!("{CLIENTS} greetings of Dovecot by way of {}", host.name());
        print_figure(
            &name,
            Figure::Time(start.elapsed()),
            Figure::Time(Duration::from_secs(2)),
        );
    }
}
