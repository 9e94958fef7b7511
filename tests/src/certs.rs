//! Certificates for scenarios: authorities of their own, and what they issue.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::{
    fs, io,
    ops::Range,
    path::Path,
    time::{Duration, SystemTime},
};

const DAY: Duration = Duration::from_hours(24);

/// An authority that signs.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate, its key, and the authority that is believed by whoever holds them.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM, as the other two.
    pub ca: String,
    pub cert: String,
    pub key: String,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::until(name, SystemTime::now() + DAY * 3650)
    }

    /// One that is believed until then.
    pub fn until(name: &str, end: SystemTime) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = end.into();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Its own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for these names and addresses, good for 60 days, for servers and for clients.
    pub fn issue(&self, names: &[&str]) -> Issued {
        let now = SystemTime::now();
        self.issue_for(names, now - DAY..now + DAY * 60)
    }

    /// One that was good until yesterday.
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        let now = SystemTime::now();
        self.issue_for(names, now - DAY * 30..now - DAY)
    }

    /// The same for this time.
    pub fn issue_for(&self, names: &[&str], time: Range<SystemTime>) -> Issued {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names");
        let first = names.first().map_or("nobody", String::as_str);
        params.distinguished_name.push(DnType::CommonName, first);
        params.not_before = time.start.into();
        params.not_after = time.end.into();
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued {
            ca: self.pem.clone(),
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    /// The same, for whom another authority is the one to believe.
    #[must_use]
    pub fn believing(mut self, ca: &Ca) -> Self {
        ca.pem().clone_into(&mut self.ca);
        self
    }

    /// What [`write_folder`](Self::write_folder) has put there.
    pub fn read_folder(folder: &Path) -> io::Result<Self> {
        let read = |name: &str| fs::read_to_string(folder.join(name));
        Ok(Self {
            ca: read("ca.pem")?,
            cert: read("cert.pem")?,
            key: read("key.pem")?,
        })
    }

    /// Puts `ca.pem`, `cert.pem` and `key.pem` into a folder, which is made; each file is replaced at once.
    #[track_caller]
    pub fn write_folder(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("a folder for certificates");
        for (name, text) in [
            ("ca.pem", &self.ca),
            ("key.pem", &self.key),
            ("cert.pem", &self.cert),
        ] {
            let draft = folder.join(format!(".{name}"));
            fs::write(&draft, text).expect("write a certificate");
            fs::rename(&draft, folder.join(name)).expect("put a certificate in place");
        }
    }
}
