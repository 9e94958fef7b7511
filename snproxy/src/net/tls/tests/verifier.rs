//! Who is believed when: the times are given.

use rustls::CertificateError::UnknownIssuer;
use rustls::Error;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::super::verifier::{Authorities, Called, Callers};
use super::*;

/// The first of January.
pub(super) fn year(year: i32) -> UnixTime {
    let seconds = date_time_ymd(year, 1, 1).unix_timestamp();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds.try_into().unwrap()))
}

/// One second later.
fn after(time: UnixTime) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs() + 1))
}

/// Both verifiers of a set of authorities that was read in a year.
struct Verifiers(Called, Callers);

impl Verifiers {
    fn of(authorities: &[&Pki], read: i32) -> Self {
        let all: String = authorities.iter().map(|pki| pki.ca.as_str()).collect();
        let texts = texts(Some(&all), None, None);
        let read = SystemTime::UNIX_EPOCH + Duration::from_secs(year(read).as_secs());
        let authorities = Arc::new(Authorities::new(&texts, read).unwrap());
        let called = Called {
            authorities: Some(Arc::clone(&authorities)),
            is_named: true,
        };
        Self(called, Callers::new(authorities, true))
    }

    /// What is said of a certificate for `pod`, which is the same in both roles.
    #[track_caller]
    fn look(&self, (cert, _): &(String, String), now: UnixTime) -> Result<(), Error> {
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let name = ServerName::try_from("pod").unwrap();
        let called = (self.0).verify_server_cert(&cert, &[], &name, &[], now);
        let calls = self.1.verify_client_cert(&cert, &[], now);
        assert_eq!(
            called.as_ref().map(|_| ()).map_err(Clone::clone),
            calls.as_ref().map(|_| ()).map_err(Clone::clone)
        );
        called.map(|_| ())
    }
}

#[test]
fn an_authority_is_one_until_its_last_second() {
    let (old, new) = (authority("old", 2020, 2030), authority("new", 2020, 2040));
    let [by_old, by_new] = [&old, &new].map(|pki| pki.issue("pod", 2020, 2090));
    let verifiers = Verifiers::of(&[&old, &new], 2025);
    assert_eq!(verifiers.look(&by_old, year(2030)), Ok(()));
    let refused = Err(UnknownIssuer.into());
    assert_eq!(verifiers.look(&by_old, after(year(2030))), refused);
    assert_eq!(verifiers.look(&by_new, after(year(2030))), Ok(()));
    // Nobody is left.
    assert_eq!(verifiers.look(&by_new, after(year(2040))), refused);
    // The clock was wrong.
    assert_eq!(verifiers.look(&by_old, year(2029)), Ok(()));
    assert_eq!(verifiers.look(&by_new, year(2029)), Ok(()));

    let alone = Verifiers::of(&[&old], 2025);
    assert_eq!(alone.look(&by_old, year(2030)), Ok(()));
    assert_eq!(alone.look(&by_old, after(year(2030))), refused);
}

#[test]
fn an_authority_of_later_is_one_from_its_first_day() {
    let (now, later) = (authority("now", 2020, 2090), authority("later", 2030, 2090));
    let by_later = later.issue("pod", 2020, 2090);
    let verifiers = Verifiers::of(&[&now, &later], 2025);
    assert_eq!(
        verifiers.look(&by_later, year(2029)),
        Err(UnknownIssuer.into())
    );
    assert_eq!(verifiers.look(&by_later, year(2030)), Ok(()));
}
