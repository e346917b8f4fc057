//! Counters about tracecar itself, as the page shows them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::stats::{Kind, Row};

/// Counters about tracecar itself, grouped by name as the formats demand.
#[derive(Debug)]
pub(super) struct Rows(Vec<Vec<Row>>);

impl Rows {
    pub(super) fn new(rows: &[Row]) -> Self {
        let mut groups: Vec<Vec<Row>> = Vec::new();
        for row in rows {
            let Some(group) = groups.iter_mut().find(|group| group[0].name == row.name) else {
                groups.push(vec![row.clone()]);
                continue;
            };
            if group[0].kind != row.kind {
                continue;
            }
            match group.iter_mut().find(|known| known.label == row.label) {
                Some(known) => known.value += row.value,
                None => group.push(row.clone()),
            }
        }
        Self(groups)
    }
}

impl Collector for Rows {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for group in &self.0 {
            let kind = match group[0].kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(group[0].name, group[0].help, None, kind)?;
            if let ([row], None) = (&group[..], &group[0].label) {
                encode_value(row, metric)?;
                continue;
            }
            for row in group {
                // One without a label among labelled ones is legal, if odd: its braces are empty.
                let labels = row.label.as_slice();
                encode_value(row, metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn encode_value(row: &Row, sample: MetricEncoder) -> fmt::Result {
    match row.kind {
        Kind::Counter => ConstCounter::new(row.value).encode(sample),
        Kind::Gauge => ConstGauge::new(row.value).encode(sample),
    }
}
