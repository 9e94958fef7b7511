//! TLS: clients whose TLS ends here, upstreams that are spoken to in TLS, and the certificates of both.

mod bytes;
mod certs;
mod client;
mod header;
mod hostile;
mod kinds;
mod memory;
mod ordinary;
mod sessions;
mod upstream;

use snproxy_tests::{Ca, Conn, Host, Issued, Net, Pod, TlsConn};
use std::{io, path::PathBuf, time::Duration};

const SOON: Duration = Duration::from_secs(15);
/// The port whose TLS ends here, or begins, and its pod's.
const PORT: u16 = 1024;
const POD: u16 = 30000;
const NAME: &str = "pod.example";

/// One host, an authority, and a certificate of it in the folder `tls` beside proxy.conf.
struct Ground {
    net: Net,
    ca: Ca,
    issued: Issued,
}

impl Ground {
    fn new() -> Self {
        Self::on(Net::one())
    }

    fn on(net: Net) -> Self {
        let ca = Ca::new("the authority");
        let issued = ca.issue(&[NAME, "localhost"]);
        let ground = Self { net, ca, issued };
        ground.issued.write_folder(&ground.folder("tls"));
        ground.host().mappings("1024:30000:900:false\n");
        ground
    }

    /// Clients' TLS ends at 1024; the pod is plain.
    fn terminating(options: &str, pod: Pod) -> Self {
        let ground = Self::new();
        ground.host().pod(POD, pod);
        let value = format!("1024 tls {options}");
        ground.host().conf("CLIENTTLS", &value);
        ground
    }

    /// The pod of 1024 is spoken to in TLS.
    fn securing(options: &str) -> Self {
        let ground = Self::new();
        let value = format!("1024 tls name={NAME} {options}");
        ground.host().conf("UPSTREAMTLS", &value);
        ground
    }

    fn host(&self) -> &Host {
        &self.net.all_hosts()[0]
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.host().folder().join(name)
    }

    /// A TLS client of 1024 with what `issued` has.
    fn open(&self, issued: &Issued) -> io::Result<TlsConn> {
        let conn = self.host().open(PORT);
        TlsConn::connect(conn, issued.client(), NAME)
    }

    /// One with the certificate of the ground.
    #[track_caller]
    fn tls(&self) -> TlsConn {
        self.open(&self.issued).expect("a handshake")
    }
}

/// A pod that speaks TLS, as `serve` does.
fn tls_pod(issued: &Issued, serve: impl Fn(&TlsConn) + Send + Sync + 'static) -> Pod {
    let config = issued.server();
    Pod::serving(move |guest| {
        let conn = guest.stream().try_clone().and_then(Conn::new);
        if let Ok(tls) = conn.and_then(|conn| TlsConn::accept(conn, config.clone())) {
            serve(&tls);
        }
    })
}

/// One that sends a word first, and ends when the other side does.
fn greeting(issued: &Issued, word: &'static str) -> Pod {
    tls_pod(issued, move |tls| {
        tls.send(word);
        tls.ended();
        tls.half_close();
    })
}
