//! Real programs over two hosts: they run on `b`, and their clients know only `a`.

use snproxy_tests::{Figure, Host, Net, Process, print_figure};
use std::{
    fs::{self, File, Permissions},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);
/// The cluster port of the program, and its host port.
const CLUSTER: u16 = 1024;
const POD: u16 = 30000;

fn two_hosts() -> Net {
    Net::hosts(["a", "b"])
}

/// Starts both proxies; `b` maps the program's ports with this sendProxy.
#[track_caller]
fn joined<'n>(net: &'n Net, send_proxy: &str) -> (&'n Host, &'n Host) {
    let (a, b) = (net.host("a"), net.host("b"));
    b.mappings(&format!("{CLUSTER}:{POD}:500:{send_proxy}\n"))
        .start();
    (a.start(), b)
}

/// Runs a command on the net's client to its end, which must be a good one, and gives what it printed.
#[track_caller]
fn ran(net: &Net, command: &mut Command) -> String {
    let output = net.client().namespace().output(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a line of shell on the net's client.
#[track_caller]
fn shell(net: &Net, line: &str) -> String {
    ran(net, Command::new("sh").args(["-ec", line]))
}

#[test]
fn nginx_of_another_host_sees_the_true_client() {
    let net = two_hosts();
    let tells = "$proxy_protocol_addr to $proxy_protocol_server_addr:$proxy_protocol_server_port";
    let nginx = net.host("b").nginx(POD, "proxy_protocol", tells);
    let (a, b) = joined(&net, "true");
    let url = format!("http://{}/", a.port(CLUSTER));

    let expected = format!("10.77.0.101 to 10.77.0.1:{CLUSTER}\n");
    assert_eq!(net.client().curl(&[&url]), expected);
    b.reloaded_after(|b| b.mappings(&format!("{CLUSTER}:{POD}:500:v2\n")));
    assert_eq!(net.client().curl(&[&url]), expected);
    // A client that is a proxy itself says who its client is.
    let through = net.client().haproxy(8000, a.port(CLUSTER), "send-proxy-v2");
    let own = net.client().curl(&["http://127.0.0.1:8000/"]);
    assert_eq!(own, "127.0.0.1 to 127.0.0.1:8000\n");
    assert!(nginx.log().contains("10.77.0.101 to "), "{}", nginx.log());
    drop(through);
}

#[test]
fn redis_answers_a_benchmark_from_another_host() {
    const REQUESTS: u64 = 20_000;
    let net = two_hosts();
    let words = "--save '' --appendonly no --protected-mode no --bind 0.0.0.0 --dir /tmp";
    let mut redis = Command::new("sh");
    redis.args(["-c", &format!("exec redis-server --port {POD} {words}")]);
    let _redis = net.host("b").namespace().server("redis", &mut redis, POD);
    let (a, _) = joined(&net, "false");
    let at = format!("-h {} -p {CLUSTER}", a.v4());

    let start = Instant::now();
    let printed = shell(
        &net,
        &format!("redis-benchmark {at} -n {REQUESTS} -c 50 -q -t set,get"),
    );
    print_figure(
        "redis-benchmark over two hosts, 20,000 each of SET and GET",
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_secs(6)),
    );
    assert!(printed.contains("GET: "), "{printed}");
    let stats = shell(&net, &format!("redis-cli {at} info stats"));
    let commands = stats
        .lines()
        .find_map(|line| line.strip_prefix("total_commands_processed:"));
    let commands: u64 = commands.expect(&stats).trim().parse().expect("a number");
    assert!(commands >= 2 * REQUESTS, "{commands} commands");
    // Fifty requests on the way at once, in order.
    let printed = shell(
        &net,
        &format!("redis-benchmark {at} -n {REQUESTS} -P 50 -q -t lpush,lrange_100"),
    );
    assert!(printed.contains("LRANGE_100"), "{printed}");
}

#[test]
fn ssh_to_another_host_hears_the_banner_first() {
    let net = two_hosts();
    let b = net.host("b");
    let folder = TempDir::new().expect("folder of sshd");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let made = Command::new("sh")
        .args(["-ec", "mkdir -p /run/sshd; cd $0; for key in host own; do ssh-keygen -q -t ed25519 -N '' -f $key; done"])
        .arg(folder.path())
        .status();
    assert!(made.is_ok_and(|made| made.success()), "ssh-keygen");
    let conf = format!(
        "Port {POD}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\n",
        path("host"),
        path("own.pub"),
    );
    fs::write(path("sshd_config"), conf).expect("sshd_config");
    let mut sshd = Command::new("/usr/sbin/sshd");
    sshd.args(["-D", "-e", "-f", &path("sshd_config")]);
    let _sshd = b.namespace().server("sshd", &mut sshd, POD);
    let (a, _) = joined(&net, "false");

    let start = Instant::now();
    assert!(a.open(CLUSTER).line().starts_with("SSH-2.0-"));
    print_figure(
        "banner of sshd over two hosts",
        Figure::Time(start.elapsed()),
        Figure::Time(Duration::from_millis(300)),
    );
    let ssh = format!(
        "ssh -F none -i {} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o LogLevel=ERROR -p {CLUSTER} root@{}",
        path("own"),
        a.v4()
    );
    // Both ways: the file goes there, what it was comes back.
    let sent = "head -c 20000000 /dev/urandom | tee";
    let local = path("sent");
    let there = shell(&net, &format!("{sent} {local} | {ssh} sha256sum"));
    assert_eq!(there, shell(&net, &format!("sha256sum < {local}")));
    let back = shell(&net, &format!("{ssh} cat {local} | sha256sum"));
    assert_eq!(back, there);
    let seen = shell(&net, &format!("{ssh} 'echo $SSH_CONNECTION'"));
    assert!(
        seen.starts_with(&b.v4().to_string()),
        "its own proxy dialled: {seen}"
    );
}

#[test]
fn iperf3_runs_both_ways_over_two_hosts() {
    let net = two_hosts();
    let mut iperf3 = Command::new("iperf3");
    iperf3.args(["--server", "--forceflush", "--port", &POD.to_string()]);
    let server = net.host("b").namespace().server("iperf3", &mut iperf3, POD);
    let (a, _) = joined(&net, "false");

    for (test, (way, mebibytes, options)) in (1..).zip([
        ("there", 200, &[][..]),
        ("back", 200, &["--reverse"]),
        // Ends with the way that is done first.
        ("both ways", 16, &["--bidir", "--parallel", "4"]),
    ]) {
        // It turns away who comes while it still ends the test before.
        server.wait_for_line(SOON, &format!("(test #{test})"));
        let mut client = Command::new("iperf3");
        let (host, port) = (a.v4().to_string(), CLUSTER.to_string());
        client.args([
            "--client", &host, "--port", &port, "--json", "--bytes", "256M",
        ]);
        let start = Instant::now();
        let printed = ran(&net, client.args(options));
        print_figure(
            &format!("iperf3, 256 MiB {way} over two hosts"),
            Figure::Time(start.elapsed()),
            Figure::Time(Duration::from_secs(2)),
        );
        let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON of iperf3");
        let received = report["end"]["sum_received"]["bytes"].as_u64();
        assert!(
            received > Some(mebibytes << 20),
            "{way}: {received:?} in {}\n{}",
            report["end"],
            server.log()
        );
    }
}

/// A file of this size in which each 64 KiB begin with bytes of their own, and nothing else takes room on the disk.
fn speckled(path: &Path, size: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.set_len(size)?;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for at in (0..size).step_by(64 << 10) {
        file.seek(SeekFrom::Start(at))?;
        let mut speck = Vec::with_capacity(1024);
        for _ in 0..128 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            speck.extend(state.to_le_bytes());
        }
        file.write_all(&speck)?;
    }
    Ok(())
}

#[test]
fn curl_gets_a_gibibyte_from_another_host_whole() {
    const SIZE: u64 = 1 << 30;
    let net = two_hosts();
    let b = net.host("b");
    let folder = TempDir::new().expect("folder of files");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("mode");
    let file = folder.path().join("large");
    speckled(&file, SIZE).expect("a file");
    let body = format!(
        "http {{ access_log off; sendfile on; server {{ listen {POD}; root {}; }} }}",
        folder.path().display()
    );
    let _nginx = b.namespace().nginx(POD, &body);
    let (a, _) = joined(&net, "false");

    let url = format!("http://{}/large", a.port(CLUSTER));
    let hash = |command: &str| shell(&net, &format!("{command} | sha256sum"));
    let (expected, (got, took)) = thread::scope(|scope| {
        let expected = scope.spawn(|| hash(&format!("cat {}", file.display())));
        let start = Instant::now();
        let got = hash(&format!(
            "curl --silent --show-error --fail --noproxy '*' {url}"
        ));
        (expected.join().expect("join"), (got, start.elapsed()))
    });
    assert_eq!(got, expected);
    print_figure(
        "curl and sha256sum of 1 GiB over two hosts",
        Figure::Time(took),
        Figure::Time(Duration::from_secs(15)),
    );
}

/// A fresh cluster of `PostgreSQL` on the program's port.
#[track_caller]
fn postgres(host: &Host) -> (Process, TempDir) {
    let versions =
        fs::read_dir("/usr/lib/postgresql").expect("postgresql (`cargo xtask test` installs it)");
    let programs: Option<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .find(|bin| bin.join("postgres").exists());
    let programs = programs.expect("a server of postgresql (`cargo xtask test` installs it)");
    let folder = TempDir::new().expect("folder of postgres");
    let owner = Command::new("id").args(["-u", "postgres"]).output();
    let owner = String::from_utf8(owner.expect("id").stdout).expect("text");
    let owner = owner
        .trim()
        .parse()
        .expect("the user that its package makes");
    chown(folder.path(), Some(owner), None).expect("owner of the folder");
    let data = folder.path().join("data");
    let run = |program: &str| {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=postgres",
                "--regid=postgres",
                "--init-groups",
                "--",
            ])
            .arg(programs.join(program))
            .arg("-D")
            .arg(&data)
            .current_dir(folder.path())
            .stdin(Stdio::null());
        command
    };
    let mut initdb = run("initdb");
    let made = initdb
        .args([
            "--auth=trust",
            "--username=tester",
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
        ])
        .output();
    let made = made.expect("initdb");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    fs::write(data.join("pg_hba.conf"), "host all all all trust\n").expect("pg_hba.conf");
    let mut server = run("postgres");
    server.args([
        "-h",
        "0.0.0.0",
        "-p",
        &POD.to_string(),
        "-c",
        "fsync=off",
        "-c",
        "unix_socket_directories=",
    ]);
    (
        host.namespace().server("postgres", &mut server, POD),
        folder,
    )
}

#[test]
fn psql_asks_a_postgres_of_another_host() {
    const ROWS: u64 = 300_000;
    let net = two_hosts();
    let (_postgres, _folder) = postgres(net.host("b"));
    let (a, _) = joined(&net, "false");

    let psql = format!(
        "psql 'host={} port={CLUSTER} user=tester dbname=postgres' -qtA",
        a.v4()
    );
    assert_eq!(shell(&net, &format!("{psql} -c 'select 6 * 7'")), "42\n");
    // Rows there, rows back.
    let there =
        "-c 'create table rows (n bigint)' -c 'copy rows from stdin' -c 'select sum(n) from rows'";
    let sum = shell(&net, &format!("seq 1 {ROWS} | {psql} {there}"));
    assert_eq!(sum, format!("{}\n", ROWS * (ROWS + 1) / 2));
    let back = shell(
        &net,
        &format!("{psql} -c 'select n from rows order by n' | sha256sum"),
    );
    assert_eq!(back, shell(&net, &format!("seq 1 {ROWS} | sha256sum")));
}
