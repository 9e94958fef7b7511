//! A proxy in front of one server: `cargo run -p snproxy --example static`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use snproxy::{Proxy, Service};

fn main() -> Result<(), Box<dyn Error>> {
    // The server: it greets whoever comes.
    let server = TcpListener::bind("127.0.0.1:0")?;
    let address = server.local_addr()?;
    thread::spawn(move || {
        for mut client in server.incoming().flatten() {
            let _ = client.write_all(b"hello\n");
        }
    });

    let service = Service::new("greetings")
        .listen("127.0.0.1:0")
        .upstream(address)
        .set("CONNECTTIMEOUT", "1s");
    let proxy = Proxy::builder().service(service).start()?;
    println!("{address} is served at {}", proxy.local_addrs()[0]);

    let mut greeting = String::new();
    TcpStream::connect(proxy.local_addrs()[0])?.read_to_string(&mut greeting)?;
    print!("{greeting}");
    assert_eq!(greeting, "hello\n");

    println!("{} connection so far", proxy.stats()?.total);
    proxy.drain()?;
    Ok(())
}
