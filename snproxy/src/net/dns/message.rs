//! Questions to name servers, and their replies.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::IpAddr;

use domain::base::iana::{Class, OptRcode, Rcode};
use domain::base::message_builder::PushError;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Rtype, ToName};
use domain::rdata::{A, Aaaa, Cname};

use super::IpVersion;

/// Size of a reply by UDP that a server may send. Source: dnsflagday.net/2020, no fragments on usual paths.
pub(super) const UDP_SIZE: u16 = 1232;

/// Most addresses of one reply that are used.
const MAX_ADDRS: usize = 256;
/// Most aliases of one reply that are followed.
const MAX_ALIASES: usize = 16;

/// One name and one family.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: Name<Vec<u8>>,
    pub(super) version: IpVersion,
}

/// What a reply says.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Said {
    /// At least one.
    Addresses { addrs: Vec<IpAddr>, ttl: u32 },
    /// The name stands for another one, about which the reply says nothing.
    Alias { name: Name<Vec<u8>>, ttl: u32 },
    /// No such name, or no address of this family.
    Empty,
}

/// A reply to a question.
#[derive(Debug)]
pub(super) enum Reply {
    /// Of another question: the one that is meant may still come.
    Foreign,
    /// Cut off: the whole comes by TCP.
    Truncated,
    /// The server does not know EDNS.
    NoEdns,
    /// Another server may know.
    Failure(Rcode),
    /// The server knows nothing of the name and refers to others.
    Referral,
    Said(Said),
}

impl Question {
    fn rtype(&self) -> Rtype {
        match self.version {
            IpVersion::V4 => Rtype::A,
            IpVersion::V6 => Rtype::AAAA,
        }
    }

    /// The message to send, and its identifier, which no other host can guess.
    pub(super) fn encode(&self, with_edns: bool) -> Result<(u16, Vec<u8>), PushError> {
        let [.., high, low] = RandomState::new().hash_one(0u8).to_be_bytes();
        let id = u16::from_be_bytes([high, low]);
        let mut message = MessageBuilder::new_vec();
        message.header_mut().set_id(id);
        message.header_mut().set_rd(true);
        let mut message = message.question();
        message.push((&self.name, self.rtype(), Class::IN))?;
        let mut message = message.additional();
        if with_edns {
            message.opt(|opt| {
                opt.set_udp_payload_size(UDP_SIZE);
                Ok(())
            })?;
        }
        Ok((id, message.finish()))
    }

    /// Reads what came for the message with this identifier.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a reply to this question that is malformed.
    pub(super) fn decode(&self, id: u16, bytes: &[u8]) -> io::Result<Reply> {
        let Ok(message) = Message::from_octets(bytes) else {
            return Ok(Reply::Foreign);
        };
        let header = message.header();
        if header.id() != id || !header.qr() {
            return Ok(Reply::Foreign);
        }
        let counts = message.header_counts();
        let rcode = message.opt_rcode();
        let no_edns = matches!(
            rcode,
            OptRcode::FORMERR | OptRcode::NOTIMP | OptRcode::BADVERS
        );
        // A server that understands nothing of the message may leave the question out.
        if no_edns && counts.qdcount() == 0 {
            return Ok(Reply::NoEdns);
        }
        let is_ours = message.sole_question().is_ok_and(|question| {
            question.qname().name_eq(&self.name)
                && question.qtype() == self.rtype()
                && question.qclass() == Class::IN
        });
        if !is_ours {
            return Ok(Reply::Foreign);
        }
        if no_edns {
            return Ok(Reply::NoEdns);
        }
        if header.tc() {
            return Ok(Reply::Truncated);
        }
        Ok(match header.rcode() {
            Rcode::NOERROR => {
                let is_empty = counts.ancount() == 0 && counts.arcount() == 0;
                // Source: glibc, res_send.c: a server that does not recurse says nothing of the name.
                if is_empty && !header.aa() && !header.ra() {
                    Reply::Referral
                } else {
                    Reply::Said(self.said(&message).map_err(invalid)?)
                }
            }
            Rcode::NXDOMAIN => Reply::Said(match self.said(&message).map_err(invalid)? {
                // The name at the end of the aliases does not exist.
                Said::Alias { .. } | Said::Empty => Said::Empty,
                said @ Said::Addresses { .. } => said,
            }),
            rcode => Reply::Failure(rcode),
        })
    }

    /// The records of this name, and of those that it stands for; all others are ignored.
    fn said(&self, message: &Message<&[u8]>) -> Result<Said, domain::base::wire::ParseError> {
        let mut name = ParsedName::to_name::<Vec<u8>>(&message.sole_question()?.into_qname());
        let mut ttl = u32::MAX;
        let mut is_alias = false;
        for _ in 0..=MAX_ALIASES {
            let mut addrs = Vec::new();
            let mut alias = None;
            for record in message.answer()? {
                let record = record?;
                if record.class() != Class::IN || !record.owner().name_eq(&name) {
                    continue;
                }
                let seconds = record.ttl().as_secs();
                if record.rtype() == Rtype::CNAME {
                    if let Some(record) = record.to_record::<Cname<_>>()? {
                        alias.get_or_insert((record.data().cname().to_name::<Vec<u8>>(), seconds));
                    }
                    continue;
                }
                let ip =
                    match self.version {
                        IpVersion::V4 => (record.to_record::<A>()?)
                            .map(|record| IpAddr::V4(record.data().addr())),
                        IpVersion::V6 => (record.to_record::<Aaaa>()?)
                            .map(|record| IpAddr::V6(record.data().addr())),
                    };
                let Some(ip) = ip else { continue };
                ttl = ttl.min(seconds);
                if addrs.len() < MAX_ADDRS && !addrs.contains(&ip) {
                    addrs.push(ip);
                }
            }
            if !addrs.is_empty() {
                return Ok(Said::Addresses { addrs, ttl });
            }
            match alias {
                Some((target, seconds)) => {
                    ttl = ttl.min(seconds);
                    name = target;
                    is_alias = true;
                }
                None if is_alias => return Ok(Said::Alias { name, ttl }),
                None => return Ok(Said::Empty),
            }
        }
        // The aliases go round in circles.
        Ok(Said::Empty)
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
