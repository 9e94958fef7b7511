//! What is refused, and what only looks like it.

use super::*;

#[test]
fn kinds_that_no_port_has_are_nobodys_fault() {
    let never = good("CLIENTPROXY require\nPROXYWAIT 2000-2001 0\nCLIENTPROXY 2000-2001 never\n");
    assert!(never.of_port(2000).proxy_wait.is_zero());
    assert_eq!(never.of_port(2001).client_proxy.mode, ProxyMode::Never);
    let says = "error: CLIENTPROXY require needs a PROXYWAIT: with 0 no client has time to send its header";
    let hosts = "10.0.0.1:32767\n";
    let some =
        "CLIENTPROXY 2000-2001,3000 require\nCLIENTPROXY 2000 require\nPROXYWAIT 2000,2001 0\n";
    let expected = [1, 2].map(|line| format!("proxy.conf:{line}:1: {says}"));
    assert_eq!(findings(some, "", hosts), expected);

    let mut sources = sources("PROXYWAIT 2000-2001 0\nAPPSCONF config.json\n", "", hosts);
    let apps = "{\"Apps\":[\n {\"Name\":\"a\",\"Ports\":[2001],\"ClientProxy\":\"require\",\n\"Targets\":[\"10.0.0.9:1\"]}]}";
    sources.apps = Some(source("config.json", apps));
    let found = shorts(&parse(&sources, &world()).diagnostics);
    assert_eq!(found, [format!("config.json:2:2: {says}")]);
}

#[test]
fn a_name_of_a_target_loses_the_addresses_that_nobody_may_dial() {
    let mut sources = sources("APPSCONF config.json\n", "", "10.0.0.1:32767\n");
    let apps =
        r#"{"Apps":[{"Name":"a","Ports":[2001],"Targets":["odd.example:1","nowhere.example:1"]}]}"#;
    sources.apps = Some(source("config.json", apps));
    let odd = [
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "::ffff:0.0.0.0",
        "10.0.0.5",
    ];
    let answer = |name: &&str| {
        let known = if *name == "odd.example" {
            &odd[..]
        } else {
            &odd[..1]
        };
        Ok(known.iter().map(|ip| ip.parse().unwrap()).collect())
    };
    let world = World {
        resolve_all: &|names, _| names.iter().map(answer).collect(),
        ..world()
    };
    let parsed = parse(&sources, &world);
    let found = shorts(&parsed.diagnostics);
    assert_eq!(
        found,
        [
            "config.json:1:49: warning: `odd.example` resolves to 0.0.0.0, which is no address to dial: the address is left out",
            "config.json:1:65: warning: `nowhere.example` resolves to 0.0.0.0, which is no address to dial",
        ]
    );
    let targets = &parsed.value.unwrap().apps[0].targets;
    assert_eq!(*targets[0].addrs, ["10.0.0.5".parse::<IpAddr>().unwrap()]);
    assert!(targets[1].addrs.is_empty());
}

#[test]
fn none_is_no_file_and_zero_is_no_port() {
    let conf = good("APPSCONF none\nMAXLIFETIME 0 10%\nREOPEN 2000 75%\n");
    assert_eq!(conf.files.apps, None);
    assert_eq!(conf.of_port(2000).max_lifetime, None);
    assert_eq!(conf.of_port(2000).reopen, 75);
    assert_eq!(good("APPSCONF \"\"\n").files.apps, None);
}

#[test]
fn unknown_keys_and_fields_are_errors_or_ignored() {
    let hosts = "10.0.0.1:32767\n";
    let mut sources = sources(
        "CLIENT_TLS 8080 certs\nPORT=4000\nNonsense\nAPPSCONF config.json\n",
        "",
        hosts,
    );
    let apps = r#"{"Version":1,"Apps":[{"Name":"a","Ports":[2001],"Enabled":false,
"Protocol":"udp","Targets":[{"Addr":"10.0.0.9:1","wieght":2}]}]}"#;
    sources.apps = Some(source("config.json", apps));
    let found = shorts(&parse(&sources, &world()).diagnostics);
    let expected = [
        "proxy.conf:1:1: error: unknown key `CLIENT_TLS`: did you mean `CLIENTTLS`?",
        "proxy.conf:2:1: error: unknown key `PORT=4000`: a space separates key and value: \
         did you mean `PORT`?",
        "proxy.conf:3:1: error: unknown key `Nonsense`",
        "config.json:1:3: error: unknown field `Version` of the file",
        "config.json:1:50: error: unknown field `Enabled` of an app",
        "config.json:2:2: error: unknown field `Protocol` of an app",
        "config.json:2:51: error: unknown field `wieght` of a target: did you mean `Weight`?",
    ];
    assert_eq!(found, expected);
    let lenient = World {
        ignore_unknown: true,
        ..world()
    };
    let parsed = parse(&sources, &lenient);
    assert!(!parsed.has_errors());
    let found = shorts(&parsed.diagnostics);
    assert_eq!(
        found[0],
        "proxy.conf:1:1: warning: unknown key `CLIENT_TLS` ignored: did you mean `CLIENTTLS`?"
    );
    assert_eq!(found.len(), expected.len());
}

#[test]
fn unknown_values_and_options_name_the_nearest_known_word() {
    for (line, end) in [
        ("BALANCE leastconn", "found `leastconn`: did you mean `lc`?"),
        ("BALANCE 2000 round_robin", "did you mean `rr`?"),
        (
            "BALANCE sh prot",
            "expected port or strict, found `prot`: did you mean `port`?",
        ),
        ("BALANCE source", "did you mean `sh`?"),
        ("LOGLEVEL warning", "did you mean `warn`?"),
        (
            "CLIENTTLS 8080 certs verfy=none",
            "expected verify= or alpn=, found `verfy=none`: did you mean `verify=`?",
        ),
        (
            "CLIENTTLS 8080 certs verify=required",
            "expected require, optional or none, found `required`: did you mean `require`?",
        ),
        (
            "UPSTREAMTLS certs nam=a",
            "found `nam=a`: did you mean `name=`?",
        ),
        (
            "PEERTLS certs optinal",
            "found `optinal`: did you mean `optional`?",
        ),
        (
            "HEALTH tcp/5s timeot=1s",
            "found `timeot=1s`: did you mean `timeout=`?",
        ),
        (
            "ETCD http://a usr=x",
            "found `usr=x`: did you mean `user=`?",
        ),
        ("PEERS host", "found `host`: did you mean `hosts`?"),
        ("ONREMOVE rest", "found `rest`: did you mean `reset`?"),
    ] {
        for ignore_unknown in [false, true] {
            let world = World {
                ignore_unknown,
                ..world()
            };
            let parsed = parse(&sources(line, "", "10.0.0.1:32767\n"), &world);
            let found = shorts(&parsed.diagnostics);
            assert!(parsed.has_errors(), "{line}: {found:?}");
            assert!(
                found.iter().any(|found| found.ends_with(end)),
                "{line}: {found:?}"
            );
        }
    }
}

#[test]
fn check_refuses_what_a_start_cannot_serve() {
    let refuse = |_: IpAddr| Err(io::ErrorKind::AddrNotAvailable.into());
    let strict = World {
        can_bind: Some(&refuse),
        ..world()
    };
    let mut files = sources("HOST 10.9.9.9\nPORTSCONF here\nHOSTSCONF there\n", "", "");
    (files.mappings, files.hosts) = (None, None);
    let expected = |severity| {
        [
            format!(
                "proxy.conf:1:6: {severity}: 10.9.9.9 is no address of this host: nothing can be served on it"
            ),
            format!("there: {severity}: no such file (HOSTSCONF in proxy.conf:3): no other hosts"),
            format!("here: {severity}: no such file (PORTSCONF in proxy.conf:2): no mappings yet"),
        ]
    };
    assert_eq!(
        shorts(&parse(&files, &world()).diagnostics),
        expected("warning")
    );
    assert_eq!(
        shorts(&parse(&files, &strict).diagnostics),
        expected("error")
    );
    let metrics = sources(
        "HOST 10.0.0.1\nADMIN none 10.9.9.9:9180\n",
        "",
        "10.0.0.1:32767\n",
    );
    assert!(!parse(&metrics, &world()).has_errors());
    let found = shorts(&parse(&metrics, &strict).diagnostics);
    let expected = "proxy.conf:2:1: error: expected an address of this host, found 10.9.9.9:9180";
    assert!(
        found.iter().any(|found| found.starts_with(expected)),
        "{found:?}"
    );
    // Files that no key names may be missing, and the kernel may allow the address.
    let mut files = sources("HOST 10.9.9.9\n", "", "");
    (files.mappings, files.hosts) = (None, None);
    let nonlocal = World {
        can_bind: Some(&|_| Ok(())),
        ..world()
    };
    assert!(!parse(&files, &nonlocal).has_errors());
}

#[test]
fn addresses_of_ipv6_may_be_in_brackets() {
    let conf = good("STEERING listeners\nBIND 2000 [::1]\nPODHOST [::1]\nPEERS [::1],[fd00::]/8\n");
    assert_eq!(conf.of_port(2000).bind, Some("::1".parse().unwrap()));
    assert_eq!(conf.pod_host, "::1".parse::<IpAddr>().unwrap());
    assert!(conf.allows_peer("fd12::1".parse().unwrap()));
    let plain = good("CLIENTPROXY detect ::1,fd00::/8\n");
    let bracketed = good("CLIENTPROXY detect [::1],[fd00::]/8\n");
    assert_eq!(plain.of_port(2000), bracketed.of_port(2000));
    for line in [
        "BIND [127.0.0.1]",
        "PEERS [10.0.0.0]/8",
        "PEERS [::1",
        "HOST [10.0.0.1]",
    ] {
        let found = findings(line, "", "10.0.0.1:32767\n");
        assert!(
            found.iter().any(|found| found.contains(": error: ")),
            "{line}: {found:?}"
        );
    }
}
