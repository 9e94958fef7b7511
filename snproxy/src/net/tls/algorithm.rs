//! Names of keys that snproxy cannot use, for those who must replace them.

use rustls_pki_types::PrivateKeyDer;

use super::der::{BIT_STRING, Der, INTEGER, OCTET_STRING, OID, SEQUENCE, bits};

/// Keys that the provider of cryptography signs with.
pub(super) const OWN_KEYS: &str = "RSA with 2048 to 4096 bits, ECDSA on P-256 or P-384, or Ed25519";
/// Keys by which it verifies others.
pub(super) const OTHER_KEYS: &str =
    "RSA with 2048 to 8192 bits, ECDSA on P-256 or P-384, or Ed25519";
const MIN_RSA: usize = 2048;
const MAX_OWN_RSA: usize = 4096;
const MAX_OTHER_RSA: usize = 8192;
/// `[0]`, in which SEC 1 has the curve.
const CONTEXT_0: u8 = 0xa0;

/// Source: RFC 8017 appendix C, RFC 5480 section 2, RFC 8410 section 3, RFC 3279 section 2.3.2.
const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const RSA_PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const ED25519: &[u8] = b"\x2b\x65\x70";
const OTHERS: [(&[u8], &str); 4] = [
    (b"\x2b\x65\x71", "an Ed448 key"),
    (b"\x2a\x86\x48\xce\x38\x04\x01", "a DSA key"),
    (b"\x2b\x65\x6e", "an X25519 key, which cannot sign"),
    (RSA_PSS, "an RSA-PSS key (id-RSASSA-PSS)"),
];
const P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x2b\x81\x04\x00\x22";
const CURVES: [(&[u8], &str); 4] = [
    (b"\x2b\x81\x04\x00\x23", "P-521"),
    (b"\x2b\x81\x04\x00\x21", "P-224"),
    (b"\x2a\x86\x48\xce\x3d\x03\x01\x01", "P-192"),
    (b"\x2b\x81\x04\x00\x0a", "secp256k1"),
];

/// What a private key is, if the provider of cryptography cannot sign with it.
pub(super) fn unsupported_own(key: &PrivateKeyDer<'_>) -> Option<String> {
    let mut whole = Der(key.secret_der());
    let mut inside = Der(whole.take(SEQUENCE)?);
    inside.take(INTEGER)?;
    match key {
        PrivateKeyDer::Pkcs1(_) => rsa(inside.take(INTEGER)?, MAX_OWN_RSA),
        PrivateKeyDer::Sec1(_) => {
            inside.take(OCTET_STRING)?;
            curve(inside.take(CONTEXT_0)?)
        }
        _ => {
            let algorithm = inside.take(SEQUENCE)?;
            let private = inside.take(OCTET_STRING)?;
            let modulus = || {
                let mut rsa = Der(Der(private).take(SEQUENCE)?);
                rsa.take(INTEGER)?;
                rsa.take(INTEGER)
            };
            unsupported(algorithm, modulus(), MAX_OWN_RSA)
        }
    }
}

/// What a public key is, if no signature is verified by it; `spki` is a `SubjectPublicKeyInfo`.
pub(super) fn unsupported_other(spki: &[u8]) -> Option<String> {
    let mut inside = Der(Der(spki).take(SEQUENCE)?);
    let algorithm = inside.take(SEQUENCE)?;
    let key = bits(inside.take(BIT_STRING)?)?;
    let modulus = || Der(Der(key).take(SEQUENCE)?).take(INTEGER);
    unsupported(algorithm, modulus(), MAX_OTHER_RSA)
}

/// The same by the contents of an `AlgorithmIdentifier`.
fn unsupported(algorithm: &[u8], modulus: Option<&[u8]>, max_rsa: usize) -> Option<String> {
    let mut algorithm = Der(algorithm);
    match algorithm.take(OID)? {
        RSA => rsa(modulus?, max_rsa),
        EC => curve(algorithm.0),
        ED25519 => None,
        oid => {
            let known = OTHERS.iter().find(|(known, _)| *known == oid);
            Some(
                known
                    .map_or("a key of another algorithm", |(_, name)| name)
                    .to_owned(),
            )
        }
    }
}

fn rsa(modulus: &[u8], max: usize) -> Option<String> {
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    let bits = (modulus.len() - zeros) * 8 - usize::try_from(first.leading_zeros()).ok()?;
    let is_supported = (MIN_RSA..=max).contains(&bits);
    (!is_supported).then(|| format!("an RSA key with {bits} bits"))
}

/// `parameters` are those of ecPublicKey.
fn curve(parameters: &[u8]) -> Option<String> {
    match Der(parameters).take(OID) {
        Some(P256 | P384) => None,
        Some(oid) => {
            let known = CURVES.iter().find(|(known, _)| *known == oid);
            let name = known.map_or("another curve", |(_, name)| name);
            Some(format!("an ECDSA key on {name}"))
        }
        None => Some("an ECDSA key on a curve that has no name (explicit parameters)".to_owned()),
    }
}
