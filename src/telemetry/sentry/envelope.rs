//! Events and transactions as the contents of requests: envelopes of one item (SEN-3).
//!
//! The item is made when it enters the queue, where its size counts; the head when it is sent, since it says when that is.

use std::io::Write;
use std::time::SystemTime;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sentry::protocol::{ClientSdkInfo, DynamicSamplingContext, EnvelopeHeaders};
use uuid::Uuid;

use super::account::Kind;

/// Largest item in bytes, before compression (SEN-4).
pub(super) const MAX_ITEM: usize = 1 << 20;

/// Contents below this many bytes are sent as they are: they fit a packet or two either way.
const MIN_COMPRESSED: usize = 1024;

/// An event or a transaction, ready to be sent.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) kind: Kind,
    id: Uuid,
    payload: Vec<u8>,
    trace: Option<Box<DynamicSamplingContext>>,
}

impl Item {
    /// An item of JSON. `trace` is what began its trace (SEN-41).
    pub(super) fn new(
        kind: Kind,
        id: Uuid,
        payload: Vec<u8>,
        trace: Option<Box<DynamicSamplingContext>>,
    ) -> Self {
        Self { kind, id, payload, trace }
    }

    /// Memory that it holds, about.
    pub(super) fn size_bytes(&self) -> usize {
        let trace = self.trace.as_deref().map_or(0, size_of_val);
        size_of::<Self>() + self.payload.capacity() + trace
    }

    /// The envelope, and whether it is compressed. `None` if it cannot be written, for which there is no known reason.
    pub(super) fn pack(&self, sent_at: SystemTime) -> Option<(Bytes, bool)> {
        let mut headers = EnvelopeHeaders::new().with_event_id(self.id).with_sent_at(sent_at).with_sdk(sdk());
        if let Some(trace) = &self.trace {
            headers = headers.with_trace((**trace).clone());
        }
        let mut head = serde_json::to_vec(&headers).ok()?;
        let (kind, length) = (self.kind.as_str(), self.payload.len());
        head.extend_from_slice(format!("\n{{\"type\":\"{kind}\",\"length\":{length}}}\n").as_bytes());
        let size = head.len() + length + 1;
        if size < MIN_COMPRESSED {
            head.extend_from_slice(&self.payload);
            head.push(b'\n');
            return Some((head.into(), false));
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(size / 3), Compression::fast());
        for part in [&head, &self.payload, &b"\n"[..]] {
            encoder.write_all(part).ok()?;
        }
        Some((encoder.finish().ok()?.into(), true))
    }
}

/// Who made the event.
pub(super) fn sdk() -> ClientSdkInfo {
    ClientSdkInfo {
        name: "tracecar".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        integrations: Vec::new(),
        packages: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, UNIX_EPOCH};

    use flate2::read::GzDecoder;
    use serde_json::{Value, json};

    use super::*;

    fn packed(payload: &str) -> (Vec<u8>, bool) {
        let item = Item::new(Kind::Event, Uuid::from_u128(7), payload.into(), None);
        let (content, compressed) = item.pack(UNIX_EPOCH + Duration::from_secs(86_400)).unwrap();
        (content.into(), compressed)
    }

    #[test]
    fn an_envelope_is_a_head_an_item_head_with_its_length_and_the_item() {
        let (content, compressed) = packed("{\"message\":\"ü\"}");
        assert!(!compressed, "small contents are sent as they are");
        let text = String::from_utf8(content).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let head: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(head["event_id"].as_str().unwrap().replace('-', ""), format!("{:032x}", 7));
        assert_eq!(head["sent_at"], "1970-01-02T00:00:00Z");
        assert_eq!(head["sdk"], json!({"name": "tracecar", "version": env!("CARGO_PKG_VERSION")}));
        assert_eq!(lines[1], "{\"type\":\"event\",\"length\":16}");
        assert_eq!(lines[2..], ["{\"message\":\"ü\"}"]);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn large_contents_are_compressed() {
        let payload = format!("\"{}\"", "x".repeat(5000));
        let (content, compressed) = packed(&payload);
        assert!(compressed && content.len() < 500);
        let mut text = String::new();
        GzDecoder::new(&content[..]).read_to_string(&mut text).unwrap();
        assert!(text.ends_with(&format!("{{\"type\":\"event\",\"length\":5002}}\n{payload}\n")));
    }
}
