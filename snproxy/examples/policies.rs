//! Two services with a policy each, changed while they run: `cargo run -p snproxy --example policies`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use snproxy::{Policy, Proxy, Service, Upstream};

/// A server that tells its name.
fn server(name: &'static str) -> std::io::Result<String> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let address = server.local_addr()?;
    thread::spawn(move || {
        for mut client in server.incoming().flatten() {
            let _ = client.write_all(name.as_bytes());
        }
    });
    Ok(address.to_string())
}

/// Who answers how often.
fn ask(at: SocketAddr, times: u32) -> std::io::Result<BTreeMap<String, u32>> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        let mut name = String::new();
        TcpStream::connect(at)?.read_to_string(&mut name)?;
        *answers.entry(name).or_default() += 1;
    }
    Ok(answers)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (small, large) = (server("small")?, server("large")?);

    // One after the other, the large one three times as often.
    let shared = Service::new("shared")
        .listen("127.0.0.1:0")
        .policy(Policy::Wrr)
        .upstream(small.clone())
        .upstream(Upstream::new(large.clone()).weight(3));
    // The second one only where the first one is down.
    let reserve = Service::new("reserve")
        .listen("127.0.0.1:0")
        .policy(Policy::Ordered)
        .upstream(small.clone())
        .upstream(large.clone());
    let mut proxy = Proxy::builder().service(shared).service(reserve).start()?;
    let at = proxy.local_addrs().to_vec();

    let answers = ask(at[0], 40)?;
    println!("shared: {answers:?}");
    assert_eq!(
        answers,
        BTreeMap::from([("large".into(), 30), ("small".into(), 10)])
    );
    let answers = ask(at[1], 10)?;
    println!("reserve: {answers:?}");
    assert_eq!(answers, BTreeMap::from([("small".into(), 10)]));

    // The small one is taken out; who is connected to it stays.
    let only = Service::new("only")
        .listen(at[0].to_string())
        .upstream(large);
    proxy.update(&Proxy::builder().service(only))?;
    let answers = ask(at[0], 10)?;
    println!("after the update: {answers:?}");
    assert_eq!(answers, BTreeMap::from([("large".into(), 10)]));
    assert!(TcpStream::connect(at[1]).is_err(), "served no more");

    for (end, count) in proxy.stats()?.ends.iter().filter(|(_, count)| **count > 0) {
        println!("ended {end}: {count}");
    }
    proxy.drain()?;
    Ok(())
}
