//! TLS of clients, which ends here: after their places are taken, before any pod hears of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info};

use crate::conf::{ClientTls, PortConf};
use crate::net::tls::{HandshakeError, accept};

use super::end::End;
use super::header::{Looked, Opening};
use super::peer::farewell;
use super::{Client, Shared};

/// How long a client that was told no may take to hear it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Makes TLS of the client's connection; the header that came before is what is given back.
///
/// Errors: how the connection ends.
pub(super) async fn terminate(
    shared: &Arc<Shared>,
    client: &mut Client,
    conf: &PortConf,
    tls: &Arc<ClientTls>,
    opening: Opening,
    looked: Option<Looked>,
) -> Result<Looked, End> {
    let until = Instant::now() + conf.tls_timeout;
    let mut looked = opening
        .look(&client.stream, looked, conf.tls_timeout)
        .await?;
    let records = looked.split_payload();
    let config = shared.tls.load().clients.get(tls).cloned();
    let accepted = match config {
        None => Err(HandshakeError::Unconfigured),
        Some(config) => {
            let left = until.saturating_duration_since(Instant::now());
            accept(&mut client.stream, &config, &records, left).await
        }
    };
    let Err(error) = accepted else {
        return Ok(looked);
    };
    debug!(client = %client.addr, port = client.asked.port(), %error, "a client's TLS handshake failed");
    let end = match &error {
        HandshakeError::Timeout { .. } => End::TlsTimeout,
        HandshakeError::Refused(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            return Err(End::Client);
        }
        _ => End::TlsClient,
    };
    if let Some(failed) = shared.handshakes.count(std::time::Instant::now()) {
        info!(client = %client.addr, port = client.asked.port(), %error, failed, "TLS handshakes of clients fail, this one among them");
    }
    // A close with bytes unread would be a reset, and void the alert.
    client.stream.stop_tls();
    farewell(&client.stream, FAREWELL).await;
    Err(end)
}
