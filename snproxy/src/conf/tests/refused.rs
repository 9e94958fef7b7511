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
