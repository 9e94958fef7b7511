//! A name server that answers by a script, and an snproxy that asks it.

use snproxy_tests::{Host, snproxy_binary};
use std::{
    fs::{self, Permissions},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// TTL of all answers, in seconds.
pub(super) const TTL: u32 = 1;

/// One question, as the server receives it.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// In lower case, without a dot at its end.
    pub(super) name: String,
    pub(super) is_v6: bool,
    pub(super) has_edns: bool,
}

/// What the server does with a question.
pub(super) enum Act {
    Silence,
    /// Addresses of IPv4; for a question about IPv6 an empty answer.
    Addresses(Vec<IpAddr>),
    Rcode(u8),
}

pub(super) const FORMERR: Act = Act::Rcode(1);
pub(super) const SERVFAIL: Act = Act::Rcode(2);
pub(super) const NXDOMAIN: Act = Act::Rcode(3);

type Script = Box<dyn FnMut(&Question) -> Act + Send>;

/// A name server on a host; it ends when it is dropped.
pub(super) struct NameServer {
    script: Arc<Mutex<Script>>,
    questions: Arc<Mutex<Vec<Question>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    #[track_caller]
    pub(super) fn start(
        host: &Host,
        script: impl FnMut(&Question) -> Act + Send + 'static,
    ) -> Self {
        let bind = || UdpSocket::bind((host.v4(), 53)).expect("port 53");
        let socket = host.namespace().run(bind);
        let pause = Some(Duration::from_millis(100));
        socket.set_read_timeout(pause).expect("a limit");
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(script)));
        let questions = Arc::<Mutex<Vec<Question>>>::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (script, questions) = (Arc::clone(&script), Arc::clone(&questions));
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut buffer = [0; 2048];
                while !stop.load(Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else {
                        continue;
                    };
                    let (question, end) = read(&buffer[..length]);
                    let act = (locked(&script))(&question);
                    locked(&questions).push(question.clone());
                    if let Some(reply) = reply(&buffer[..end], &question, act) {
                        // The resolver may have ended.
                        let _ = socket.send_to(&reply, from);
                    }
                }
            })
        };
        Self {
            script,
            questions,
            stop,
            thread: Some(thread),
        }
    }

    /// Questions are answered by this script from now on.
    pub(super) fn set(&self, script: impl FnMut(&Question) -> Act + Send + 'static) {
        *locked(&self.script) = Box::new(script);
    }

    pub(super) fn questions(&self) -> Vec<Question> {
        locked(&self.questions).clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Layout: 12 bytes of header, labels after their lengths, type and class. Source: RFC 1035 section 4.1.
fn read(message: &[u8]) -> (Question, usize) {
    let mut labels = Vec::new();
    let mut at = 12;
    while message[at] > 0 {
        let end = at + 1 + usize::from(message[at]);
        labels.push(String::from_utf8_lossy(&message[at + 1..end]).to_ascii_lowercase());
        at = end;
    }
    let question = Question {
        name: labels.join("."),
        is_v6: message[at + 2] == 28,
        has_edns: message[11] > 0,
    };
    (question, at + 5)
}

fn reply(asked: &[u8], question: &Question, act: Act) -> Option<Vec<u8>> {
    let (rcode, ips) = match act {
        Act::Silence => return None,
        Act::Rcode(rcode) => (rcode, Vec::new()),
        Act::Addresses(ips) if question.is_v6 => {
            (0, ips.into_iter().filter(IpAddr::is_ipv6).collect())
        }
        Act::Addresses(ips) => (0, ips.into_iter().filter(IpAddr::is_ipv4).collect()),
    };
    let mut reply = asked.to_vec();
    reply[2] = 0x81;
    reply[3] = 0x80 | rcode;
    reply[7] = u8::try_from(ips.len()).expect("few addresses");
    reply[9] = 0;
    reply[11] = 0;
    for ip in ips {
        // The owner is the name of the question.
        reply.extend([0xc0, 12]);
        let (rtype, bytes) = match ip {
            IpAddr::V4(ip) => (1u8, ip.octets().to_vec()),
            IpAddr::V6(ip) => (28, ip.octets().to_vec()),
        };
        reply.extend([0, rtype, 0, 1]);
        reply.extend(TTL.to_be_bytes());
        reply.extend([0, u8::try_from(bytes.len()).expect("an address")]);
        reply.extend(bytes);
    }
    Some(reply)
}

/// A script that runs snproxy with an empty /etc/hosts and this /etc/resolv.conf.
pub(super) fn with_resolv_conf(host: &Host, text: &str) -> PathBuf {
    host.overwrite("etc-hosts", "")
        .overwrite("resolv.conf", text);
    let script = host.folder().join("start");
    // The mounts are of this process alone, and gone with it.
    let inside = r#"mount --bind "$0/etc-hosts" /etc/hosts && mount --bind "$0/resolv.conf" /etc/resolv.conf && exec "$@""#;
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c '{inside}' '{}' '{}' \"$@\"\n",
        host.folder().display(),
        snproxy_binary().display()
    );
    fs::write(&script, text).expect("write the script");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("mode of the script");
    script
}

/// Addresses of this network: 10.99.0.1 and so on.
pub(super) fn numbered(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 99, 0, last).into()
}
