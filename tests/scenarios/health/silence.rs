//! Clients that ask and get no answer in time: how many pods their silence takes down, and whose silence counts.

use super::{SOON, is_up};
use snproxy_tests::{Attempt, Conn, Ended, Host, Net, Process, eventually};
use std::{
    net::{Ipv4Addr, SocketAddr},
    thread::sleep,
    time::Duration,
};

const PODS: u16 = 4;
const FIRST_POD: u16 = 30000;
const HALF_A_REQUEST: &str = "GET / HTTP/1.1\r\n";
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// nginx as that many pods of port 1024, each of which waits for the whole of a request.
fn pods(host: &Host, count: u16) -> Vec<Process> {
    let ports = FIRST_POD..FIRST_POD + count;
    let lines: Vec<_> = ports
        .clone()
        .map(|port| format!("1024:{port}:900:false\n"))
        .collect();
    host.conf("FIRSTBYTETIMEOUT", "300ms")
        // One that is down stays so for the length of a scenario.
        .conf("HEALTH", "passive hold=30s")
        .mappings(&lines.concat());
    ports.map(|port| host.nginx(port, "", "served")).collect()
}

fn down(host: &Host, count: u16) -> usize {
    let ports = FIRST_POD..FIRST_POD + count;
    ports.filter(|port| !is_up(host, *port)).count()
}

#[track_caller]
fn ask_in_vain(conn: &Conn) {
    assert_eq!(conn.send(HALF_A_REQUEST).ended(), Ended::Reset);
}

#[test]
fn one_client_takes_down_one_pod_of_a_port() {
    let net = Net::one();
    let host = net.host("host");
    let _pods = pods(host, PODS);
    host.start();
    let before = host.ends("first_byte");
    for _ in 0..3 * PODS {
        ask_in_vain(&host.open(1024));
    }
    assert_eq!(host.ends("first_byte") - before, u64::from(3 * PODS));
    assert_eq!(down(host, PODS), 1);
    assert_eq!(host.action(1024), "steer");
}

#[test]
fn many_clients_take_down_half_of_the_pods_at_most() {
    let net = Net::one();
    let host = net.host("host");
    let _pods = pods(host, PODS);
    host.start();
    let client = net.client();
    for last in 0..12_u8 {
        let from = Ipv4Addr::new(10, 77, 0, 180 + last);
        let card = client.namespace().ip("-brief link show");
        let card = card
            .lines()
            .filter_map(|line| line.split(['@', ' ']).next())
            .find(|name| *name != "lo")
            .expect("a card")
            .to_owned();
        client
            .namespace()
            .ip(&format!("address add {from}/24 dev {card}"));
        let conn = match client.attempt_from(SocketAddr::new(from.into(), 0), host.port(1024)) {
            Attempt::Connected(conn) => conn,
            other => panic!("{from}: {other:?}"),
        };
        ask_in_vain(&conn);
    }
    assert_eq!(down(host, PODS), 2);

    // What is really seen takes down the others too.
    host.reloaded_after(|host| host.conf("EJECTMAX", "100%"));
    for _ in 0..3 * PODS {
        ask_in_vain(&host.open(1024));
    }
    assert_eq!(down(host, PODS), 3, "one client, one more");
}

#[test]
fn the_only_pod_of_a_port_stays_up_for_a_client_that_waits_in_vain() {
    let net = Net::one();
    let host = net.host("host");
    let _pods = pods(host, 1);
    host.start();
    for _ in 0..3 {
        ask_in_vain(&host.open(1024));
    }
    assert_eq!(down(host, 1), 0);
}

#[test]
fn a_pod_that_answers_others_is_not_silent() {
    let net = Net::one();
    let host = net.host("host");
    let _pods = pods(host, 1);
    host.conf("EJECTMAX", "100%").start();
    // One connection that is answered all the time, and does not end.
    let served = host.open(1024);
    let waits = host.open(1024);
    waits.send(HALF_A_REQUEST);
    for _ in 0..8 {
        served.send(REQUEST);
        sleep(Duration::from_millis(100));
    }
    assert_eq!(waits.ended(), Ended::Reset);
    eventually(SOON, "it has ended", || host.ends("first_byte") == 1);
    assert_eq!(down(host, 1), 0);
    ask_in_vain(&host.open(1024));
    eventually(SOON, "it is down", || down(host, 1) == 1);
}
