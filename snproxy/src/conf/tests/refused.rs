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
