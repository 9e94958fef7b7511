//! Calls of other hosts within a race: over which connection, in which way, and what they came to.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;
use tracing::debug;

use crate::conf::SendProxy;
use crate::flow::call::{self, OverSpare, Said, Unsettled};
use crate::flow::peer_tls::{NotGreeted, Speech};
use crate::flow::questions::{SILENCE, note_host};
use crate::flow::reached::{Held, Reached, Server};
use crate::net::dial::DialError;
use crate::route::last_resort;
use crate::route::peers::{Answer, Share};
use crate::route::search::{Over, Search};
use crate::wire::peer::Reply;

use super::{Newest, Race, STAGGER};

/// What became of a call.
pub(super) enum Event {
    Connected(Call, Unsettled),
    NotConnected(Call, DialError),
    /// Over a spare connection nothing, or this much of an answer, came while others connect.
    Unanswered(Call, Unsettled, BytesMut),
    Said(Call, Unsettled, Said),
}

/// A call of one host.
pub(super) struct Call {
    at: usize,
    share: Share,
    began: std::time::Instant,
    until: Instant,
    /// Longest wait for the connection.
    connect_limit: Duration,
    /// Its line went over a connection that was there before.
    over_spare: bool,
    speech: Speech,
    /// It was called in the other way before.
    is_second: bool,
    /// That was in plain, and was closed: a no of a host that does not speak TLS.
    was_closed: bool,
}

impl Race<'_> {
    pub(super) fn call(&mut self, at: usize, share: Share) {
        let (options, limit) = (call::options(&self.table.conf), self.conf.peer_timeout);
        let addr = self.peer(at).addr();
        let now = Instant::now();
        let is_up = self.peer(at).is_up();
        let limit = if is_up {
            limit
        } else {
            self.calls_last_hosts = true;
            limit.min(last_resort::CONNECT)
        };
        let mut call = Call {
            at,
            share,
            began: now.into_std(),
            until: now + self.conf.peer_timeout,
            connect_limit: limit,
            over_spare: false,
            speech: self.shared.speech(&self.table.conf, self.peer(at)),
            is_second: false,
            was_closed: false,
        };
        let (spares, request) = (&self.shared.spares, self.request);
        let taken = if is_up {
            call::send_over_spare(spares, addr, request, &call.speech, STAGGER)
        } else {
            // Those that are left are of the time before it was down.
            OverSpare::None
        };
        match taken {
            OverSpare::Sent(connection) => {
                self.peer(at).upstream.dial_from.note_made();
                call.over_spare = true;
                // While its answer is under way.
                self.shared
                    .spares
                    .used(addr, options, std::time::Instant::now());
                self.calls.push(Box::pin(async move {
                    let mut bytes = BytesMut::new();
                    let said = call::reply(connection.stream(), &mut bytes, now + STAGGER).await;
                    match said {
                        Said::Silent => Event::Unanswered(call, connection, bytes),
                        said => Event::Said(call, connection, said),
                    }
                }));
                self.patience = Some((Newest::Answers(at), now + SILENCE));
            }
            OverSpare::Connected(connection) => {
                self.peer(at).upstream.dial_from.note_made();
                call.over_spare = true;
                let made = std::time::Instant::now();
                self.shared.spares.used(addr, options, made);
                self.speak(call, connection);
                self.patience = Some((Newest::Answers(at), now + SILENCE));
            }
            OverSpare::Connecting(begun) => {
                self.peer(at).upstream.dial_from.note_made();
                self.calls.push(Box::pin(async move {
                    match call::connect_further(begun, addr, limit).await {
                        Ok(connection) => Event::Connected(call, connection),
                        Err(error) => Event::NotConnected(call, error),
                    }
                }));
                self.patience = Some((Newest::Connects(at), now + STAGGER));
            }
            OverSpare::None => {
                self.connect(call);
                self.patience = Some((Newest::Connects(at), now + STAGGER));
            }
        }
    }

    /// Over a connection that is there.
    fn speak(&mut self, call: Call, mut connection: Unsettled) {
        let request = self.request;
        self.calls.push(Box::pin(async move {
            let (speech, until) = (&call.speech, call.until);
            let said = call::greet_and_ask(&mut connection, speech, request, until).await;
            Event::Said(call, connection, said)
        }));
    }

    /// Over a connection of its own.
    fn connect(&mut self, call: Call) {
        let peer = Arc::clone(&self.table.peers.list()[call.at]);
        let options = call::options(&self.table.conf);
        self.calls.push(Box::pin(async move {
            let left = call.until.saturating_duration_since(Instant::now());
            let limit = left.min(call.connect_limit);
            match call::connect(&peer, options, limit).await {
                Ok(connection) => Event::Connected(call, connection),
                Err(error) => Event::NotConnected(call, error),
            }
        }));
    }

    /// Takes note of what became of a call; a connection if it was taken.
    pub(super) fn note(&mut self, event: Event, search: &mut Search<'_>) -> Option<Reached> {
        match event {
            Event::Connected(call, connection) => {
                if self.is_newest(Newest::Connects(call.at)) {
                    let patience = Instant::now() + SILENCE;
                    self.patience = Some((Newest::Answers(call.at), patience));
                }
                self.speak(call, connection);
                None
            }
            Event::Unanswered(call, connection, mut bytes) => {
                // Of a host that is cut off not even the kernel answers, which a connect would have found out by now.
                if self.is_newest(Newest::Answers(call.at)) && !connection.is_acknowledged() {
                    self.give_up_on(Newest::Connects(call.at));
                }
                self.calls.push(Box::pin(async move {
                    let said = call::reply(connection.stream(), &mut bytes, call.until).await;
                    Event::Said(call, connection, said)
                }));
                None
            }
            Event::NotConnected(call, error) => {
                self.is_past(Newest::Connects(call.at));
                let peer = self.peer(call.at);
                debug!(host = %peer.name, %error, "call");
                self.shared.note_exhausted(&error);
                peer.upstream.note_failed_dial(call.began);
                if let Some(lives) = error.upstream_lives() {
                    note_host(peer, lives);
                }
                search.note(match error {
                    DialError::SourcePorts { .. } => Over::SourcePorts,
                    _ => Over::NoUpstream,
                });
                None
            }
            Event::Said(call, _, said) if self.is_other_speech(&call, &said) => {
                self.call_otherwise(call, &said);
                None
            }
            Event::Said(call, connection, said)
                if call.over_spare
                    && matches!(
                        said,
                        Said::Closed | Said::Lost(_) | Said::NotGreeted(NotGreeted::NotTls(_))
                    ) =>
            {
                self.call_anew(call, &connection, &said);
                None
            }
            Event::Said(call, connection, said) => {
                self.is_past(Newest::Answers(call.at));
                self.heard(call, connection, said, search)
            }
        }
    }

    /// A spare connection may have been on its way to its end when the line came: that is no answer. The host is asked
    /// once more.
    fn call_anew(&mut self, mut call: Call, connection: &Unsettled, said: &Said) {
        let addr = self.peer(call.at).addr();
        // A close that comes before the line has arrived was not meant for it.
        if matches!(said, Said::Lost(_)) || !connection.is_acknowledged() {
            let now = std::time::Instant::now();
            self.shared.spares.bar(addr, now);
        }
        debug!(host = %self.peer(call.at).name, "a spare connection was closed");
        call.over_spare = false;
        self.connect_again(call);
    }

    fn connect_again(&mut self, call: Call) {
        if self.is_newest(Newest::Answers(call.at)) {
            self.patience = Some((Newest::Connects(call.at), Instant::now() + STAGGER));
        }
        self.connect(call);
    }

    /// Whether a host is to be called in the other way, TLS or not: PEERTLS may be optional here, and none or a must over
    /// there, and have changed since the last call.
    fn is_other_speech(&self, call: &Call, said: &Said) -> bool {
        let conf = &self.table.conf;
        let may_be_both = conf.peer_tls.as_ref().is_some_and(|tls| tls.optional);
        let is_no = match said {
            // Over a spare connection a close is no answer at all.
            Said::NotGreeted(NotGreeted::NotTls(_)) => !call.over_spare,
            Said::Closed | Said::Lost(_) => call.speech.is_plain() && !call.over_spare,
            _ => false,
        };
        may_be_both && is_no && !call.is_second
    }

    fn call_otherwise(&mut self, mut call: Call, said: &Said) {
        let peer = self.peer(call.at);
        call.was_closed = matches!(said, Said::Closed);
        call.speech = if call.speech.is_plain() {
            self.shared.peer_speech.forget_plain(peer.addr());
            self.shared.secure_speech(&self.table.conf, peer)
        } else {
            Speech::Plain
        };
        debug!(host = %peer.name, plain = call.speech.is_plain(), "called in the other way");
        call.over_spare = false;
        call.is_second = true;
        self.connect_again(call);
    }

    fn heard(
        &mut self,
        call: Call,
        connection: Unsettled,
        said: Said,
        search: &mut Search<'_>,
    ) -> Option<Reached> {
        let peer = self.peer(call.at);
        // Not the connection: the kernel of a frozen host makes that too.
        if matches!(said, Said::Reply(..) | Said::Closed | Said::Garbage) {
            if note_host(peer, true) {
                self.shared.answered.notify_waiters();
            }
        } else {
            peer.upstream.note_failed_dial(call.began);
        }
        if call.speech.is_plain()
            && self.table.conf.peer_tls.is_some()
            && matches!(said, Said::Reply(..))
        {
            self.shared.peer_speech.note_plain(peer.addr());
        }
        let answer = match said {
            Said::Reply(Reply::Accept { send_proxy }, early) => {
                self.remember(call.at, Answer::Took);
                if !call.over_spare {
                    let (options, now) =
                        (call::options(&self.table.conf), std::time::Instant::now());
                    self.shared.spares.used(peer.addr(), options, now);
                }
                return Some(Reached {
                    upstream: connection.settle(),
                    server: Server::Host(peer.addr()),
                    // The answer knows no versions; a host whose pod wants v2 makes it of the v1 that it gets.
                    send: if send_proxy {
                        SendProxy::V1
                    } else {
                        SendProxy::No
                    },
                    early,
                    held: Held::new(None, Some(call.share)),
                });
            }
            Said::Reply(Reply::Busy, _) => {
                search.note(Over::Busy);
                Answer::Busy
            }
            Said::Closed => Answer::NotHere,
            Said::NotGreeted(NotGreeted::NotTls(_)) if call.was_closed => {
                note_host(peer, true);
                self.shared.peer_speech.note_plain(peer.addr());
                Answer::NotHere
            }
            Said::Reply(Reply::Pods(_) | Reply::Drains, _) | Said::Garbage => {
                search.note(Over::NoUpstream);
                debug!(host = %peer.name, addr = %peer.addr(), "the answer is none of the protocol");
                Answer::NotHere
            }
            Said::NotGreeted(NotGreeted::Untrusted(error)) => {
                let error = NotGreeted::Untrusted(error);
                self.shared.peer_speech.say_untrusted(peer, &error);
                note_host(peer, false);
                search.note(Over::NoUpstream);
                self.probe(call.at);
                return None;
            }
            unsaid @ (Said::Silent | Said::Lost(_) | Said::NotGreeted(_)) => {
                match unsaid {
                    Said::Lost(error) => debug!(host = %peer.name, %error, "call"),
                    Said::NotGreeted(error) => self.shared.peer_speech.say_untrusted(peer, &error),
                    _ => {}
                }
                search.note(Over::NoUpstream);
                self.probe(call.at);
                Answer::Silent
            }
        };
        self.remember(call.at, answer);
        None
    }
}
