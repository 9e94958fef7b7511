//! Changes as they come: one answer that does not end, with a line for each.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout, timeout_at};

use super::call::{body, malformed, parse, refusal, refused, request, short, silent, unreachable};
use super::connect::{Member, Sender};
use super::json::{
    CreateWatch, Line, Number, Range, Ranged, Watch as Question, Watched, range_end,
};
use super::{CALL_LIMIT, Client, EtcdError, Event};

/// Longest line: what changed at once, or while nobody watched, in fragments of 1.5 MiB before base64.
const MAX_LINE: usize = 4 << 20;
/// Time after which a member that says nothing is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(2);

/// What changed, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Changes {
    pub events: Vec<Event>,
    /// All changes up to it have been told.
    pub revision: i64,
}

/// A watch of all keys under a prefix, at one member.
pub struct Watch {
    client: Arc<Client>,
    /// Which member.
    at: usize,
    prefix: Box<str>,
    /// Of the last change that was seen.
    revision: i64,
    cluster: Box<str>,
    /// Its end would end the answer.
    _sender: Sender,
    answer: Incoming,
    lines: Lines,
    /// Until when something is to be heard.
    due: Instant,
}

impl Client {
    /// Watches all keys that begin with `prefix`, for changes later than `revision`, which is of the etcd `cluster`.
    pub async fn watch(
        self: &Arc<Self>,
        prefix: &str,
        revision: i64,
        cluster: &str,
    ) -> Result<Watch, EtcdError> {
        let mut failed = None;
        for at in self.order() {
            match self.watch_at(at, prefix, revision, cluster).await {
                Ok(watch) => {
                    self.stay_with(at);
                    return Ok(watch);
                }
                Err(error) if error.is_of_member() => failed = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(failed.unwrap_or_else(|| EtcdError::Unreachable {
            member: "etcd".to_owned(),
            source: io::ErrorKind::NotFound.into(),
        }))
    }

    async fn watch_at(
        self: &Arc<Self>,
        at: usize,
        prefix: &str,
        revision: i64,
        cluster: &str,
    ) -> Result<Watch, EtcdError> {
        // A token that is no longer good is found out here: the watch itself would not renew it.
        let alive = self.alive(at, prefix).await?;
        let member = &self.members[at];
        if alive.header.cluster_id != cluster || alive.header.revision.0 < revision {
            return Err(replaced(member, revision));
        }
        let question = body(&Question {
            create_request: CreateWatch {
                key: prefix.into(),
                end: range_end(prefix),
                start_revision: Number(revision + 1),
                fragment: true,
            },
        });
        let token = self.token_of(at).await?;
        let open = async {
            let unreachable = |source| unreachable(member, source);
            let mut sender = member
                .connect(self.tls.load_full())
                .await
                .map_err(unreachable)?;
            let request = request(member, "/v3/watch", &question, token.as_deref())?;
            let answer = sender.send_request(request).await;
            let answer = answer.map_err(|error| unreachable(io::Error::other(error)))?;
            if !answer.status().is_success() {
                return Err(refusal(member, answer).await);
            }
            Ok((sender, answer.into_body()))
        };
        let opened = timeout(CALL_LIMIT, open).await;
        let (sender, answer) = opened.unwrap_or_else(|_| Err(silent(member)))?;
        Ok(Watch {
            client: Arc::clone(self),
            at,
            prefix: prefix.into(),
            revision,
            cluster: cluster.into(),
            _sender: sender,
            answer,
            lines: Lines::default(),
            due: Instant::now() + SILENCE,
        })
    }

    /// Whether one member speaks for a majority: the head of its answer.
    async fn alive(&self, at: usize, prefix: &str) -> Result<Ranged, EtcdError> {
        let question = body(&Range {
            key: prefix.into(),
            end: range_end(prefix),
            limit: Number(0),
            revision: Number(0),
            serializable: false,
            keys_only: false,
            count_only: true,
        });
        let answer = self.ask(at, "/v3/kv/range", &question).await?;
        parse(&self.members[at], &answer)
    }
}

impl Watch {
    /// The next changes; waits as long as there are none and the member is there.
    ///
    /// Errors: the watch is over; `Compacted` asks for a read.
    /// Cancel safety: yes.
    pub async fn next(&mut self) -> Result<Changes, EtcdError> {
        loop {
            while let Some(line) = self.lines.next() {
                if let Some(changes) = self.take(&line)? {
                    return Ok(changes);
                }
            }
            let Ok(frame) = timeout_at(self.due, self.answer.frame()).await else {
                self.ask_whether_alive().await?;
                continue;
            };
            let member = &self.client.members[self.at];
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Err(unreachable(member, io::Error::other(error))),
                None => {
                    return Err(EtcdError::Ended {
                        member: member.endpoint.to_string(),
                        why: "the answer is over".to_owned(),
                    });
                }
            };
            if let Ok(data) = frame.into_data() {
                self.lines.push(&data);
                if self.lines.longest() > MAX_LINE {
                    return Err(EtcdError::TooLong {
                        member: member.endpoint.to_string(),
                        limit: MAX_LINE,
                    });
                }
            }
        }
    }

    /// A watch over HTTP/1.1 has no ping: silence says nothing of whether the member is there.
    async fn ask_whether_alive(&mut self) -> Result<(), EtcdError> {
        let member = &self.client.members[self.at];
        // Another watch, or a call, may have asked.
        if member.answered().is_none_or(|at| at.elapsed() >= SILENCE) {
            let alive = self.client.alive(self.at, &self.prefix).await?;
            let header = &alive.header;
            if header.cluster_id != *self.cluster || header.revision.0 < self.revision {
                return Err(replaced(member, self.revision));
            }
        }
        self.due = Instant::now() + SILENCE;
        Ok(())
    }

    /// What a line says; `None`: no change.
    fn take(&mut self, line: &Bytes) -> Result<Option<Changes>, EtcdError> {
        let member = &self.client.members[self.at];
        let line: Line<Watched> = parse(member, line)?;
        if let Some(error) = line.error {
            let code = error.grpc_code.or(error.code).unwrap_or(0);
            return Err(refused(member, code.into(), &error.message));
        }
        let Some(watched) = line.result else {
            return Err(malformed(member, "a line with neither result nor error"));
        };
        self.due = Instant::now() + SILENCE;
        member.has_answered();
        if watched.compact_revision.0 > 0 {
            return Err(EtcdError::Compacted {
                member: member.endpoint.to_string(),
                revision: watched.compact_revision.0,
            });
        }
        if watched.canceled {
            return Err(EtcdError::Ended {
                member: member.endpoint.to_string(),
                why: short(&watched.cancel_reason),
            });
        }
        if watched.created || watched.events.is_empty() {
            return Ok(None);
        }
        let events: Vec<Event> = watched.events.into_iter().map(Event::from).collect();
        // Not that of the head: a watch that catches up is behind it.
        let last = events.iter().map(Event::revision).max().unwrap_or(0);
        // The rest of the last one may be in the next piece.
        let whole = last - i64::from(watched.fragment);
        self.revision = self.revision.max(whole);
        Ok(Some(Changes {
            events,
            revision: self.revision,
        }))
    }

    /// Leaves its member to another one; gives the revision and the etcd to go on from.
    pub(super) fn leave(&self) -> (i64, Box<str>) {
        self.client.leave(self.at);
        (self.revision, self.cluster.clone())
    }
}

/// Another etcd is there now, or the same one as it was before: nothing that was seen counts.
fn replaced(member: &Member, revision: i64) -> EtcdError {
    EtcdError::Compacted {
        member: member.endpoint.to_string(),
        revision,
    }
}

/// Bytes as they come, and the lines that are whole.
#[derive(Default)]
struct Lines {
    whole: VecDeque<Bytes>,
    begun: BytesMut,
}

impl Lines {
    fn push(&mut self, mut data: &[u8]) {
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(&data[..end]);
            let line = self.begun.split().freeze();
            if !line.is_empty() {
                self.whole.push_back(line);
            }
            data = &data[end + 1..];
        }
        self.begun.extend_from_slice(data);
    }

    fn next(&mut self) -> Option<Bytes> {
        self.whole.pop_front()
    }

    /// Length of the line that has begun.
    fn longest(&self) -> usize {
        self.begun.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_their_bytes_come() {
        let text = b"{\"a\":1}\n\n{\"b\":2}\n{";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            text.chunks(size).for_each(|piece| lines.push(piece));
            let whole: Vec<Bytes> = std::iter::from_fn(|| lines.next()).collect();
            assert_eq!(whole, ["{\"a\":1}", "{\"b\":2}"], "in pieces of {size}");
            assert_eq!(lines.longest(), 1);
        }
    }
}
