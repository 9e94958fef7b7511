//! Keys read, written and removed.

use super::call::MAX_ANSWER;
use super::json::{Bytes, Delete, Done, Number, Put, Range, Ranged, range_end};
use super::{Client, EtcdError, KeyValue};

/// Most keys under one prefix.
const MAX_KEYS: usize = 200_000;
/// Most bytes of them, where only they are read.
const MAX_KEY_BYTES: usize = 16 << 20;
/// Most bytes of them and their values.
const MAX_READ: usize = 64 << 20;
/// Keys of one answer, fewer where they are large.
const PAGE: i64 = 2000;

/// What is read of each key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    Key,
    KeyAndValue,
}

/// All keys under a prefix, at one time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// In the order of the keys.
    pub kvs: Vec<KeyValue>,
    /// What changed later has a higher one.
    pub revision: i64,
    /// Which etcd it is.
    pub cluster: String,
}

impl Client {
    /// All keys that begin with `prefix`.
    ///
    /// What a majority of the members agrees on: without a quorum nobody answers.
    pub async fn read(&self, prefix: &str, part: Part) -> Result<Snapshot, EtcdError> {
        let mut read = Snapshot::default();
        let mut from = Bytes::from(prefix);
        let mut page = PAGE;
        let mut size = 0;
        let most = match part {
            Part::Key => MAX_KEY_BYTES,
            Part::KeyAndValue => MAX_READ,
        };
        loop {
            let question = Range {
                key: from.clone(),
                end: range_end(prefix),
                limit: Number(page),
                revision: Number(read.revision),
                serializable: false,
                keys_only: part == Part::Key,
                count_only: false,
            };
            let answer = match self.call::<Ranged>("/v3/kv/range", &question).await {
                Err(EtcdError::TooLong {
                    limit: MAX_ANSWER, ..
                }) if page > 1 => {
                    page /= 2;
                    continue;
                }
                answer => answer?,
            };
            if read.revision == 0 {
                read.revision = answer.header.revision.0;
                read.cluster = answer.header.cluster_id;
            } else if read.cluster != answer.header.cluster_id {
                return Err(EtcdError::Malformed {
                    member: self.member(),
                    what: "another etcd than before in the middle of a read".to_owned(),
                });
            }
            let last = answer.kvs.last().map(|kv| kv.key.clone());
            if last.as_ref().is_some_and(|last| last.0 < from.0) {
                return Err(EtcdError::Malformed {
                    member: self.member(),
                    what: "keys before those that were asked for".to_owned(),
                });
            }
            let sizes = answer
                .kvs
                .iter()
                .map(|kv| kv.key.0.len() + kv.value.0.len());
            size += sizes.sum::<usize>();
            read.kvs.extend(answer.kvs.into_iter().map(KeyValue::from));
            if size > most {
                return Err(EtcdError::TooMuch {
                    prefix: prefix.to_owned(),
                    limit: most,
                });
            }
            if read.kvs.len() > MAX_KEYS {
                return Err(EtcdError::TooMany {
                    prefix: prefix.to_owned(),
                    limit: MAX_KEYS,
                });
            }
            match last {
                Some(mut last) if answer.more => {
                    // The next key that there can be.
                    last.0.push(0);
                    from = last;
                }
                _ => return Ok(read),
            }
        }
    }

    /// One key; `None`: it is not there.
    pub async fn get(&self, key: &str) -> Result<Option<KeyValue>, EtcdError> {
        let question = Range {
            key: key.into(),
            end: Bytes::default(),
            limit: Number(1),
            revision: Number(0),
            serializable: false,
            keys_only: false,
            count_only: false,
        };
        let answer: Ranged = self.call("/v3/kv/range", &question).await?;
        Ok(answer.kvs.into_iter().next().map(KeyValue::from))
    }

    /// Sets a key; under a lease it goes with it. Gives the revision of the change.
    pub async fn put(&self, key: &str, value: &[u8], lease: Option<i64>) -> Result<i64, EtcdError> {
        let question = Put {
            key: key.into(),
            value: Bytes(value.to_vec()),
            lease: Number(lease.unwrap_or(0)),
        };
        let answer: Done = self
            .call("/v3/kv/put", &question)
            .await
            .map_err(|error| super::lease::gone(error, lease))?;
        Ok(answer.header.revision.0)
    }

    /// Removes a key; one that is not there is no error.
    pub async fn delete(&self, key: &str) -> Result<(), EtcdError> {
        let question = Delete { key: key.into() };
        let _: Done = self.call("/v3/kv/deleterange", &question).await?;
        Ok(())
    }
}
