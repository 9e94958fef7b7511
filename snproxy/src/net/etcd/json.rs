//! What goes over the gateway: protobuf's JSON form, in which 64-bit numbers are texts and bytes are base64.
//!
//! Source: etcd 3.4, `Documentation/dev-guide/api_grpc_gateway.md` and `rpc.swagger.json`.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{DeserializeOwned, Error, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::{Event, KeyValue};

/// Most keys of one answer: more than are ever asked for.
const MAX_KVS: usize = 4096;
/// Most changes of one line: in 4 MiB there is no place for more with a key.
const MAX_EVENTS: usize = 65_536;

/// A list of up to `MOST` elements: an empty one takes three bytes of the answer, and twenty times as many of memory.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct List<T, const MOST: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of up to {MOST} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = list.next_element()? {
                if elements.len() == MOST {
                    return Err(A::Error::invalid_length(MOST + 1, &self));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    deserializer.deserialize_seq(List::<T, MOST>(PhantomData))
}

/// Bytes as base64.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.as_bytes());
        bytes.map(Self).map_err(|_| {
            // Not with the text itself: it may be as long as the answer.
            D::Error::invalid_value(Unexpected::Other("a text"), &"base64")
        })
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

/// A 64-bit number as a text.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Number(pub(super) i64);

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A gateway of another version may write it bare.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Said {
            Text(String),
            Bare(i64),
        }
        match Said::deserialize(deserializer)? {
            Said::Bare(number) => Ok(Self(number)),
            Said::Text(text) => text
                .parse()
                .map(Self)
                .map_err(|_| D::Error::invalid_value(Unexpected::Other("a text"), &"a number")),
        }
    }
}

/// What is at the head of every answer. What has none is not of etcd: `{}` must not be taken for *no keys*.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Header {
    /// Unsigned, and only compared.
    pub(super) cluster_id: String,
    pub(super) revision: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct Range {
    pub(super) key: Bytes,
    #[serde(rename = "range_end")]
    pub(super) end: Bytes,
    pub(super) limit: Number,
    /// 0: as it is now.
    pub(super) revision: Number,
    pub(super) serializable: bool,
    pub(super) keys_only: bool,
    pub(super) count_only: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Ranged {
    pub(super) header: Header,
    #[serde(default, deserialize_with = "at_most::<_, _, MAX_KVS>")]
    pub(super) kvs: Vec<Kv>,
    #[serde(default)]
    pub(super) more: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kv {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) mod_revision: Number,
    pub(super) lease: Number,
}

impl From<Kv> for KeyValue {
    fn from(kv: Kv) -> Self {
        Self {
            key: kv.key.0,
            value: kv.value.0,
            revision: kv.mod_revision.0,
            lease: kv.lease.0,
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Put {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    pub(super) lease: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct Delete {
    pub(super) key: Bytes,
}

/// An answer of which only the head, or nothing, is of interest.
#[derive(Debug, Deserialize)]
pub(super) struct Done {
    pub(super) header: Header,
}

#[derive(Debug, Serialize)]
pub(super) struct Grant {
    #[serde(rename = "TTL")]
    pub(super) ttl: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct OfLease {
    #[serde(rename = "ID")]
    pub(super) id: Number,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Leased {
    #[serde(rename = "ID")]
    pub(super) id: Number,
    /// In seconds; 0: there is no such lease.
    #[serde(rename = "TTL")]
    pub(super) ttl: Number,
}

#[derive(Debug, Serialize)]
pub(super) struct Authenticate<'a> {
    pub(super) name: &'a str,
    pub(super) password: &'a str,
}

#[derive(Debug, Deserialize)]
pub(super) struct Authenticated {
    pub(super) token: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Watch {
    pub(super) create_request: CreateWatch,
}

#[derive(Debug, Serialize)]
pub(super) struct CreateWatch {
    pub(super) key: Bytes,
    #[serde(rename = "range_end")]
    pub(super) end: Bytes,
    pub(super) start_revision: Number,
    /// What changed may come in pieces.
    pub(super) fragment: bool,
}

/// A line of an answer that goes on.
#[derive(Debug, Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub(super) struct Line<T> {
    pub(super) result: Option<T>,
    pub(super) error: Option<StreamError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StreamError {
    pub(super) grpc_code: Option<u32>,
    pub(super) code: Option<u32>,
    pub(super) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Watched {
    pub(super) created: bool,
    pub(super) canceled: bool,
    pub(super) cancel_reason: String,
    pub(super) compact_revision: Number,
    /// More of the same comes in the next line.
    pub(super) fragment: bool,
    #[serde(deserialize_with = "at_most::<_, _, MAX_EVENTS>")]
    pub(super) events: Vec<Change>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Change {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) kv: Kv,
}

#[derive(Debug, Default, Deserialize)]
pub(super) enum Kind {
    #[default]
    #[serde(rename = "PUT")]
    Put,
    #[serde(rename = "DELETE")]
    Delete,
}

impl From<Change> for Event {
    fn from(Change { kind, kv }: Change) -> Self {
        match kind {
            Kind::Put => Self::Put(kv.into()),
            Kind::Delete => Self::Delete {
                key: kv.key.0,
                revision: kv.mod_revision.0,
            },
        }
    }
}

/// What stands in place of an answer.
#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    /// gRPC's.
    pub(super) code: u32,
    #[serde(default)]
    pub(super) message: String,
}

/// End of the keys that begin with `prefix`. Empty where there is none: up to the last key.
pub(super) fn range_end(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Bytes(end);
        }
    }
    // Source: etcd, `clientv3.WithFromKey`.
    Bytes(vec![0])
}
