//! Another collector, while spans wait.

use super::{ASK, HELLO, change, start, text};
use crate::support::collector::{Collector, Protocol, Reply};
use crate::support::eventually;
use crate::support::origin::{Origin, Peer};
use crate::support::program::File;

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_wait_move_to_the_new_collector() {
    let origin = Origin::answering(HELLO);
    let mut silent = Collector::start(Protocol::Http).await;
    silent.always(|| Reply::Silence);
    let mut other = Collector::start(Protocol::Grpc).await;
    let export = |endpoint: String, protocol: &str| {
        let queue = "queue: { schedule_delay: 50ms }";
        format!("export: {{ otlp: {{ endpoint: 'http://{endpoint}', protocol: {protocol}, {queue} }} }}")
    };
    let before = text(&origin.url(), &export(silent.address.to_string(), "http/protobuf"));
    let after = text(&origin.url(), &export(other.address.to_string(), "grpc"));
    let file = File::new(&before);
    let program = start(&file);
    let ask = |count: usize| {
        tokio::task::block_in_place(|| {
            let mut peer = Peer::connect(program.address);
            for _ in 0..count {
                peer.send(ASK);
                peer.response();
            }
        });
    };
    ask(3);
    // It has them, and says nothing.
    silent.next().await;
    ask(2);
    let said = tokio::task::block_in_place(|| change(&program, &file, &after));
    assert!(said.contains("export.otlp.endpoint: "), "{said}");
    let mut spans = 0;
    while spans < 5 {
        spans += other.next().await.spans().len();
    }
    ask(1);
    assert_eq!(other.next().await.spans().len(), 1);
    assert_eq!(spans, 5);
    let exported = || {
        tokio::task::block_in_place(|| program.metrics().sum("tracecar_export_spans_exported_total", &[]))
            == 6.0
    };
    eventually("all are", exported).await;
    let metrics = tokio::task::block_in_place(|| program.metrics());
    assert_eq!(metrics.sum("tracecar_export_spans_dropped_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn exporting_can_be_switched_off_and_on_and_the_account_goes_on() {
    let origin = Origin::answering(HELLO);
    let mut collector = Collector::start(Protocol::Http).await;
    let on = text(
        &origin.url(),
        &format!(
            "export: {{ otlp: {{ endpoint: 'http://{}', queue: {{ schedule_delay: 10ms }} }} }}",
            collector.address
        ),
    );
    let off = text(&origin.url(), "");
    let file = File::new(&off);
    let program = start(&file);
    let ask = || {
        let mut peer = Peer::connect(program.address);
        peer.send(ASK);
        peer.response();
    };
    for _ in 0..2 {
        tokio::task::block_in_place(|| {
            ask();
            change(&program, &file, &on);
            ask();
        });
        assert_eq!(collector.next().await.spans().len(), 1, "those before are nobody's");
        tokio::task::block_in_place(|| change(&program, &file, &off));
    }
    let exported =
        || tokio::task::block_in_place(|| program.metrics().sum("tracecar_export_spans_exported_total", &[]));
    eventually("both are", || exported() == 2.0).await;
}
