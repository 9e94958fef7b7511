use super::*;
use crate::proxy::Policy;

fn texts(builder: &Builder) -> (String, String) {
    match builder.root().unwrap() {
        Root::Said { conf, apps } => (conf.text, apps.text),
        root => panic!("{root}"),
    }
}

fn service(name: &str, listen: &str) -> Service {
    Service::new(name).listen(listen).upstream("10.0.0.7:80")
}

#[test]
fn services_become_texts() {
    let health = "tcp/2s send=\"PING\\r\\n\" expect=\"#\"";
    let builder = Builder::default()
        .service(service("a", "127.0.0.1:5000").policy(Policy::Ordered))
        .service(service("b", "127.0.0.1:5001").set("health", health))
        .set("QUEUE", "5")
        .set("queue", "6");
    let (conf, apps) = texts(&builder);
    assert_eq!(
        conf,
        "HOST 127.0.0.1\nPORT none\nCLUSTERPORTS none\nCLUSTER none\nADMIN none\nCLIENTPROXY never\n\
         CONFLICT fail\nSTEERING listeners\nqueue 6\n"
    );
    let apps: Value = serde_json::from_str(&apps).unwrap();
    let expected = json!({ "Apps": [
        { "Name": "a", "Ports": [5000], "Targets": [{ "Addr": "10.0.0.7:80" }], "BALANCE": "ordered" },
        { "Name": "b", "Ports": [5001], "Targets": [{ "Addr": "10.0.0.7:80" }], "HEALTH": health },
    ] });
    assert_eq!(apps, expected);
}

#[test]
fn an_upstream_that_says_nothing_of_a_header_gets_that_of_its_service() {
    let own = Upstream::new("10.0.0.8:80").send_proxy(SendProxy::No);
    let service = service("a", "127.0.0.1:5000").upstream(own);
    let builder = Builder::default().service(service.send_proxy(SendProxy::V2));
    let apps: Value = serde_json::from_str(&texts(&builder).1).unwrap();
    let targets = json!([
        { "Addr": "10.0.0.7:80", "SendProxy": "v2" },
        { "Addr": "10.0.0.8:80", "SendProxy": "false" },
    ]);
    assert_eq!(apps["Apps"][0]["Targets"], targets);
}

#[test]
fn addresses_that_differ_are_said_port_by_port_and_never_steered() {
    let builder = Builder::default()
        .service(service("a", "127.0.0.1:5000-5099"))
        .service(service("b", "127.0.0.2:6000"));
    let (conf, _) = texts(&builder);
    assert!(conf.contains("HOST 127.0.0.1\n"), "{conf}");
    assert!(conf.contains("STEERING listeners\n"), "{conf}");
    assert!(conf.contains("BIND 6000 127.0.0.2\n"), "{conf}");
    let many = Builder::default().service(service("a", "127.0.0.1:5000-5099"));
    assert!(texts(&many).0.contains("STEERING auto\n"));
}

#[test]
fn ports_of_another_address_are_said_in_few_lines() {
    let builder = Builder::default()
        .service(service("a", "127.0.0.1:5000"))
        .service(service("b", "127.0.0.2:10000-13999"));
    let (conf, _) = texts(&builder);
    assert!(conf.contains("BIND 10000-13999 127.0.0.2\n"), "{conf}");
    let every_other = (0..4000).map(|n| format!("127.0.0.2:{}", 10_000 + 2 * n));
    let scattered = every_other.fold(service("b", "127.0.0.2:9000"), Service::listen);
    let builder = Builder::default()
        .service(service("a", "127.0.0.1:5000"))
        .service(scattered);
    let root = builder.root().unwrap();
    let good = crate::daemon::look(&root, &crate::daemon::Names::default());
    let conf = good.expect("a good configuration").conf;
    assert_eq!(conf.served_at(17_998), IpAddr::from([127, 0, 0, 2]));
}

#[test]
fn a_proxy_that_runs_keeps_its_address() {
    let base = |listen: &[&str]| {
        let service = listen
            .iter()
            .fold(Service::new("a").upstream("b:1"), |service, listen| {
                service.listen(*listen)
            });
        let builder = Builder::default().service(service);
        (
            builder.plan().unwrap().base(&builder).unwrap(),
            builder.clone(),
        )
    };
    let (began, _) = base(&["127.0.0.1:5000", "10.0.0.1:6000"]);
    let (_, later) = base(&["127.0.0.1:5000", "10.0.0.1:6000", "10.0.0.1:4000"]);
    let conf = later.plan().unwrap().conf(&later, &began).unwrap();
    assert!(conf.contains("HOST 127.0.0.1\n"), "{conf}");
    assert!(conf.contains("STEERING listeners\n"), "{conf}");
    assert!(conf.contains("BIND 4000,6000 10.0.0.1\n"), "{conf}");
    let (_, many) = base(&["127.0.0.1:5000-5999"]);
    let conf = many.plan().unwrap().conf(&many, &began).unwrap();
    assert!(conf.contains("STEERING listeners\n"), "{conf}");
}

#[test]
fn a_value_for_some_ports_leaves_the_others_theirs() {
    let builder = Builder::default()
        .service(service("a", "127.0.0.1:5000-5001"))
        .set("CLIENTTLS", "/certs")
        .set("CLIENTTLS", "5001 none")
        .set("CLIENTTLS", "5001 /others")
        .set("CLIENTPROXY", "5001 require");
    let (conf, _) = texts(&builder);
    assert!(conf.contains("CLIENTPROXY never\n"), "{conf}");
    assert!(
        conf.ends_with("CLIENTTLS /certs\nCLIENTTLS 5001 /others\nCLIENTPROXY 5001 require\n"),
        "{conf}"
    );
}

#[test]
fn what_makes_no_sense_is_an_error() {
    let with = |service| Builder::default().service(service).root().unwrap_err();
    let good = || service("a", "127.0.0.1:5000");
    assert!(matches!(Builder::default().root(), Err(Error::NoService)));
    assert!(matches!(with(service("a", "x")), Error::Listen { .. }));
    assert!(matches!(
        with(Service::new("a").upstream("a:1")),
        Error::NoListen { .. }
    ));
    assert!(matches!(
        with(Service::new("a").listen(":1")),
        Error::NoUpstream { .. }
    ));
    assert!(matches!(
        with(good().discovered("/srv")),
        Error::TwoSources { .. }
    ));
    let options = Builder::default().service(good()).etcd_options(["user=a"]);
    assert!(matches!(options.root(), Err(Error::NoEtcd)));
    let two = good().listen("127.0.0.2:5000");
    assert!(matches!(with(two), Error::TwoAddresses { port: 5000, .. }));
    for key in ["NONSENSE", "WORKERS", "BIND"] {
        let error = with(good().set(key, "1"));
        assert!(
            matches!(error, Error::UnknownKey { of_port: true, .. }),
            "{key}"
        );
    }
    let with_key = |builder: Builder, key| builder.service(good()).set(key, "none").root();
    for key in ["HOST", "port", "BIND", "CLUSTER", "PEERTLS", "PODHOST"] {
        let error = with_key(Builder::default(), key);
        assert!(matches!(error, Err(Error::ClusterKey { .. })), "{key}");
    }
    let error = with_key(Builder::default(), "NONSENSE");
    assert!(matches!(
        error,
        Err(Error::UnknownKey { of_port: false, .. })
    ));
    let error = with_key(Builder::default(), "LOGLEVEL");
    assert!(matches!(error, Err(Error::ProgramKey { .. })));
    assert!(with_key(Builder::new("ambassador"), "LOGLEVEL").is_ok());
    let error = Builder::default()
        .service(good())
        .set("BALANCE", "rr\nHOST 0.0.0.0")
        .root();
    assert!(matches!(error, Err(Error::Value { .. })));
}

#[test]
fn values_are_quoted_where_a_line_asks_for_it() {
    for (value, line) in [
        ("5m", Some("5m")),
        (" 5m ", Some("5m")),
        ("a#b", Some("\"a#b\"")),
        ("\"a\"", Some("'\"a\"'")),
        ("a,", Some("\"a,\"")),
        ("", None),
        ("\"'", None),
        ("a\nb", None),
    ] {
        assert_eq!(value_in_line(value).as_deref(), line, "{value:?}");
    }
}
