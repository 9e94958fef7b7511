//! The control socket and the metrics addresses of the running proxy.

use std::io;
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::admin::{Asked, Socket, SocketFile};
use crate::conf::{AdminSocket, Conf};

/// The control socket, if it could be had, and the addresses of metrics.
pub(super) struct Control {
    metrics: Vec<JoinHandle<io::Result<()>>>,
    ask: mpsc::Sender<Asked>,
    serving: Option<(JoinHandle<io::Result<()>>, SocketFile)>,
    /// Whether the log has reported that the file of the socket is missing.
    is_reported: bool,
}

impl Control {
    pub(super) fn new(
        ask: mpsc::Sender<Asked>,
        socket: Option<Socket>,
        metrics: Vec<JoinHandle<io::Result<()>>>,
    ) -> Self {
        let mut control = Self {
            metrics,
            ask,
            serving: None,
            is_reported: false,
        };
        if let Some(socket) = socket {
            control.serve(socket);
        }
        control
    }

    fn serve(&mut self, socket: Socket) {
        let file = socket.file().clone();
        let serving = tokio::spawn(socket.serve(self.ask.clone()));
        if let Some((before, _)) = self.serving.replace((serving, file)) {
            before.abort();
        }
    }

    /// Binds the socket again if it has no file: another process had the path, or the file was
    /// removed.
    pub(super) fn retry(&mut self, conf: &Conf) {
        let is_there = |(serving, file): &(JoinHandle<_>, SocketFile)| {
            !serving.is_finished() && file.is_in_place()
        };
        if self.serving.as_ref().is_some_and(is_there) {
            return;
        }
        let Some(path) = control_socket(conf) else {
            return;
        };
        match Socket::bind(&path) {
            Ok(socket) => {
                info!(path = %path.display(), "bound the control socket again");
                self.is_reported = false;
                self.serve(socket);
            }
            // The start has reported a socket that it could not bind.
            Err(error) if self.serving.is_some() && !self.is_reported => {
                let path = path.display();
                warn!(%error, %path, "failed to bind the control socket again, retrying");
                self.is_reported = true;
            }
            Err(_) => {}
        }
    }

    pub(super) async fn stop(&mut self) {
        let serving = self.serving.take().map(|(serving, _)| serving);
        for serving in serving.into_iter().chain(self.metrics.drain(..)) {
            serving.abort();
            // Its end removes the socket's file.
            let _ = serving.await;
        }
    }
}

/// Path of the control socket: ADMIN, else one per PORT; `None`: there is to be none.
pub fn control_socket(conf: &Conf) -> Option<PathBuf> {
    let name = match (&conf.admin.socket, conf.port) {
        (AdminSocket::At(path), _) => return Some(path.clone()),
        (AdminSocket::None, _) => return None,
        (AdminSocket::OfPort, 0) => "none".to_owned(),
        (AdminSocket::OfPort, port) => port.to_string(),
    };
    Some(runtime_folder().join(name + ".sock"))
}

/// Where control sockets are by default: the system's runtime folder, or the user's.
pub fn runtime_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(folder) if !rustix::process::geteuid().is_root() => {
            PathBuf::from(folder).join("snproxy")
        }
        _ => PathBuf::from("/run/snproxy"),
    }
}
