//! Metrics: who gets them where, what they say, and that Prometheus takes them.

use snproxy_tests::{Ca, Conn, Ended, Host, Namespace, Net, Pod, eventually};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::Duration,
};

const SOON: Duration = Duration::from_secs(20);
/// Of metrics: on loopback, and on the host's address, where it is no cluster port.
const LOCAL: u16 = 9180;
const OPEN: u16 = 32_000;
/// Of Prometheus itself.
const PROMETHEUS: u16 = 9090;
/// curl's exit code for a connect that failed.
const NO_CONNECTION: i32 = 7;

/// A host with a pod at 1024 and metrics at its socket, on loopback, and at both of its addresses.
fn ground() -> Net {
    let net = Net::one();
    let host = net.host("host");
    let socket = host.folder().join("admin.sock");
    let admin = format!(
        "unix:{} 127.0.0.1:{LOCAL} {} {}",
        socket.display(),
        host.port(OPEN),
        host.port6(OPEN)
    );
    host.conf("ADMIN", &admin);
    host.pod(30000, Pod::answering("a"));
    host.mappings("1024:30000:9:false\n");
    net
}

/// curl's exit code and what it printed; it knows no proxies of the environment.
fn curl(from: &Namespace, arguments: &[&str]) -> (Option<i32>, String) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "30", "--noproxy", "*"]);
    let output = from.output(curl.args(arguments));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

/// The page of a host.
#[track_caller]
fn page(host: &Host) -> String {
    let url = format!("http://127.0.0.1:{LOCAL}/metrics");
    let (code, page) = curl(host.namespace(), &[&url]);
    assert_eq!(code, Some(0), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
    page
}

/// The value of a series, named with its labels; `None`: there is none.
fn value(page: &str, series: &str) -> Option<f64> {
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().expect("a number"))
}

#[track_caller]
fn becomes(host: &Host, series: &str, expected: f64) {
    let is = || value(&page(host), series).is_some_and(|value| (value - expected).abs() < 0.5);
    eventually(SOON, &format!("{series} {expected}"), is);
}

#[test]
fn they_are_given_at_every_address_and_nothing_else_is() {
    let net = ground();
    let host = net.host("host");
    host.start();
    let socket = host.folder().join("admin.sock");
    let client = net.client();
    let urls = [host.port(OPEN), host.port6(OPEN)].map(|at| format!("http://{at}"));
    for url in &urls {
        let told = client.curl(&["--include", &format!("{url}/metrics")]);
        let (head, page) = told.split_once("\r\n\r\n").expect("a head");
        let head = head.to_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let form = "content-type: text/plain; version=0.0.4; charset=utf-8";
        assert!(head.contains(form), "{head}");
        assert_eq!(value(page, "snproxy_hosts{state=\"up\"}"), Some(0.0));
        for (method, path) in [
            ("GET", "/status"),
            ("GET", "/ports"),
            ("GET", "/routes"),
            ("GET", "/explain?port=1024"),
            ("GET", "/"),
            ("POST", "/reload"),
            ("POST", "/metrics"),
        ] {
            let url = format!("{url}{path}");
            let said = client.curl(&["--include", "--request", method, &url]);
            assert!(said.starts_with("HTTP/1.1 404"), "{method} {path}: {said}");
            assert!(said.ends_with("\r\n\r\nGET /metrics\n"), "{said}");
        }
    }
    let path = socket.to_str().expect("a path");
    let words = ["--unix-socket", path, "http://snproxy/metrics"];
    let (_, by_socket) = curl(host.namespace(), &words);
    assert!(value(&by_socket, "snproxy_uptime_seconds").is_some());

    // Nobody but its owner gets them there, though all may have them where they are open.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("open the socket for all");
    let local = format!("http://127.0.0.1:{LOCAL}/metrics");
    let as_nobody = |words: &[&str]| {
        let mut curl = Command::new("setpriv");
        curl.args(["--reuid=1000", "--regid=1000", "--clear-groups", "--"]);
        curl.args(["curl", "--silent", "--noproxy", "*"])
            .args(words);
        host.namespace().output(&mut curl)
    };
    let turned_away = as_nobody(&words);
    assert!(!turned_away.status.success() && turned_away.stdout.is_empty());
    assert!(as_nobody(&[&local]).stdout.ends_with(b"# EOF\n"));

    host.stop();
    let gone = curl(host.namespace(), &[&local]);
    assert_eq!(gone.0, Some(NO_CONNECTION));
}

#[test]
fn they_move_with_what_happens() {
    let net = ground();
    let host = net.host("host");
    host.start();
    let pod = format!("{{port=\"1024\",upstream=\"{}\"}}", host.port(30000));
    let first = page(host);
    assert_eq!(value(&first, "snproxy_ports{action=\"steer\"}"), Some(1.0));
    assert_eq!(
        value(&first, "snproxy_connections_accepted_total"),
        Some(0.0)
    );
    assert_eq!(
        value(&first, &format!("snproxy_pod_connections_max{pod}")),
        Some(9.0)
    );
    let most = value(&first, "snproxy_descriptors_max").expect("a limit");
    let open = value(&first, "snproxy_descriptors_open").expect("some are open");
    assert!(open >= 5.0 && open < most, "{open} of {most}");

    let conns: Vec<Conn> = (0..3).map(|_| host.open(1024)).collect();
    becomes(host, "snproxy_connections_live", 3.0);
    becomes(host, &format!("snproxy_pod_connections{pod}"), 3.0);
    drop(conns);
    becomes(host, "snproxy_connections_live", 0.0);
    let ended = || {
        let page = page(host);
        let ends = ["clean", "client"]
            .map(|end| format!("snproxy_connections_ended_total{{end=\"{end}\"}}"));
        ends.iter().filter_map(|end| value(&page, end)).sum::<f64>()
    };
    eventually(SOON, "three ends", || (ended() - 3.0).abs() < 0.5);
    becomes(host, "snproxy_connections_accepted_total", 3.0);
    let lookups = value(&page(host), "snproxy_lookups_total{outcome=\"steered\"}");
    assert!(lookups.is_some_and(|lookups| lookups >= 3.0), "{lookups:?}");

    host.mappings("1024:30000:perhaps:false\n");
    becomes(host, "snproxy_configuration_refused", 1.0);
    becomes(host, "snproxy_configurations_refused_total", 1.0);
    host.mappings("1024:30000:9:false\n2000:30001:9:false\n");
    becomes(host, "snproxy_configuration_refused", 0.0);
    let down = format!("{{port=\"2000\",upstream=\"{}\"}}", host.port(30001));
    becomes(host, &format!("snproxy_pod_up{down}"), 0.0);
    becomes(host, "snproxy_ports_down", 1.0);
    becomes(host, "snproxy_configurations_refused_total", 1.0);
}

#[test]
fn callers_who_say_nothing_hold_up_neither_clients_nor_others_for_ever() {
    let net = ground();
    let host = net.host("host");
    host.start();
    let before = host.snproxy().descriptors();
    let open = |_| {
        let conn = host.open_locally(([127, 0, 0, 1], LOCAL));
        conn.send("GET /metrics HTTP/1.1\r\nhost:");
        conn
    };
    let silent: Vec<Conn> = (0..40).map(open).collect();
    assert_eq!(host.open(1024).greeting(), "a");
    // At another address nobody waits for them.
    let url = format!("http://{}/metrics", host.port(OPEN));
    assert!(net.client().curl(&[&url]).ends_with("# EOF\n"));
    // Nor does the control socket.
    assert_eq!(host.status()["state"], "running");
    page(host);
    for conn in &silent {
        assert_ne!(conn.rest(SOON).1, Ended::Open);
    }
    drop(silent);
    eventually(SOON, "descriptors as before", || {
        host.snproxy().descriptors() <= before
    });
}

#[test]
fn an_address_of_another_is_an_error_at_the_start() {
    let net = ground();
    let host = net.host("host");
    let taken = host.pod_at(([127, 0, 0, 1], LOCAL), Pod::answering("taken"));
    let process = host.launch();
    let status = process.wait(SOON);
    let log = process.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let why = format!("ADMIN: listen on 127.0.0.1:{LOCAL}: Address already in use");
    assert!(log.contains(&why), "{log}");
    drop(taken);
}

#[test]
fn a_cluster_port_of_metrics_is_not_steered() {
    let net = Net::one();
    let host = net.host("host");
    let socket = host.folder().join("admin.sock");
    let admin = format!("unix:{} {}", socket.display(), host.port(LOCAL));
    host.conf("ADMIN", &admin).conf("CONFLICT", "steal");
    host.pod(30000, Pod::answering("a"));
    host.mappings("1024:30000:9:false\n").start();
    assert!(
        host.log()
            .contains("9180 is a cluster port: it is not steered")
    );
    assert!(!host.log().contains("another program"), "{}", host.log());
    assert_eq!(host.action(LOCAL), "pass");
    let url = format!("http://{}/metrics", host.port(LOCAL));
    assert!(net.client().curl(&[&url]).ends_with("# EOF\n"));

    host.mappings("1024:30000:9:false\n9180:30000:9:false\n");
    let refused = || host.status()["reload"]["diagnostics"].to_string();
    eventually(SOON, "no mapping may have it", || {
        refused().contains("9180 is a cluster port served here")
    });
    eventually(SOON, "which the metrics tell", || {
        let page = net.client().curl(&[&url]);
        value(&page, "snproxy_configuration_refused") == Some(1.0)
    });
    host.stop();
    host.mappings("1024:30000:9:false\n")
        .conf("CONFLICT", "fail")
        .start();
    assert!(net.client().curl(&[&url]).ends_with("# EOF\n"));
}

/// What Prometheus answers a query whose answer is one number; `None`: it has none yet.
fn queried(host: &Host, query: &str) -> Option<f64> {
    let url = format!("http://127.0.0.1:{PROMETHEUS}");
    let mut promtool = Command::new("promtool");
    let promtool = promtool.args(["query", "instant", &url, query]);
    let output = host.namespace().output(promtool);
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, value) = told.trim().split_once("=> ")?;
    let (value, _) = value.split_once(" @")?;
    assert_eq!(told.lines().count(), 1, "{query}: {told}");
    Some(value.parse().expect("a number"))
}

#[track_caller]
fn told(host: &Host, query: &str, expected: f64) {
    let is = || queried(host, query).is_some_and(|value| (value - expected).abs() < 0.5);
    eventually(3 * SOON, &format!("{query} = {expected}"), is);
}

/// When the certificate in a file ends, as openssl and date say.
fn not_after(file: &Path) -> f64 {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["x509", "-noout", "-enddate", "-in"])
        .arg(file);
    let end = openssl.output().expect("openssl").stdout;
    let end = String::from_utf8(end).expect("text");
    let end = end.trim().strip_prefix("notAfter=").expect("an end");
    let mut date = Command::new("date");
    let seconds = date.args(["--utc", "+%s", "--date", end]).output();
    let seconds = String::from_utf8(seconds.expect("date").stdout).expect("text");
    seconds.trim().parse().expect("seconds")
}

#[test]
fn prometheus_takes_them_and_sees_certificates_come_to_their_end() {
    const DAY: Duration = Duration::from_hours(24);
    const EXPIRY: &str = "snproxy_certificate_expiry_timestamp_seconds{use=\"CLIENTTLS\",subject=\"CN=pod.example\"}";
    const FAILED: &str = "snproxy_certificate_rotation_failed";

    let net = ground();
    let host = net.host("host");
    let folder = host.folder().join("tls");
    let ca = Ca::new("the authority");
    let now = std::time::SystemTime::now();
    ca.issue_for(&["pod.example"], now - DAY..now + DAY * 5)
        .write_folder(&folder);
    host.conf("CLIENTTLS", "1024 tls").start();
    let prometheus = host.namespace().prometheus(PROMETHEUS, LOCAL);
    told(host, "up", 1.0);
    let first = not_after(&folder.join("cert.pem"));
    told(host, EXPIRY, first);
    told(host, FAILED, 0.0);
    told(host, &format!("count({EXPIRY} - time() < 14 * 86400)"), 1.0);

    // The CA's own certificate is watched too.
    let authority = format!(
        "snproxy_certificate_expiry_timestamp_seconds{{file=\"{}\"}}",
        folder.join("ca.pem").display()
    );
    told(host, &authority, not_after(&folder.join("ca.pem")));

    let renewed = ca.issue_for(&["pod.example"], now - DAY..now + DAY * 90);
    renewed.write_folder(&folder);
    let second = not_after(&folder.join("cert.pem"));
    assert!(second > first + 80.0 * 86400.0, "{first} {second}");
    told(host, EXPIRY, second);

    fs::write(folder.join("cert.pem"), "nothing").expect("a file");
    told(host, FAILED, 1.0);
    told(host, EXPIRY, second);
    renewed.write_folder(&folder);
    told(host, FAILED, 0.0);

    drop(host.open(1024));
    told(host, "snproxy_connections_accepted_total", 1.0);
    assert_eq!(
        queried(host, "scrape_samples_scraped > 30").map(|_| ()),
        Some(())
    );
    assert!(prometheus.exit_status().is_none());
}

#[test]
fn form_of_metrics_follows_the_request() {
    let net = ground();
    let host = net.host("host");
    host.start();
    let client = net.client();
    let url = format!("http://{}/metrics", host.port(OPEN));
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3";
    let open = client.curl(&["--include", "--header", accept, &url]);
    assert!(
        open.contains("application/openmetrics-text; version=1.0.0"),
        "{open}"
    );
    let counter = "# TYPE snproxy_connections_accepted counter\n";
    assert!(open.contains(counter), "{open}");
    let text = client.curl(&["--include", &url]);
    assert!(text.contains("text/plain; version=0.0.4"), "{text}");
    let counter = "# TYPE snproxy_connections_accepted_total counter\n";
    assert!(text.contains(counter), "{text}");
    let head = client.curl(&["--head", &url]);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-length: "), "{head}");
    assert!(!head.contains("# TYPE"), "{head}");
}

#[test]
fn names_of_other_sites_get_no_metrics() {
    let net = ground();
    let host = net.host("host");
    host.start();
    let client = net.client();
    let url = format!("http://{}/metrics", host.port(OPEN));
    for (name, status) in [
        ("evil.example", "421"),
        ("evil.example:9180", "421"),
        ("localhost", "200"),
        ("localhost:9180", "200"),
    ] {
        let header = format!("Host: {name}");
        let told = client.curl(&["--include", "--header", &header, &url]);
        assert!(
            told.starts_with(&format!("HTTP/1.1 {status}")),
            "{name}: {told}"
        );
    }
}

#[test]
fn idle_callers_of_one_source_starve_nobody() {
    let net = ground();
    let host = net.host("host");
    host.start();
    // More than there are places, and again and again: each would keep its place for 5 s.
    let idle = |count: usize| -> Vec<Conn> { (0..count).map(|_| host.open(OPEN)).collect() };
    let mut held = idle(60);
    let local = format!("http://127.0.0.1:{LOCAL}/metrics");
    let url = format!("http://{}/metrics", host.port(OPEN));
    for _ in 0..5 {
        held.extend(idle(20));
        for words in [["--max-time", "3", &url], ["--max-time", "3", &local]] {
            let (code, page) = curl(host.namespace(), &words);
            assert_eq!(code, Some(0), "{page}");
        }
        let of_same = net.client().curl(&["--max-time", "3", &url]);
        assert!(of_same.ends_with("# EOF\n"), "{of_same}");
    }
}
