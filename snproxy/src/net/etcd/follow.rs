//! The keys under a prefix, read once and then followed, through everything that becomes of etcd.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::watch::Watch;
use super::{Changes, Client, EtcdError, Part, Snapshot};

/// Wait after the first failure; each further one doubles it.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// Longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Watches in a row that tell nothing after which all is read instead, now and then: what is known is never old then.
const MAX_IN_VAIN: u32 = 4;

/// What [`Follow::next`] has to tell.
#[derive(Debug)]
pub enum News {
    /// All keys as they are: the first of all, and where changes were missed.
    All(Snapshot),
    /// What changed since.
    Changed(Changes),
    /// No member can tell: what was known may be old, from what was last heard on. Comes with each try that fails.
    Lost(EtcdError, Option<std::time::Instant>),
}

/// Follows the keys under a prefix.
pub struct Follow {
    client: Arc<Client>,
    prefix: Box<str>,
    part: Part,
    state: State,
    /// When the next try is due.
    due: Instant,
    wait: Duration,
    /// Watches in a row that ended early, before they told anything.
    in_vain: u32,
    /// When the watch there is began.
    began: Instant,
}

enum State {
    Read,
    Watch { revision: i64, cluster: Box<str> },
    Watching(Box<Watch>),
}

impl Follow {
    /// All keys that begin with `prefix`.
    pub fn new(client: Arc<Client>, prefix: &str, part: Part) -> Self {
        Self {
            client,
            prefix: prefix.into(),
            part,
            state: State::Read,
            due: Instant::now(),
            wait: FIRST_WAIT,
            in_vain: 0,
            began: Instant::now(),
        }
    }

    /// The same from what somebody has read already.
    pub fn from(client: Arc<Client>, prefix: &str, part: Part, read: &Snapshot) -> Self {
        let state = State::Watch {
            revision: read.revision,
            cluster: read.cluster.as_str().into(),
        };
        Self {
            state,
            ..Self::new(client, prefix, part)
        }
    }

    /// What is new; waits for it.
    ///
    /// Cancel safety: yes.
    pub async fn next(&mut self) -> News {
        loop {
            sleep_until(self.due).await;
            match &mut self.state {
                State::Read => match self.client.read(&self.prefix, self.part).await {
                    Ok(snapshot) => {
                        self.state = State::Watch {
                            revision: snapshot.revision,
                            cluster: snapshot.cluster.as_str().into(),
                        };
                        return News::All(snapshot);
                    }
                    Err(error) => return self.has_failed(error),
                },
                State::Watch { revision, cluster } => {
                    let revision = *revision;
                    let watch = self.client.watch(&self.prefix, revision, cluster).await;
                    match watch {
                        Ok(watch) => {
                            self.state = State::Watching(Box::new(watch));
                            self.began = Instant::now();
                            self.wait = FIRST_WAIT;
                        }
                        Err(EtcdError::Compacted { .. }) => self.read_again(),
                        Err(error) => return self.has_failed(error),
                    }
                }
                State::Watching(watch) => match watch.next().await {
                    Ok(changes) => {
                        self.in_vain = 0;
                        return News::Changed(changes);
                    }
                    Err(EtcdError::Compacted { .. }) => self.read_again(),
                    // Another member may do: etcd is lost only where none does.
                    Err(error) => {
                        tracing::debug!(why = %error.why(), prefix = %self.prefix, "a watch of etcd ended");
                        let (revision, cluster) = watch.leave();
                        self.state = State::Watch { revision, cluster };
                        self.end_of_watch();
                        // From the same revision on it would end the same way. And keys are few bytes: to read them is
                        // certain, even where another etcd has taken this one's place with the same names.
                        let is_in_vain = error.is_of_answer() || self.in_vain >= MAX_IN_VAIN;
                        if is_in_vain || self.part == Part::Key {
                            self.state = State::Read;
                        }
                    }
                },
            }
        }
    }

    fn read_again(&mut self) {
        self.state = State::Read;
        self.end_of_watch();
    }

    /// A watch that ends as soon as it has begun must not be begun all the time.
    fn end_of_watch(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.began) >= MAX_WAIT {
            self.in_vain = 0;
        }
        let doublings = self.in_vain.checked_sub(1);
        self.in_vain = self.in_vain.saturating_add(1);
        if let Some(doublings) = doublings {
            let wait = FIRST_WAIT.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX));
            self.due = now + wait.min(MAX_WAIT);
        }
    }

    fn has_failed(&mut self, error: EtcdError) -> News {
        // Who comes back may be another etcd, or an older state of the same one, which no revision shows.
        self.state = State::Read;
        self.due = Instant::now() + self.wait;
        self.wait = (self.wait * 2).min(MAX_WAIT);
        News::Lost(error, self.client.heard())
    }
}
