//! Stop accepting, let connections end, cut what is left at the deadline.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use crate::admin::Asked;
use crate::flow::drain_notice;
use crate::net::listener;

use super::{Command, Daemon};

/// How long connections that are cut may take to be gone and counted.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// How long connections that were in the accept queue at the switch may take to be accepted.
const QUEUE_GRACE: Duration = Duration::from_millis(50);

impl Daemon {
    /// Ends within DRAINTIMEOUT, or at once when it is told to.
    pub(super) async fn drain(
        &mut self,
        accepting: Vec<JoinHandle<()>>,
        commands: &mut mpsc::Receiver<Command>,
        asked: &mut mpsc::Receiver<Asked>,
    ) {
        self.draining = true;
        self.answer_callers();
        let conf = Arc::clone(&self.shared.table.load().conf);
        self.leave_directory().await;
        self.announce_drain(commands, asked).await;
        // New connections are refused from here on; those already queued would be reset by closing the
        // listener, so they are accepted first.
        self.steerer.detach();
        sleep(QUEUE_GRACE).await;
        for accepting in accepting {
            accepting.abort();
            // Until its worker lets go of the listener.
            let _ = accepting.await;
        }
        self.accept_the_rest();
        // They asked for nothing yet.
        self.shared.waiting.close();
        self.shared.spares.close();

        let live = &Arc::clone(&self.shared).live;
        // The forced closes are spread over the last quarter, so that clients do not come back all at once.
        let spread = conf.drain_timeout / 4;
        let cut_at = Instant::now() + conf.drain_timeout.saturating_sub(spread);
        info!(
            connections = live.now(),
            limit_seconds = conf.drain_timeout.as_secs(),
            "draining: no new connections; INT ends at once"
        );
        self.manager
            .stopping(conf.drain_timeout + 2 * LAST_MOMENT, live.now());
        let mut cutting = false;
        loop {
            tokio::select! {
                () = live.none_left() => break,
                () = sleep_until(cut_at), if !cutting => {
                    warn!(connections = live.now(), "drain limit: resetting what is left");
                    live.cut(spread);
                    cutting = true;
                }
                // The last one is cut when the spread ends.
                () = sleep_until(cut_at + spread + LAST_MOMENT), if cutting => {
                    live.cut_now();
                    let _ = timeout(LAST_MOMENT, live.none_left()).await;
                    break;
                }
                command = commands.recv() => match command {
                    Some(Command::End) | None => {
                        warn!(connections = live.now(), "interrupted: ending at once");
                        // By reset: the end of a process is a FIN, which a client takes for a whole answer.
                        live.cut_now();
                        let _ = timeout(LAST_MOMENT, live.none_left()).await;
                        break;
                    }
                    Some(command) => self.execute(command),
                },
                Some(question) = asked.recv() => self.answer(question),
            }
        }
        info!("stopped");
    }

    /// Tells other hosts before anything is refused: their clients go to others from then on.
    async fn announce_drain(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        asked: &mut mpsc::Receiver<Asked>,
    ) {
        let shared = Arc::clone(&self.shared);
        let mut notice = pin!(drain_notice::send(&shared));
        loop {
            tokio::select! {
                // An end at once closes the channel.
                () = async {}, if commands.is_closed() => return,
                hosts = &mut notice => {
                    if hosts > 0 {
                        info!(hosts, "other hosts know of the drain");
                    }
                    return;
                }
                command = commands.recv() => match command {
                    Some(Command::End) | None => commands.close(),
                    Some(command) => self.execute(command),
                },
                Some(question) = asked.recv() => self.answer(question),
            }
        }
    }

    /// Accepts until the queue is empty: on a busy machine it may outlast the grace.
    fn accept_the_rest(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        // An error such as EMFILE ends it too: what is left then cannot be served.
        for listener in [Some(listener), self.steerer.close_aside()]
            .into_iter()
            .flatten()
        {
            while let Ok(Some((stream, addr))) = listener::next(&listener) {
                self.workers.serve(stream, addr);
            }
        }
    }
}
