//! A name server that answers by a script, over UDP and TCP.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::base::iana::{Class, Rcode};
use domain::base::{Message, MessageBuilder, Name, Rtype, Ttl};
use domain::rdata::{A, Aaaa, Cname};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::time::sleep;

/// One question, as the server sees it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) is_v6: bool,
    pub(super) has_edns: bool,
    pub(super) is_tcp: bool,
    /// Questions for the same name and family before this one.
    pub(super) before: usize,
    id: u16,
}

/// What a server does with a question.
pub(super) enum Act {
    Silence,
    Wait(u64),
    Send(Vec<u8>),
}

pub(super) type Script = fn(&Asked) -> Vec<Act>;

/// A reply under construction.
pub(super) struct Reply {
    asked: Asked,
    records: Vec<(String, u32, Data)>,
    rcode: Rcode,
    is_cut: bool,
    is_recursive: bool,
    id: u16,
    question: Option<String>,
}

enum Data {
    Ip(IpAddr),
    Alias(String),
}

impl Asked {
    pub(super) fn reply(&self) -> Reply {
        Reply {
            asked: self.clone(),
            records: Vec::new(),
            rcode: Rcode::NOERROR,
            is_cut: false,
            is_recursive: true,
            id: self.id,
            question: Some(self.name.clone()),
        }
    }

    /// The usual reply: these addresses, of the family that is asked for.
    pub(super) fn ips(&self, ips: &[&str]) -> Vec<Act> {
        self.reply().ips(&self.name, ips).acts()
    }

    pub(super) fn rcode(&self, rcode: Rcode) -> Vec<Act> {
        self.reply().rcode(rcode).acts()
    }

    pub(super) fn empty(&self) -> Vec<Act> {
        self.reply().acts()
    }
}

impl Reply {
    /// Records of 60 s for those addresses that are of the family.
    pub(super) fn ips(self, owner: &str, ips: &[&str]) -> Self {
        self.ips_for(60, owner, ips)
    }

    pub(super) fn ips_for(mut self, ttl: u32, owner: &str, ips: &[&str]) -> Self {
        for ip in ips {
            let ip: IpAddr = ip.parse().unwrap();
            if ip.is_ipv6() == self.asked.is_v6 {
                self.records.push((owner.to_owned(), ttl, Data::Ip(ip)));
            }
        }
        self
    }

    /// Whatever its family.
    pub(super) fn any_ip(mut self, owner: &str, ip: &str) -> Self {
        let ip = Data::Ip(ip.parse().unwrap());
        self.records.push((owner.to_owned(), 60, ip));
        self
    }

    pub(super) fn alias(mut self, ttl: u32, owner: &str, name: &str) -> Self {
        let alias = Data::Alias(name.to_owned());
        self.records.push((owner.to_owned(), ttl, alias));
        self
    }

    pub(super) fn rcode(mut self, rcode: Rcode) -> Self {
        self.rcode = rcode;
        self
    }

    pub(super) fn cut(mut self) -> Self {
        self.is_cut = true;
        self
    }

    pub(super) fn not_recursive(mut self) -> Self {
        self.is_recursive = false;
        self
    }

    pub(super) fn other_id(mut self) -> Self {
        self.id ^= 1;
        self
    }

    pub(super) fn about(mut self, name: Option<&str>) -> Self {
        self.question = name.map(str::to_owned);
        self
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        let mut message = MessageBuilder::new_vec();
        let header = message.header_mut();
        header.set_id(self.id);
        header.set_qr(true);
        header.set_ra(self.is_recursive);
        header.set_tc(self.is_cut);
        header.set_rcode(self.rcode);
        let mut message = message.question();
        let rtype = if self.asked.is_v6 {
            Rtype::AAAA
        } else {
            Rtype::A
        };
        if let Some(question) = &self.question {
            message.push((name(question), rtype, Class::IN)).unwrap();
        }
        let mut message = message.answer();
        for (owner, ttl, data) in self.records {
            let (owner, ttl) = (name(&owner), Ttl::from_secs(ttl));
            match data {
                Data::Ip(IpAddr::V4(ip)) => message.push((owner, ttl, A::new(ip))),
                Data::Ip(IpAddr::V6(ip)) => message.push((owner, ttl, Aaaa::new(ip))),
                Data::Alias(to) => message.push((owner, ttl, Cname::new(name(&to)))),
            }
            .unwrap();
        }
        message.finish()
    }

    pub(super) fn acts(self) -> Vec<Act> {
        vec![Act::Send(self.bytes())]
    }
}

fn name(text: &str) -> Name<Vec<u8>> {
    Name::from_str(text).unwrap()
}

/// Questions that a server received.
pub(super) type Log = Arc<Mutex<Vec<Asked>>>;

/// Starts a server; it ends with the runtime.
pub(super) async fn start(script: Script) -> (SocketAddr, Log) {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (Arc::new(udp), tcp);
        }
    };
    let addr = udp.local_addr().unwrap();
    let log = Log::default();
    let (of_tcp, seen) = (Arc::clone(&log), Arc::clone(&log));
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        loop {
            // Errors are those of resolvers that left.
            let Ok((length, from)) = udp.recv_from(&mut buffer).await else {
                continue;
            };
            let asked = read(&buffer[..length], false, &log);
            let udp = Arc::clone(&udp);
            tokio::spawn(async move {
                for act in script(&asked) {
                    match act {
                        Act::Silence => return,
                        Act::Wait(ms) => sleep(Duration::from_millis(ms)).await,
                        Act::Send(bytes) => drop(udp.send_to(&bytes, from).await),
                    }
                }
            });
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let log = Arc::clone(&of_tcp);
            tokio::spawn(async move {
                let length = stream.read_u16().await.unwrap();
                let mut message = vec![0; length.into()];
                stream.read_exact(&mut message).await.unwrap();
                let asked = read(&message, true, &log);
                for act in script(&asked) {
                    match act {
                        Act::Silence => return,
                        Act::Wait(ms) => sleep(Duration::from_millis(ms)).await,
                        Act::Send(bytes) => {
                            let length = u16::try_from(bytes.len()).unwrap();
                            stream.write_u16(length).await.unwrap();
                            stream.write_all(&bytes).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    (addr, seen)
}

fn read(bytes: &[u8], is_tcp: bool, log: &Log) -> Asked {
    let message = Message::from_octets(bytes).unwrap();
    let question = message.sole_question().unwrap();
    let mut log = log.lock().unwrap();
    let mut asked = Asked {
        name: question.qname().to_string().to_ascii_lowercase(),
        is_v6: question.qtype() == Rtype::AAAA,
        has_edns: message.opt().is_some(),
        is_tcp,
        before: 0,
        id: message.header().id(),
    };
    let is_same = |other: &&Asked| other.name == asked.name && other.is_v6 == asked.is_v6;
    asked.before = log.iter().filter(is_same).count();
    log.push(asked.clone());
    asked
}

/// Number of questions for each name and family.
pub(super) fn counts(log: &Log) -> HashMap<(String, bool), usize> {
    let mut counts = HashMap::new();
    for asked in log.lock().unwrap().iter() {
        *counts.entry((asked.name.clone(), asked.is_v6)).or_default() += 1;
    }
    counts
}
