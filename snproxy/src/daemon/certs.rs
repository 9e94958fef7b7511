//! Certificates of what is in force: read with the files, replaced while connections go on, and watched for their end.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;
use tracing::warn;

use crate::admin::api;
use crate::conf::{
    CertSource, CertTexts, ClientTls, ClientVerify, Conf, PeerTls, UpstreamTls, UpstreamVerify,
};
use crate::diag::{Diagnostic, Severity, Source, has_errors};
use crate::discovery::certs::{self, Store};
use crate::net::tls::{
    Certificate, ClientConfig, Configs, PeerConfigs, ServerConfig, certificates, client_config,
    peer_configs, server_config,
};

use super::Daemon;
use super::reload::Why;

/// How often S3 is asked for newer certificates.
const RENEWAL: Duration = Duration::from_mins(1);
/// How long before its end a certificate is spoken of.
const NOTICE: Duration = Duration::from_hours(14 * 24);
/// How often.
const NOTICES: Duration = Duration::from_hours(24);
/// Configurations that nobody needs any more, and a connection of the last table may yet ask for.
const MAX_OLD: usize = 64;

/// The certificates of one look at the files.
#[derive(Debug, Default)]
pub struct Certs {
    /// As they were read, good or bad.
    seen: BTreeMap<CertSource, Result<CertTexts, Diagnostic>>,
    /// What is wrong with each set that is asked for.
    problems: BTreeMap<CertSource, Option<String>>,
    /// Of what is asked for, by file.
    used: Vec<Used>,
    clients: HashMap<Arc<ClientTls>, Built<ServerConfig>>,
    upstreams: HashMap<Arc<UpstreamTls>, Built<ClientConfig>>,
    etcd: Option<Built<ClientConfig>>,
    peers: HashMap<Arc<PeerTls>, Built<PeerConfigs>>,
}

/// A certificate that is in use.
#[derive(Debug)]
struct Used {
    certificate: Certificate,
    source: String,
    /// The keys that ask for it.
    uses: Vec<&'static str>,
}

#[derive(Debug)]
struct Built<C> {
    config: Arc<C>,
    texts: CertTexts,
}

impl<C> Clone for Built<C> {
    fn clone(&self) -> Self {
        Self {
            config: Arc::clone(&self.config),
            texts: self.texts.clone(),
        }
    }
}

impl Certs {
    /// Those that `conf` names, and what is wrong with them. A set that was good `before` goes on where it is bad now:
    /// that is a warning. Blocks.
    pub fn load(conf: &Conf, before: &Self, store: &Store) -> (Self, Vec<Diagnostic>) {
        Self::load_behind(Self::default(), conf, before, store)
    }

    /// The same for `conf`, which stays in force where `looked` are those of files that are not to be used: what was
    /// read for them is not read again, and stays in sight. Blocks.
    pub(super) fn load_behind(
        looked: Self,
        conf: &Conf,
        before: &Self,
        store: &Store,
    ) -> (Self, Vec<Diagnostic>) {
        let now = SystemTime::now();
        let mut certs = Self {
            seen: looked.seen,
            ..Self::default()
        };
        let mut found = Vec::new();
        let of_ports = |port, key| move || said_at(conf, key, port);
        for (port, tls) in
            (conf.ports.kinds()).filter_map(|(port, kind)| Some((port, kind.client_tls.as_ref()?)))
        {
            if certs.clients.contains_key(tls) {
                continue;
            }
            let had_ca = before.verifies_clients_of(&tls.certs);
            let build = |texts: &CertTexts| match tls.verify {
                ClientVerify::ByCa if had_ca && !texts.has_ca() => Err(ca_removed(texts)),
                verify => server_config(texts, verify, &tls.alpn, now),
            };
            let (before, asked) = (before.clients.get(tls), of_ports(port, "CLIENTTLS"));
            let made = certs.make(&tls.certs, store, before, build, asked, &mut found);
            certs
                .clients
                .extend(made.map(|made| (Arc::clone(tls), made)));
        }
        for (port, tls) in (conf.ports.kinds())
            .filter_map(|(port, kind)| Some((port, kind.upstream_tls.as_ref()?)))
        {
            if certs.upstreams.contains_key(tls) {
                continue;
            }
            let build = |texts: &CertTexts| client_config(texts, tls.verify, &tls.alpn, now);
            let (before, asked) = (before.upstreams.get(tls), of_ports(port, "UPSTREAMTLS"));
            let made = certs.make(&tls.certs, store, before, build, asked, &mut found);
            certs
                .upstreams
                .extend(made.map(|made| (Arc::clone(tls), made)));
        }
        if let Some(source) = conf.etcd.as_ref().and_then(|etcd| etcd.certs.as_ref()) {
            let build = |texts: &CertTexts| client_config(texts, UpstreamVerify::Ca, &[], now);
            let before = before.etcd.as_ref();
            let before = before.filter(|before| before.texts.source == *source);
            let asked = of_ports(0, "ETCD");
            certs.etcd = certs.make(source, store, before, build, asked, &mut found);
        }
        if let Some(tls) = &conf.peer_tls {
            let build = |texts: &CertTexts| peer_configs(texts, tls.verify_host, now);
            let (before, asked) = (before.peers.get(tls), of_ports(0, "PEERTLS"));
            let peers = certs.make(&tls.certs, store, before, build, asked, &mut found);
            certs
                .peers
                .extend(peers.map(|peers| (Arc::clone(tls), peers)));
        }
        for source in certs.seen.keys() {
            let problem = store.problem(source).map(as_warning);
            found.extend(problem.map(|problem| (source.clone(), problem)));
        }
        let exposed = exposed(conf, certs.seen.keys());
        certs.used = certs.in_use();
        keep_old(&mut certs.clients, &before.clients);
        keep_old(&mut certs.upstreams, &before.upstreams);
        keep_old(&mut certs.peers, &before.peers);
        let mut once = Vec::new();
        for (source, finding) in found {
            let problem = certs.problems.entry(source).or_default();
            problem.get_or_insert_with(|| finding.to_string());
            if !once.contains(&finding) {
                once.push(finding);
            }
        }
        once.extend(exposed);
        (certs, once)
    }

    /// Whether clients of this set have to show certificates by its CA.
    fn verifies_clients_of(&self, source: &CertSource) -> bool {
        let mut clients = self.clients.iter();
        clients.any(|(tls, built)| {
            tls.certs == *source && tls.verify != ClientVerify::None && built.texts.has_ca()
        })
    }

    /// What was read, and nothing made of it.
    pub(super) fn looked(&self) -> Self {
        Self {
            seen: self.seen.clone(),
            ..Self::default()
        }
    }

    /// What the connections use.
    pub fn configs(&self) -> Configs {
        fn of<K: Clone + Eq + Hash, C>(built: &HashMap<K, Built<C>>) -> HashMap<K, Arc<C>> {
            let built = built.iter();
            built
                .map(|(key, built)| (key.clone(), Arc::clone(&built.config)))
                .collect()
        }
        Configs {
            clients: of(&self.clients),
            upstreams: of(&self.upstreams),
            peers: of(&self.peers),
        }
    }

    /// What etcd is asked with.
    pub(super) fn etcd(&self) -> Option<Arc<ClientConfig>> {
        self.etcd.as_ref().map(|built| Arc::clone(&built.config))
    }

    /// Files to watch.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.seen.keys().flat_map(certs::paths).collect()
    }

    /// Whether a set has a problem that had none `before`.
    pub(super) fn has_new_problem(&self, before: &Self) -> bool {
        let was_good = |source: &CertSource| before.problems.get(source) == Some(&None);
        let mut problems = self.problems.iter();
        problems.any(|(source, problem)| problem.is_some() && was_good(source))
    }

    /// Tells what was read apart from what is read at another time.
    pub(super) fn fingerprint(&self) -> u64 {
        fingerprint(&self.seen)
    }

    /// Asks S3 for what is newer. Blocks.
    pub(super) fn renew(&self, store: &Store) {
        store.renew(&self.seen.keys().cloned().collect::<Vec<_>>());
    }

    /// The same, as it is now. Blocks.
    pub(super) fn fingerprint_now(&self, store: &Store) -> u64 {
        let seen = self.seen.keys();
        let seen = seen.map(|source| (source.clone(), store.read(source)));
        fingerprint(&seen.collect())
    }

    fn read(&mut self, source: &CertSource, store: &Store) -> Result<CertTexts, Diagnostic> {
        self.problems.entry(source.clone()).or_default();
        if let Some(seen) = self.seen.get(source) {
            return seen.clone();
        }
        let texts = store.read(source);
        self.seen.insert(source.clone(), texts.clone());
        texts
    }

    /// What is made of a set, or was `before` where nothing can be.
    fn make<C>(
        &mut self,
        source: &CertSource,
        store: &Store,
        before: Option<&Built<C>>,
        build: impl Fn(&CertTexts) -> Result<Arc<C>, Diagnostic>,
        asked: impl FnOnce() -> String,
        found: &mut Vec<(CertSource, Diagnostic)>,
    ) -> Option<Built<C>> {
        let mut wrong = match self.read(source, store) {
            // Its sessions are known to it.
            Ok(texts) if before.is_some_and(|before| before.texts == texts) => {
                return before.cloned();
            }
            Ok(texts) => match build(&texts) {
                Ok(config) => return Some(Built { config, texts }),
                Err(wrong) => wrong,
            },
            Err(wrong) => wrong,
        };
        if before.is_some() {
            wrong = as_warning(wrong);
        }
        wrong.message.push_str(&asked());
        found.push((source.clone(), wrong));
        before.cloned()
    }

    /// What was built for those that ask now, by file; of one name the certificate that ends first is the first.
    fn in_use(&self) -> Vec<Used> {
        let clients = self.clients.values();
        let clients = clients.map(|built| ("CLIENTTLS", &built.texts));
        let upstreams = self.upstreams.values();
        let upstreams = upstreams.map(|built| ("UPSTREAMTLS", &built.texts));
        let etcd = self.etcd.iter().map(|built| ("ETCD", &built.texts));
        let peers = self.peers.values().map(|built| ("PEERTLS", &built.texts));
        let all = clients.chain(upstreams).chain(etcd).chain(peers);
        let mut used: BTreeMap<_, Used> = BTreeMap::new();
        for (key, texts) in all {
            let source = texts.source.to_string();
            // The system replaces its CAs by itself: the end of one is no news to the operator.
            let is_system = matches!(texts.source, CertSource::System { .. });
            let ca = texts.ca.as_ref().filter(|_| is_system);
            let is_own = |it: &Certificate| ca.is_none_or(|ca| ca.path != it.file);
            for certificate in certificates(texts).into_iter().filter(is_own) {
                let Certificate { file, subject, .. } = certificate.clone();
                let place = (file, subject, certificate.not_after, source.clone());
                let used = used.entry(place).or_insert_with(|| Used {
                    certificate,
                    source: source.clone(),
                    uses: Vec::new(),
                });
                if !used.uses.contains(&key) {
                    used.uses.push(key);
                }
            }
        }
        used.into_values().collect()
    }
}

/// Who asks for certificates, for the end of a message; `port` is one of those that do, if they are asked for by ports.
fn said_at(conf: &Conf, key: &str, port: u16) -> String {
    let origins = conf.origins.iter().rev();
    let mut origins = origins.filter(|origin| origin.key == key);
    let origin = origins.find(|origin| origin.holds_for(port));
    origin.map_or_else(String::new, |origin| {
        format!(" ({key} of {})", origin.place)
    })
}

/// Errors that a set had a CA, which must not end the verification of clients silently.
fn ca_removed(texts: &CertTexts) -> Diagnostic {
    let place = texts.source.place_of("ca");
    let place = place.unwrap_or_else(|| texts.source.to_string().into());
    let message = "no such file, and clients are verified by it; \
                   set verify=none to serve clients without certificates";
    Diagnostic::of_file(place, Severity::Error, message)
}

/// Warnings for secrets that all users of this host can read.
fn exposed<'a>(conf: &Conf, sources: impl Iterator<Item = &'a CertSource>) -> Vec<Diagnostic> {
    let keys = sources.flat_map(certs::key_paths);
    let mut found: Vec<Diagnostic> = keys
        .filter_map(|key| certs::exposed(&key, "the private key"))
        .collect();
    let etcd = conf.etcd.as_ref();
    let password = etcd.and_then(|etcd| etcd.password_file.as_ref());
    found.extend(password.and_then(|path| certs::exposed(path, "the password for etcd")));
    found
}

fn as_warning(wrong: Diagnostic) -> Diagnostic {
    let message = format!("{}: the last good certificates stay in use", wrong.message);
    Diagnostic::of_file(wrong.file, Severity::Warning, message)
}

fn keep_old<K: Clone + Eq + Hash, C>(
    now: &mut HashMap<K, Built<C>>,
    before: &HashMap<K, Built<C>>,
) {
    let most = now.len() + MAX_OLD;
    for (key, built) in before {
        if now.len() < most && !now.contains_key(key) {
            now.insert(key.clone(), built.clone());
        }
    }
}

fn fingerprint(seen: &BTreeMap<CertSource, Result<CertTexts, Diagnostic>>) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (source, texts) in seen {
        source.hash(&mut hasher);
        match texts {
            Ok(texts) => {
                let texts = [&texts.ca, &texts.cert, &texts.key];
                let text = |source: &Option<Source>| source.as_ref().map(|it| it.text.clone());
                texts.map(text).hash(&mut hasher);
            }
            Err(wrong) => wrong.to_string().hash(&mut hasher),
        }
    }
    hasher.finish()
}

/// When things about certificates were last done.
#[derive(Default)]
pub(super) struct CertTimes {
    renewal: Option<JoinHandle<bool>>,
    renewed: Option<Instant>,
    noticed: Option<Instant>,
}

impl CertTimes {
    /// Whether S3 had anything new; never without a renewal under way.
    ///
    /// Cancel safety: yes.
    pub(super) async fn renewed(&mut self) -> bool {
        let Some(renewal) = &mut self.renewal else {
            return std::future::pending().await;
        };
        let is_news = renewal.await;
        self.renewal = None;
        is_news.unwrap_or(false)
    }
}

impl Daemon {
    /// Asks S3 where it is time, and speaks of certificates that come to their end.
    pub(super) fn look_at_certs(&mut self, now: Instant) {
        let certs = self.loaded.certs();
        let times = &mut self.cert_times;
        let is_due = |last: Option<Instant>, time| last.is_none_or(|last| now >= last + time);
        if is_due(times.noticed, NOTICES) {
            times.noticed = Some(now);
            for certificate in ending(&certs.used, SystemTime::now()) {
                warn!("{certificate}");
            }
        }
        let is_s3 = |source: &&CertSource| matches!(source, CertSource::S3 { .. });
        let sources: Vec<CertSource> = certs.seen.keys().filter(is_s3).cloned().collect();
        if sources.is_empty() || times.renewal.is_some() {
            return;
        }
        // What was read at the start is as new as it gets.
        let renewed = *times.renewed.get_or_insert(now);
        if now >= renewed + RENEWAL {
            times.renewed = Some(now);
            let names = Arc::clone(&self.names);
            let renew = move || names.certs.renew(&sources);
            times.renewal = Some(tokio::task::spawn_blocking(renew));
        }
    }

    pub(super) fn certs_renewed(&mut self, is_news: bool) {
        if is_news {
            self.reload(Why::Changed);
        }
    }

    pub(super) fn certificates(&self) -> Vec<api::Certificate> {
        let now = SystemTime::now();
        let certs = self.loaded.certs();
        let shown = |used: &Used| {
            let certificate = &used.certificate;
            api::Certificate {
                file: certificate.file.to_string_lossy().into_owned(),
                subject: certificate.subject.clone(),
                source: used.source.clone(),
                uses: used.uses.iter().map(ToString::to_string).collect(),
                expires: certificate.last_day(),
                expires_at: seconds_from(SystemTime::UNIX_EPOCH, certificate.not_after),
                seconds_left: seconds_from(now, certificate.not_after),
            }
        };
        certs.used.iter().map(shown).collect()
    }

    pub(super) fn certificate_sources(&self) -> Vec<api::CertificateSource> {
        let certs = self.loaded.certs();
        let shown = |(source, problem): (&CertSource, &Option<String>)| api::CertificateSource {
            source: source.to_string(),
            problem: problem.clone(),
        };
        certs.problems.iter().map(shown).collect()
    }
}

/// Negative: `to` is before `from`.
fn seconds_from(from: SystemTime, to: SystemTime) -> i64 {
    match to.duration_since(from) {
        Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        Err(since) => i64::try_from(since.duration().as_secs()).map_or(i64::MIN, |past| -past),
    }
}

/// What is said of those that end soon, or have.
fn ending(used: &[Used], now: SystemTime) -> Vec<Diagnostic> {
    let soon = used
        .iter()
        .map(|used| &used.certificate)
        .filter(|certificate| certificate.not_after <= now + NOTICE);
    soon.map(|certificate| {
        let ends = if certificate.not_after < now {
            "expired"
        } else {
            "expires"
        };
        let Certificate { subject, file, .. } = certificate;
        let day = certificate.last_day();
        let message = format!("the certificate of {subject} {ends} on {day}");
        Diagnostic::of_file(file, Severity::Warning, message)
    })
    .collect()
}

/// What is wrong with the certificates, and the password, of a configuration that nobody runs. Blocks.
pub fn check(conf: &Conf) -> Vec<Diagnostic> {
    let (certs, mut found) = Certs::load(conf, &Certs::default(), &Store::default());
    let password = conf
        .etcd
        .as_ref()
        .and_then(|etcd| etcd.password_file.as_ref());
    if let Some(path) = password
        && let Err(error) = File::open(path)
    {
        let message = format!("the password for etcd: {error}");
        found.push(Diagnostic::of_file(path, Severity::Warning, message));
    }
    if !has_errors(&found) {
        found.extend(ending(&certs.used, SystemTime::now()));
    }
    found
}
