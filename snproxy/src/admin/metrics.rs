//! `GET /metrics`: the status as numbers, in the text format of `OpenMetrics` 1.0.
//!
//! Nothing is counted here: what is shown is read when it is asked for.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use hyper::Request;
use hyper::header::ACCEPT;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::api::Status;

mod families;
mod form;
#[cfg(test)]
mod tests;

use families::FAMILIES;

pub(super) use form::{OPEN_METRICS, to_text};

/// The media type that a request asks for.
pub(super) fn form_for<B>(request: &Request<B>) -> &'static str {
    let accept = request.headers().get_all(ACCEPT).iter();
    form::media_type(accept.filter_map(|value| value.to_str().ok()))
}

/// Most pods, targets, services and certificates, of each, that have series of their own: a scrape of all that
/// 61,744 ports may have would be 20 MB. Those left out are counted.
const MAX_EACH: usize = 2000;

/// The status as a page of metrics.
///
/// Errors: none but those of `fmt::Write`, which a `String` does not have.
pub(super) fn page(status: Status) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("snproxy");
    registry.register_collector(Box::new(Page(status)));
    let mut page = String::new();
    encode(&mut page, &registry)?;
    Ok(page)
}

/// Series that differ in their labels only.
struct Family {
    /// Without `snproxy_`; of a counter without `_total`.
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    read: fn(&Status) -> Vec<Sample>,
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

struct Sample {
    /// Values of the labels, in the order of their names.
    labels: Vec<String>,
    value: Value,
}

#[derive(Clone, Copy)]
enum Value {
    Count(u64),
    /// Seconds since 1970.
    Time(i64),
    Millis(u64),
}

impl Family {
    fn encode(&self, status: &Status, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut samples = (self.read)(status);
        // Two of the same labels would make the whole page worthless to whoever reads it.
        let mut seen = HashSet::new();
        samples.retain(|sample| seen.insert(sample.labels.clone()));
        if samples.is_empty() {
            return Ok(());
        }
        let kind = match self.kind {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        };
        let mut encoder = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for sample in &samples {
            let labels = Labels(self.labels, &sample.labels);
            if self.labels.is_empty() {
                sample.value.encode(self.kind, &mut encoder)?;
            } else {
                let mut encoder = encoder.encode_family(&labels)?;
                sample.value.encode(self.kind, &mut encoder)?;
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(self, kind: Kind, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match (kind, self) {
            (Kind::Counter, Self::Count(count)) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(&count, None)
            }
            (_, Self::Count(count)) => {
                encoder.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))
            }
            (_, Self::Time(seconds)) => encoder.encode_gauge(&seconds),
            (_, Self::Millis(millis)) => {
                encoder.encode_gauge(&Duration::from_millis(millis).as_secs_f64())
            }
        }
    }
}

/// Names and values.
#[derive(Debug)]
struct Labels<'a>(&'a [&'static str], &'a [String]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (name, value) in self.0.iter().zip(self.1) {
            (*name, value.as_str()).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Page(Status);

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        FAMILIES
            .iter()
            .try_for_each(|family| family.encode(&self.0, &mut encoder))
    }
}
