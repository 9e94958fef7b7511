//! `snproxy ambassador`, `tls-client` and `tls-server`: the options of go-proxy, as a configuration in memory.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};

use crate::conf::says_socket;
use crate::daemon::runtime_folder;
use crate::proxy::{Builder, Service, Upstream, every_address, is_word};

use super::FAILED;
use super::keys::{DEFAULTS, DISCOVERED, Keys};
use super::log;
use super::output::err;
use super::run::{Options, run as run_proxy};

/// Go's names of address families.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Net {
    Tcp,
    Tcp4,
    Tcp6,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum SendProxy {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Verify {
    Require,
    Optional,
    None,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Carry connections from here to servers, given by address or found in etcd
    Ambassador(Plain),
    /// The same, with TLS on the way to the servers
    TlsClient(Tls),
    /// The same, with TLS on the way from the clients
    TlsServer(Tls),
}

/// Runs it; `set` are lines of a proxy.conf.
pub(super) fn run(command: &Command, admin: Option<&str>, set: &[String]) -> anyhow::Result<u8> {
    match command {
        Command::Ambassador(said) => start("snproxy ambassador", said, admin, set, None),
        Command::TlsClient(said) => tls_client(said, admin, set),
        Command::TlsServer(said) => tls_server(said, admin, set),
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct Plain {
    /// Addresses that are used: of IPv4 (`tcp4`), of IPv6 (`tcp6`), or of both (`tcp`). Without it `--src :port` is IPv4, and servers are of both
    #[arg(long)]
    net: Option<Net>,

    /// Where to listen: `:6379`, `127.0.0.1:6379`, `[::1]:6379`, or a range of ports, `:5000-5999`
    #[arg(long, value_name = "ADDRESS")]
    src: Vec<String>,

    /// Where connections go: `10.0.0.7:6379`, a name and a port. With one --src every one of them; with several the first goes to the first, and so on
    #[arg(long, value_name = "ADDRESS")]
    dst: Vec<String>,

    /// An etcd to find servers in: `http://etcd0:2379`
    #[arg(long, value_name = "URL")]
    dsc: Vec<String>,

    /// What to find there: the servers are the keys under it, `/srv/redis/10.0.0.7:6379`
    #[arg(long, value_name = "KEY")]
    srv: Option<String>,

    /// For an etcd by https: a folder with ca.pem, and cert.pem and key.pem where etcd asks for them, or "ca=FILE cert=FILE key=FILE"
    #[arg(long, value_name = "CERTS", requires = "dsc")]
    dsc_certs: Option<String>,

    /// The user that etcd knows
    #[arg(long, value_name = "NAME", requires = "dsc")]
    user: Option<String>,

    /// A file whose first line is the user's password
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<String>,

    /// Spread connections (`--balance rr`) instead of trying the servers in their order
    #[arg(long, conflicts_with = "BALANCE")]
    lb: bool,

    /// What is logged: debug, info, warn, error [default: the variable `LOG_LEVEL`, else info]
    #[arg(long, value_name = "LEVEL", value_parser = log::level_option)]
    loglevel: Option<String>,

    /// Tell the servers who the client is, by a PROXY header
    #[arg(long, value_name = "VERSION")]
    send_proxy: Option<SendProxy>,

    /// Require a PROXY header of each client; with NETWORKS, of these, and others cannot send one
    #[arg(
        long,
        value_name = "NETWORKS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = ""
    )]
    accept_proxy: Option<String>,

    #[command(flatten)]
    keys: Keys,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Tls {
    #[command(flatten)]
    plain: Plain,

    /// Folder with ca.pem, cert.pem and key.pem; also `file:///path` and `s3://bucket/prefix`
    #[arg(long, value_name = "FOLDER", env = "GO_PROXY_CERTPATH")]
    tlscertpath: Option<String>,

    /// Who signed the certificates of the other side
    #[arg(long, value_name = "FILE", env = "GO_PROXY_CA")]
    tlscacert: Option<String>,

    /// The key of our certificate
    #[arg(long, value_name = "FILE", env = "GO_PROXY_KEY")]
    tlskey: Option<String>,

    /// Our certificate
    #[arg(long, value_name = "FILE", env = "GO_PROXY_CERT")]
    tlscert: Option<String>,

    /// tls-client: the name that is asked for, and that the certificate must have [default: that of --dst]
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,

    /// Protocols to agree on (ALPN), in order of preference
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',')]
    alpn: Vec<String>,

    /// Whether the other side must prove who it is; `optional` is for tls-server [default: require]
    #[arg(long = "tls-verify")]
    verify: Option<Verify>,
}

fn tls_client(said: &Tls, admin: Option<&str>, set: &[String]) -> anyhow::Result<u8> {
    let Some(mut tls) = certificates(said)? else {
        return Ok(no_certificate());
    };
    match said.verify {
        None | Some(Verify::Require) => {}
        Some(Verify::None) => tls.push_str(" verify=none"),
        Some(Verify::Optional) => {
            bail!("--tls-verify optional: a server is verified or not: require or none")
        }
    }
    if let Some(name) = &said.sni {
        tls.push_str(" name=");
        tls.push_str(word("--sni", name)?);
    }
    start(
        "snproxy tls-client",
        &said.plain,
        admin,
        set,
        Some(("UPSTREAMTLS", tls)),
    )
}

fn tls_server(said: &Tls, admin: Option<&str>, set: &[String]) -> anyhow::Result<u8> {
    let Some(mut tls) = certificates(said)? else {
        return Ok(no_certificate());
    };
    if said.sni.is_some() {
        bail!("--sni is for tls-client: a server is asked for a name");
    }
    match said.verify {
        None | Some(Verify::Require) => tls.push_str(" verify=require"),
        Some(Verify::Optional) => tls.push_str(" verify=optional"),
        Some(Verify::None) => {
            eprintln!("snproxy: warning: --tls-verify none: clients need no certificate");
            tls.push_str(" verify=none");
        }
    }
    start(
        "snproxy tls-server",
        &said.plain,
        admin,
        set,
        Some(("CLIENTTLS", tls)),
    )
}

/// As go-proxy says it.
fn no_certificate() -> u8 {
    err!("No certificate specified");
    FAILED
}

/// Where certificates are, and the protocols, as the keys of proxy.conf take them; `None`: nothing is said of them.
fn certificates(said: &Tls) -> anyhow::Result<Option<String>> {
    let is_said = |text: &&String| !text.is_empty();
    let mut tls = if let Some(path) = said.tlscertpath.as_ref().filter(is_said) {
        let others = [
            ("--tlscacert", &said.tlscacert),
            ("--tlscert", &said.tlscert),
            ("--tlskey", &said.tlskey),
        ];
        // So does go-proxy; a user who named another CA believes in it.
        for (option, _) in others
            .iter()
            .filter(|(_, file)| file.as_ref().is_some_and(|it| is_said(&it)))
        {
            err!(
                "snproxy: warning: {option} is not used: --tlscertpath (GO_PROXY_CERTPATH) {path} has all three"
            );
        }
        place("--tlscertpath", path)?
    } else {
        let files = [
            ("--tlscacert", "ca", &said.tlscacert),
            ("--tlscert", "cert", &said.tlscert),
            ("--tlskey", "key", &said.tlskey),
        ];
        let mut words = Vec::new();
        for (option, name, file) in files {
            if let Some(file) = file.as_ref().filter(is_said) {
                if file.starts_with("s3://") {
                    bail!("{option} {file}: name the prefix of all three with --tlscertpath");
                }
                words.push(format!("{name}={}", place(option, file)?));
            }
        }
        if words.is_empty() {
            return Ok(None);
        }
        words.join(" ")
    };
    if !said.alpn.is_empty() {
        let protocols: anyhow::Result<Vec<&str>> = (said.alpn.iter())
            .map(|protocol| word("--alpn", protocol))
            .collect();
        tls.push_str(" alpn=");
        tls.push_str(&protocols?.join(","));
    }
    Ok(Some(tls))
}

/// A folder or file as it is from everywhere, or the address of one.
fn place(option: &str, text: &str) -> anyhow::Result<String> {
    if text.starts_with("s3://") {
        return word(option, text).map(str::to_owned);
    }
    let path = text.strip_prefix("file://").unwrap_or(text);
    let path = std::path::absolute(path).with_context(|| format!("{option} {text}"))?;
    let path = path.to_string_lossy();
    word(option, &path).map(str::to_owned)
}

/// A text that is one word in a line of proxy.conf.
fn word<'a>(option: &str, text: &'a str) -> anyhow::Result<&'a str> {
    if !is_word(text) {
        bail!("{option} {text:?}: blanks, commas, quotes and # cannot be part of it");
    }
    Ok(text)
}

/// Translates the options and runs the proxy; `tls` is a key of all ports.
fn start(
    called: &str,
    said: &Plain,
    admin: Option<&str>,
    set: &[String],
    tls: Option<(&str, String)>,
) -> anyhow::Result<u8> {
    if said.src.is_empty() {
        err!("missing required flag --src");
        return Ok(FAILED);
    }
    let client_proxy = match said.accept_proxy.as_deref().map(str::trim) {
        None => "never".to_owned(),
        Some("") if tls.as_ref().is_some_and(|(key, _)| *key == "CLIENTTLS") => bail!(
            "--accept-proxy needs the networks of the proxies here, such as \
             --accept-proxy=10.0.0.0/8: a header ahead of TLS is read from listed networks only"
        ),
        Some("") => "require".to_owned(),
        Some(networks) => format!("require {networks}"),
    };
    let mut builder = Builder::new(called).set("CLIENTPROXY", client_proxy);
    let discovered = DISCOVERED.into_iter().filter(|_| said.dst.is_empty());
    for (key, value) in DEFAULTS.into_iter().chain(discovered) {
        builder = builder.set(key, value);
    }
    if said.lb {
        builder = builder.set("BALANCE", "rr");
    }
    for (key, value) in &said.keys.0 {
        builder = builder.set(key, value);
    }
    let tls_key = tls.as_ref().map(|(key, _)| *key);
    if let Some((key, value)) = tls {
        builder = builder.set(key, value);
    }
    for line in set {
        let line = line.trim();
        let (key, value) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        if tls_key.is_some_and(|tls| tls.eq_ignore_ascii_case(key)) {
            bail!("--set {line:?}: all ports of {called} have its TLS");
        }
        builder = builder.set(key, value);
    }
    match said.net {
        None | Some(Net::Tcp) => {}
        Some(Net::Tcp4) => builder = builder.set("FAMILY", "ipv4"),
        Some(Net::Tcp6) => builder = builder.set("FAMILY", "ipv6"),
    }
    for service in services(said)? {
        builder = builder.service(service);
    }
    if !said.dsc.is_empty() {
        builder = builder.etcd(&said.dsc).etcd_options(etcd_options(said)?);
    }
    let builder = match (admin, builder.first_port()) {
        (Some(admin), _) if says_socket(admin) => builder.set("ADMIN", admin),
        (None, _) if builder.is_said("ADMIN") => builder,
        (_, Some(port)) => {
            let (socket, addrs) = (socket(port), admin.unwrap_or_default());
            builder.set("ADMIN", format!("unix:{} {addrs}", socket.display()))
        }
        (Some(admin), None) => builder.set("ADMIN", admin),
        (None, None) => builder,
    };
    let root = builder.root()?;
    let options = Options {
        all_ports: true,
        log_level: said.loglevel.clone(),
        // No files that could be bad, and go-proxy has no other code.
        refused: FAILED,
        ignore_unknown: false,
    };
    run_proxy(root, &options)
}

/// How etcd is asked, in the words of ETCD.
fn etcd_options(said: &Plain) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    match &said.dsc_certs {
        Some(certs) if certs.contains('=') => {
            for file in certs.split_whitespace() {
                let (name, path) = file.split_once('=').unwrap_or(("", file));
                words.push(format!("{name}={}", place("--dsc-certs", path)?));
            }
        }
        Some(certs) => words.push(place("--dsc-certs", certs)?),
        None => needs_no_certs(&said.dsc)?,
    }
    if let Some(user) = &said.user {
        words.push(format!("user={}", word("--user", user)?));
    }
    if let Some(file) = &said.password_file {
        words.push(format!("password-file={}", place("--password-file", file)?));
    }
    Ok(words)
}

/// Errors: members are asked by https, and `--dsc-certs` is not there.
pub(super) fn needs_no_certs(dsc: &[String]) -> anyhow::Result<()> {
    let is_https = |url: &str| url.trim_start().to_ascii_lowercase().starts_with("https:");
    if dsc.iter().flat_map(|urls| urls.split(',')).any(is_https) {
        bail!(
            "--dsc https: who signed the certificates of etcd? Name a folder with ca.pem by --dsc-certs"
        );
    }
    Ok(())
}

/// Where the ambassador of this port is asked.
fn socket(port: u16) -> PathBuf {
    runtime_folder().join(format!("ambassador-{port}.sock"))
}

/// Which addresses lead where.
fn services(said: &Plain) -> anyhow::Result<Vec<Service>> {
    let send_proxy = said.send_proxy.map(|version| match version {
        SendProxy::V1 => crate::proxy::SendProxy::V1,
        SendProxy::V2 => crate::proxy::SendProxy::V2,
    });
    let upstream = |dst: &String| match send_proxy {
        Some(version) => Upstream::new(dst).send_proxy(version),
        None => Upstream::new(dst),
    };
    let src: anyhow::Result<Vec<String>> =
        said.src.iter().map(|src| listen(said.net, src)).collect();
    let src = src?;
    if let Some(twice) = (1..src.len()).find(|at| src[..*at].contains(&src[*at])) {
        bail!("--src {}: it is named twice", said.src[twice]);
    }
    if let Some(src) = said.src.iter().find(|src| src.ends_with(":0")) {
        bail!("--src {src}: expected a port from 1 to 65535");
    }
    for dst in &said.dst {
        fits("--dst", said.net, dst)?;
    }
    match (said.dst.as_slice(), &said.srv) {
        ([], None) => {
            bail!("nowhere to go: name a server with --dst, or a service with --srv and --dsc")
        }
        ([], Some(srv)) if said.dsc.is_empty() => {
            bail!("--srv {srv}: name the etcd that knows it, with --dsc http://host:2379")
        }
        ([], Some(srv)) => {
            let mut service = Service::new(srv).discovered(srv);
            if let Some(version) = send_proxy {
                service = service.send_proxy(version);
            }
            Ok(vec![src.iter().fold(service, Service::listen)])
        }
        (all, _) if src.len() == 1 => {
            let service = Service::new(&said.src[0]).listen(&src[0]);
            let service = all.iter().map(upstream).fold(service, Service::upstream);
            Ok(vec![service])
        }
        (all, _) if all.len() != src.len() => bail!(
            "{} --src and {} --dst: with several --src each has its own --dst, in the same order",
            src.len(),
            all.len()
        ),
        (all, _) => {
            let pairs = said.src.iter().zip(&src).zip(all);
            let services = pairs
                .map(|((name, src), dst)| Service::new(name).listen(src).upstream(upstream(dst)));
            Ok(services.collect())
        }
    }
}

/// An address to listen on, in the family that --net asks for.
fn listen(net: Option<Net>, src: &str) -> anyhow::Result<String> {
    if let Some(ports) = src.strip_prefix(':') {
        if !ports.split('-').all(|port| port.parse::<u16>().is_ok()) {
            bail!("--src {src}: expected a port or a range of ports after the colon (1-65535)");
        }
        let ip: IpAddr = match net {
            None | Some(Net::Tcp4) => [0; 4].into(),
            Some(Net::Tcp) => every_address(),
            Some(Net::Tcp6) => [0u16; 8].into(),
        };
        return Ok(match ip {
            IpAddr::V4(ip) => format!("{ip}:{ports}"),
            IpAddr::V6(ip) => format!("[{ip}]:{ports}"),
        });
    }
    fits("--src", net, src)?;
    Ok(src.to_owned())
}

/// Errors: an address that is none of --net. A name may have both kinds.
fn fits(option: &str, net: Option<Net>, address: &str) -> anyhow::Result<()> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let Ok(ip) = host.parse::<IpAddr>() else {
        return Ok(());
    };
    match (net, ip.is_ipv6()) {
        (Some(Net::Tcp4), true) => bail!("{option} {address}: not an address of --net tcp4"),
        (Some(Net::Tcp6), false) => bail!("{option} {address}: not an address of --net tcp6"),
        _ => Ok(()),
    }
}
