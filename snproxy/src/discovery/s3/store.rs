//! The client of the bucket.

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use hyper::Uri;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, GetOptions, ObjectStore, RetryConfig};
use reqwest::Certificate;
use tokio::time::timeout;

use super::http::Connector;
use super::{Etags, FETCH_LIMIT, Fetched, MAX_OBJECT, S3Error};
use crate::diag::printable;

/// More would not fit into the time of a fetch.
const MAX_RETRIES: usize = 2;
/// The longest bundle of authorities that is read: a system's own is a fifth of it.
const MAX_BUNDLE: u64 = 1024 * 1024;
/// Longest name that S3 allows.
const MAX_BUCKET: usize = 63;
/// Most that is shown of what a store says.
const MAX_SHOWN: usize = 300;

/// Fetches the objects `names` under `prefix`, unless all of them are as `known` says.
///
/// Errors: what cannot be had, and why; what was known stays true as far as anybody knows.
pub async fn fetch(
    bucket: &str,
    prefix: &str,
    names: &[&str],
    known: Option<&Etags>,
) -> Result<Fetched, S3Error> {
    let fetched = timeout(FETCH_LIMIT, async {
        let store = store(bucket).await?;
        let source = Source {
            store: &store,
            bucket,
            prefix,
        };
        source.fetch(names, known).await
    });
    fetched.await.unwrap_or_else(|_| {
        Err(S3Error::Timeout {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    })
}

/// A client with the credentials that are in force now: those of a role change.
async fn store(bucket: &str) -> Result<impl ObjectStore, S3Error> {
    // Its TLS is built for any provider of cryptography; that the process has one already is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let setting = |error: object_store::Error| S3Error::Setting {
        bucket: bucket.to_owned(),
        reason: said(&error),
    };
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(2),
            base: 2.,
        },
        max_retries: MAX_RETRIES,
        retry_timeout: FETCH_LIMIT,
    };
    let builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry);
    let is_plain = check(bucket, |key| builder.get_config_value(key))?;
    let store = builder
        .with_client_options(ClientOptions::new().with_allow_http(is_plain))
        .with_http_connector(connector(is_plain)?)
        .build()
        .map_err(setting)?;
    // By itself, so that an answer of the metadata service is not taken for one of the bucket.
    let credentials = store.credentials().get_credential().await;
    credentials.map_err(|error| S3Error::Credentials {
        bucket: bucket.to_owned(),
        reason: said(&error),
    })?;
    Ok(store)
}

/// Whether the store is asked without TLS. Looks at what goes into a request, which is taken for granted where it is
/// signed: that would panic.
///
/// Errors: the name of the bucket, or a variable of the environment, cannot be in one.
fn check(
    bucket: &str,
    setting: impl Fn(&AmazonS3ConfigKey) -> Option<String>,
) -> Result<bool, S3Error> {
    let wrong = |reason: String| S3Error::Setting {
        bucket: bucket.to_owned(),
        reason,
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if bucket.is_empty() || bucket.len() > MAX_BUCKET || !bucket.bytes().all(in_name) {
        return Err(wrong("not the name of a bucket".to_owned()));
    }
    for (key, variable) in [
        (AmazonS3ConfigKey::AccessKeyId, "AWS_ACCESS_KEY_ID"),
        (AmazonS3ConfigKey::SecretAccessKey, "AWS_SECRET_ACCESS_KEY"),
        (AmazonS3ConfigKey::Token, "AWS_SESSION_TOKEN"),
    ] {
        let value = setting(&key).unwrap_or_default();
        if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong(format!("{variable} has a character that none has")));
        }
    }
    for (key, variable) in [
        (AmazonS3ConfigKey::Region, "AWS_REGION"),
        (AmazonS3ConfigKey::DefaultRegion, "AWS_DEFAULT_REGION"),
    ] {
        let value = setting(&key).unwrap_or_default();
        if !value.bytes().all(in_name) {
            return Err(wrong(format!("{variable} `{value}` is no region")));
        }
    }
    let endpoint = [
        (AmazonS3ConfigKey::S3Endpoint, "AWS_ENDPOINT_URL_S3"),
        (AmazonS3ConfigKey::Endpoint, "AWS_ENDPOINT_URL"),
    ];
    let mut endpoint = endpoint
        .into_iter()
        .filter_map(|(key, variable)| Some((setting(&key)?, variable)));
    let Some((endpoint, variable)) = endpoint.next() else {
        return Ok(false);
    };
    let url = endpoint.parse::<Uri>().ok();
    let scheme = url.as_ref().filter(|url| url.authority().is_some());
    match scheme.and_then(Uri::scheme_str) {
        Some("http") => Ok(true),
        Some("https") => Ok(false),
        _ => Err(wrong(format!(
            "{variable} `{endpoint}` is no http:// or https:// address"
        ))),
    }
}

/// Errors: the bundle of `AWS_CA_BUNDLE` cannot be used.
fn connector(is_plain: bool) -> Result<Connector, S3Error> {
    let path = env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty());
    let path = path.map(PathBuf::from);
    let authorities = match path {
        Some(path) => bundle(&path).map_err(|source| S3Error::CaBundle { path, source })?,
        None => Vec::new(),
    };
    Ok(Connector {
        is_plain,
        authorities,
    })
}

fn bundle(path: &std::path::Path) -> std::io::Result<Vec<Certificate>> {
    let mut pem = Vec::new();
    File::open(path)?.take(MAX_BUNDLE).read_to_end(&mut pem)?;
    Certificate::from_pem_bundle(&pem).map_err(std::io::Error::other)
}

/// Where objects are.
struct Source<'a, S> {
    store: &'a S,
    bucket: &'a str,
    prefix: &'a str,
}

/// What became of the request for one object.
enum Got {
    Object {
        bytes: Vec<u8>,
        etag: Option<String>,
    },
    Missing,
    NotModified,
}

impl<S: ObjectStore> Source<'_, S> {
    async fn fetch(&self, names: &[&str], known: Option<&Etags>) -> Result<Fetched, S3Error> {
        let mut got = Vec::with_capacity(names.len());
        let mut is_changed = known.is_none();
        for name in names {
            let known = known.and_then(|known| known.0.get(*name));
            let object = self.get(name, known.cloned().flatten()).await?;
            is_changed |= match &object {
                Got::NotModified => false,
                Got::Missing => known != Some(&None),
                Got::Object { .. } => true,
            };
            got.push(object);
        }
        if !is_changed {
            return Ok(Fetched::NotModified);
        }
        let mut objects = Vec::with_capacity(names.len());
        let mut etags = Etags::default();
        for (name, mut object) in names.iter().zip(got) {
            if matches!(object, Got::NotModified) {
                object = self.get(name, None).await?;
            }
            let (bytes, etag) = match object {
                Got::Object { bytes, etag } => (Some(bytes), etag),
                Got::Missing | Got::NotModified => (None, None),
            };
            etags.0.insert((*name).to_owned(), etag);
            objects.push(bytes);
        }
        Ok(Fetched::Changed { objects, etags })
    }

    async fn get(&self, name: &str, known: Option<String>) -> Result<Got, S3Error> {
        let object = self.object(name);
        let path = [self.prefix.trim_matches('/'), name].join("/");
        let path = Path::parse(path.trim_start_matches('/')).map_err(|error| S3Error::Setting {
            bucket: self.bucket.to_owned(),
            reason: said(&error),
        })?;
        let asked = GetOptions {
            if_none_match: known,
            ..GetOptions::default()
        };
        let found = match self.store.get_opts(&path, asked).await {
            Ok(found) => found,
            Err(error) => return self.not_got(object, &error),
        };
        let too_large = || S3Error::TooLarge {
            object: object.clone(),
        };
        if found.meta.size > MAX_OBJECT as u64 {
            return Err(too_large());
        }
        let etag = found.meta.e_tag.clone();
        let mut bytes = Vec::new();
        let mut parts = found.into_stream();
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| S3Error::Store {
                object: object.clone(),
                reason: said(&error),
            })?;
            if bytes.len() + part.len() > MAX_OBJECT {
                return Err(too_large());
            }
            bytes.extend_from_slice(&part);
        }
        Ok(Got::Object { bytes, etag })
    }

    fn not_got(&self, object: String, error: &object_store::Error) -> Result<Got, S3Error> {
        let mut reason = said(error);
        match error {
            object_store::Error::NotModified { .. } => Ok(Got::NotModified),
            object_store::Error::NotFound { .. } if reason.starts_with("NoSuchBucket") => {
                Err(S3Error::NoBucket {
                    bucket: self.bucket.to_owned(),
                })
            }
            // Who does not say what was not found is no S3, and says so to everything.
            object_store::Error::NotFound { .. } if !reason.starts_with("Server returned") => {
                Ok(Got::Missing)
            }
            object_store::Error::PermissionDenied { .. }
            | object_store::Error::Unauthenticated { .. } => {
                if reason.starts_with("AccessDenied") {
                    reason += "; S3 says the same of what is not there in a bucket that may not be listed";
                }
                Err(S3Error::Forbidden { object, reason })
            }
            _ => Err(S3Error::Store { object, reason }),
        }
    }

    fn object(&self, name: &str) -> String {
        let prefix = self.prefix.trim_matches('/');
        let slash = if prefix.is_empty() { "" } else { "/" };
        format!("s3://{}/{prefix}{slash}{name}", self.bucket)
    }
}

/// The heart of an error, on one line: the code and message of a store's answer, else the innermost cause.
fn said(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    let text = match (between(&text, "Code"), between(&text, "Message")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => text,
    };
    let words: Vec<_> = text.split_whitespace().collect();
    // The store may be anybody's: its words must not reach a terminal as commands.
    let mut line = printable(&words.join(" ")).into_owned();
    if let Some((at, _)) = line.char_indices().nth(MAX_SHOWN) {
        line.truncate(at);
        line.push('…');
    }
    line
}

/// The text of an XML element.
fn between<'a>(text: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{element}>"))?;
    let (inside, _) = rest.split_once(&format!("</{element}>"))?;
    Some(inside)
}

#[cfg(test)]
mod tests;
