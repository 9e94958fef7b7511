//! Two proxies with TLS between them, for two programs that know nothing of it: `cargo run -p snproxy --example tls_pair`.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use snproxy::{Certificates, ClientTls, Proxy, Service, UpstreamTls};

/// An authority, and a certificate of it for each end, in folders.
fn certificates(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let ca = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);
    for name in ["client.example", "server.example"] {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, &issuer)?;
        let folder = folder.join(name);
        fs::create_dir(&folder)?;
        fs::write(folder.join("ca.pem"), &ca)?;
        fs::write(folder.join("cert.pem"), certificate.pem())?;
        fs::write(folder.join("key.pem"), key.serialize_pem())?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    certificates(folder.path())?;

    // The server: it sends back what comes.
    let server = TcpListener::bind("127.0.0.1:0")?;
    let address = server.local_addr()?;
    thread::spawn(move || {
        for mut client in server.incoming().flatten() {
            let mut sent = Vec::new();
            let _ = client.read_to_end(&mut sent);
            let _ = client.write_all(&sent);
        }
    });

    let certs = |name: &str| Certificates::folder(folder.path().join(name));
    // Ends TLS in front of the server, for those who have a certificate.
    let inner = Service::new("inner")
        .listen("127.0.0.1:0")
        .client_tls(ClientTls::new(certs("server.example")))
        .upstream(address.to_string());
    let inner = Proxy::builder().service(inner).start()?;
    // Speaks TLS for the client.
    let outer = Service::new("outer")
        .listen("127.0.0.1:0")
        .upstream_tls(UpstreamTls::new(certs("client.example")).name("server.example"))
        .upstream(inner.local_addrs()[0].to_string());
    let outer = Proxy::builder().service(outer).start()?;

    let mut client = TcpStream::connect(outer.local_addrs()[0])?;
    client.write_all(b"nobody reads this on the way\n")?;
    client.shutdown(Shutdown::Write)?;
    let mut echo = String::new();
    client.read_to_string(&mut echo)?;
    print!("{echo}");
    assert_eq!(echo, "nobody reads this on the way\n");
    drop(client);

    // Without TLS the inner one tells nothing.
    let mut stranger = TcpStream::connect(inner.local_addrs()[0])?;
    stranger.write_all(b"hello\n")?;
    let mut said = Vec::new();
    let refused = stranger.read_to_end(&mut said).is_err() || !said.starts_with(b"hello");
    assert!(refused);
    println!("a stranger is turned away");

    outer.drain()?;
    inner.drain()?;
    Ok(())
}
