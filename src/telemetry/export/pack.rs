//! Batches as the contents of requests: encoded, compressed, framed.
//!
//! The CPU may be the service's and the proxy's only one, and a batch is half a millisecond of it. So the work is done
//! in slices, and whoever waits goes first between two of them.

use std::sync::Arc;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

use super::answer::{FRAME_HEAD, frame_head};
use super::encode::Encoder;
use super::resource;
use crate::config::{OtlpProtocol, Service};
use crate::exchange::Record;

/// Spans that are encoded and compressed in one go: about 50 µs.
const SLICE: usize = 64;

/// What a span comes to, in bytes, compressed and not. Only a guess at what to allocate.
const PACKED: usize = 112;
const PLAIN: usize = 640;

/// Largest buffer that is kept for the next batch. Ordinary slices are at 40 KiB.
const KEPT: usize = 128 << 10;

/// Makes contents of requests. What they need besides memory for themselves is made once.
pub(super) struct Packer {
    encoder: Encoder,
    gzip: Option<Gzip>,
    framed: bool,
    max_request: usize,
}

struct Gzip {
    state: Compress,
    /// A slice, before it is compressed.
    slice: Vec<u8>,
}

impl Packer {
    /// A packer of spans of `service`, into requests of at most `max_request` bytes before compression (OTLP-8).
    pub(super) fn new(service: &Service, protocol: OtlpProtocol, gzip: bool, max_request: usize) -> Self {
        let resource = resource::attributes(service);
        let resource = resource.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Self {
            encoder: Encoder::new(resource),
            gzip: gzip.then(Gzip::new),
            framed: protocol == OtlpProtocol::Grpc,
            max_request,
        }
    }

    /// The content of one request with all `records`, which can be sent any number of times; `None` where it would
    /// be too large.
    pub(super) fn pack(&mut self, records: &[Arc<Record>], hurry: bool) -> Option<Bytes> {
        let each = if self.gzip.is_some() { PACKED } else { PLAIN };
        let mut content = Vec::with_capacity(FRAME_HEAD + records.len() * each);
        if self.framed {
            content.extend_from_slice(&[0; FRAME_HEAD]);
        }
        let begin = content.len();
        match &mut self.gzip {
            Some(gzip) => gzip.pack(&self.encoder, slices(records, hurry), self.max_request, &mut content)?,
            None => {
                for records in slices(records, hurry) {
                    append(&self.encoder, records, &mut content);
                    if content.len() - begin > self.max_request {
                        return None;
                    }
                }
            }
        }
        if self.framed {
            let head = frame_head(content.len() - begin, self.gzip.is_some());
            content[..begin].copy_from_slice(&head);
        }
        Some(content.into())
    }
}

impl Gzip {
    fn new() -> Self {
        Self { state: fresh(), slice: Vec::new() }
    }

    /// `None` where there are more than `max_request` bytes to compress.
    fn pack<'r>(
        &mut self,
        encoder: &Encoder,
        slices: impl Iterator<Item = &'r [Arc<Record>]>,
        max_request: usize,
        content: &mut Vec<u8>,
    ) -> Option<()> {
        self.state.reset();
        let mut total = 0;
        for records in slices {
            self.slice.clear();
            append(encoder, records, &mut self.slice);
            total += self.slice.len();
            if total > max_request {
                break;
            }
            compress(&mut self.state, &self.slice, content, FlushCompress::None);
        }
        self.slice.shrink_to(KEPT);
        if total > max_request {
            // zlib-rs 0.6.8 forgets to close an open block when it is reset: of streams that were not finished, the
            // next would be corrupt.
            self.state = fresh();
            return None;
        }
        compress(&mut self.state, &[], content, FlushCompress::Finish);
        Some(())
    }
}

/// Level 1: a fifth more bytes than level 6, for a quarter of its time.
fn fresh() -> Compress {
    Compress::new_gzip(Compression::fast(), 15)
}

/// The records in slices, with a moment for others between them, unless there is hurry: where workers want all of a CPU,
/// they would get it, and spans be lost.
fn slices(records: &[Arc<Record>], hurry: bool) -> impl Iterator<Item = &[Arc<Record>]> {
    records.chunks(SLICE).enumerate().map(move |(index, slice)| {
        if index > 0 && !hurry {
            // The thread's, not the task's: it is the workers who may want this CPU.
            std::thread::yield_now();
        }
        slice
    })
}

fn append(encoder: &Encoder, records: &[Arc<Record>], out: &mut Vec<u8>) {
    encoder.append(records.iter().map(|record| &**record), out);
}

/// Compresses all of `input`; what comes of it may come later, unless this is the end.
fn compress(state: &mut Compress, mut input: &[u8], content: &mut Vec<u8>, flush: FlushCompress) {
    loop {
        // Amortized, and never nothing: without room there is no progress.
        content.reserve(1024);
        let before = state.total_in();
        let status = state.compress_vec(input, content, flush).expect("memory takes all that is written");
        input = &input[(state.total_in() - before) as usize..];
        match flush {
            FlushCompress::Finish if status != Status::StreamEnd => {}
            _ if !input.is_empty() => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use opentelemetry::trace::SpanId;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message;

    use super::*;
    use crate::exchange::sample;

    fn packer(protocol: OtlpProtocol, gzip: bool, max_request: usize) -> Packer {
        let service = Service { name: "shop".into(), named: true, attributes: Vec::new() };
        Packer::new(&service, protocol, gzip, max_request)
    }

    fn records(count: u64) -> Vec<Arc<Record>> {
        let numbered = |number| {
            let mut record = sample();
            record.identity.span_id = SpanId::from(number);
            Arc::new(record)
        };
        (1..=count).map(numbered).collect()
    }

    /// The ids of the spans in a content without a frame.
    fn ids(content: &[u8], gzip: bool) -> Vec<u64> {
        let mut plain = content.to_vec();
        if gzip {
            plain.clear();
            GzDecoder::new(content).read_to_end(&mut plain).unwrap();
        }
        let request = ExportTraceServiceRequest::decode(plain.as_slice()).unwrap();
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        scopes
            .flat_map(|scope| &scope.spans)
            .map(|span| u64::from_be_bytes(span.span_id.as_slice().try_into().unwrap()))
            .collect()
    }

    #[test]
    fn every_span_of_a_batch_is_in_its_content_once_and_in_order() {
        for gzip in [false, true] {
            let mut packer = packer(OtlpProtocol::HttpProtobuf, gzip, usize::MAX);
            for count in [1, 64, 65, 128, 1000, 3] {
                let content = packer.pack(&records(count), false).expect("there is no limit");
                assert_eq!(ids(&content, gzip), (1..=count).collect::<Vec<_>>(), "gzip {gzip}");
            }
        }
    }

    #[test]
    fn a_content_above_the_limit_is_not_made_and_leaves_nothing_behind() {
        for gzip in [false, true] {
            let mut packer = packer(OtlpProtocol::HttpProtobuf, gzip, 64 * 900);
            assert_eq!(packer.pack(&records(512), false), None, "its second slice is too much");
            let content = packer.pack(&records(8), false).expect("8 spans are below the limit");
            assert_eq!(ids(&content, gzip), [1, 2, 3, 4, 5, 6, 7, 8]);
        }
    }

    #[test]
    fn the_limit_is_that_of_the_bytes_before_compression() {
        let size =
            packer(OtlpProtocol::HttpProtobuf, false, usize::MAX).pack(&records(100), false).unwrap().len();
        for (gzip, protocol) in [
            (false, OtlpProtocol::HttpProtobuf),
            (true, OtlpProtocol::HttpProtobuf),
            (false, OtlpProtocol::Grpc),
            (true, OtlpProtocol::Grpc),
        ] {
            assert!(packer(protocol, gzip, size).pack(&records(100), false).is_some());
            assert!(packer(protocol, gzip, size - 1).pack(&records(100), false).is_none());
        }
    }

    #[test]
    fn a_grpc_content_begins_with_its_frame() {
        for gzip in [false, true] {
            let content = packer(OtlpProtocol::Grpc, gzip, usize::MAX).pack(&records(3), false).unwrap();
            let (head, message) = content.split_at(FRAME_HEAD);
            assert_eq!(head, frame_head(message.len(), gzip));
            assert_eq!(ids(message, gzip), [1, 2, 3]);
        }
    }

    #[test]
    fn content_of_any_kind_is_whole_and_leaves_nothing_behind() {
        // What does not compress is longer than any guess at it.
        let mut noise = sample();
        let text: String = (0..100_000_u64)
            .map(|n| char::from(33 + (n.wrapping_mul(n).wrapping_mul(2_654_435_761) >> 13) as u8 % 90))
            .collect();
        noise.detail = noise.put(&text);
        let noise = Arc::new(noise);
        let mut packer = packer(OtlpProtocol::HttpProtobuf, true, usize::MAX);
        for round in 1..=20 {
            let mut batch = records(round * 7);
            batch.insert(round as usize, noise.clone());
            let content = packer.pack(&batch, false).unwrap();
            assert!(content.len() > 50_000, "it was meant to be noise");
            assert_eq!(ids(&content, true).len(), batch.len());
        }
    }
}
