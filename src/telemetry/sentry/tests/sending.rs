use tokio::net::TcpListener;
use tokio::time::Instant;

use super::server::{Reply, Server, garbage, head_only};
use super::*;
use crate::telemetry::sentry::queue::MAX_ITEMS;
use crate::telemetry::sentry::transport::ATTEMPT;
use crate::telemetry::sentry::worker::{FIRST_PAUSE, LONGEST_PAUSE};

fn http(status: u16) -> Reply {
    Reply::Http(status, Vec::new(), "")
}

fn limits(status: u16, limits: &'static str) -> Reply {
    Reply::Http(status, vec![("x-sentry-rate-limits", limits)], "")
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn an_event_arrives_as_sentry_wants_it() {
    let mut server = Server::start([]).await;
    let sentry = begin(&settings(server.address));
    sentry.event(&failure_of(0));
    let seen = server.next().await;
    assert_eq!(seen.path, "/api/42/envelope/");
    assert_eq!(seen.headers["content-type"], "application/x-sentry-envelope");
    let agent = concat!("tracecar/", env!("CARGO_PKG_VERSION"));
    assert_eq!(seen.headers["user-agent"], agent);
    let auth = format!("Sentry sentry_version=7, sentry_client={agent}, sentry_key=abc");
    assert_eq!(seen.headers["x-sentry-auth"], auth);
    assert_eq!(seen.headers["content-encoding"], "gzip", "it is larger than a packet");
    assert_eq!(seen.item["type"], "event");
    let id = seen.payload["event_id"].as_str().unwrap();
    assert_eq!(seen.head["event_id"].as_str().unwrap().replace('-', ""), id);
    let now = settled(&sentry).await;
    assert_eq!((now.sent(Kind::Event), dropped(&now)), (1, vec![]));
}

#[tokio::test]
async fn one_connection_serves_many_and_another_is_made_when_it_was_closed() {
    let mut server = Server::start([http(200), Reply::TakeAndClose, http(200), Reply::Close]).await;
    let sentry = begin(&settings(server.address));
    let mut connections = Vec::new();
    for group in 0..3 {
        sentry.event(&failure_of(group));
        connections.push(server.next().await.connection);
        settled(&sentry).await;
    }
    assert_eq!(connections, [1, 1, 2]);
    // The kept connection dies under the request; it is tried on a new one, once.
    sentry.event(&failure_of(3));
    assert_eq!([server.next().await.connection, server.next().await.connection], [2, 3]);
    let now = settled(&sentry).await;
    assert_eq!((now.sent(Kind::Event), dropped(&now)), (4, vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_new_connection_that_fails_is_not_tried_again() {
    let mut server = Server::start([Reply::Close, http(200)]).await;
    let sentry = begin(&settings(server.address));
    sentry.event(&failure_of(0));
    assert_eq!(server.next().await.connection, 1);
    assert_eq!(dropped(&settled(&sentry).await), [("failed", 1)]);
    assert!(server.next_now().is_none(), "nothing is sent twice");
}

#[tokio::test(start_paused = true)]
async fn where_nobody_listens_an_event_is_lost_per_pause_and_the_others_wait() {
    let sentry = begin(&settings(nobody().await));
    let started = Instant::now();
    (0..3).for_each(|group| sentry.event(&failure_of(group)));
    let now = loop {
        tokio::task::yield_now().await;
        let now = sentry.account().snapshot();
        if now.dropped(Dropped::Failed) == 1 {
            break now;
        }
    };
    assert_eq!(now.queued, 2, "the others wait");
    assert_eq!(started.elapsed(), Duration::ZERO);
    let now = loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = sentry.account().snapshot();
        if now.queued == 0 {
            break now;
        }
    };
    assert_eq!(dropped(&now), [("failed", 3)]);
    // Half of a second and of two at least, by chance up to all of both.
    let range = FIRST_PAUSE * 3 / 2..=FIRST_PAUSE * 3 + Duration::from_millis(100);
    assert!(range.contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_full_turns_events_away() {
    let sentry = begin(&config::Sentry { max_events: 10_000, ..settings(nobody().await) });
    (0..MAX_ITEMS + 3).for_each(|group| sentry.event(&failure_of(group)));
    let now = sentry.account().snapshot();
    assert_eq!((now.queued, dropped(&now)), (MAX_ITEMS as u64, vec![("queue_full", 3)]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_waited_for_ten_seconds() {
    let mut server = Server::start([Reply::Silence]).await;
    let sentry = begin(&settings(server.address));
    let started = Instant::now();
    sentry.event(&failure_of(0));
    server.next().await;
    while sentry.account().snapshot().queued > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(dropped(&sentry.account().snapshot()), [("failed", 1)]);
    assert!((ATTEMPT..ATTEMPT * 2).contains(&started.elapsed()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_that_is_no_http_costs_the_event_it_was_for() {
    let sentry = begin(&settings(garbage().await));
    sentry.event(&failure_of(0));
    assert_eq!(dropped(&settled(&sentry).await), [("failed", 1)]);
}

#[tokio::test]
async fn what_becomes_of_an_event_is_said_by_the_status() {
    for (status, fate) in [
        (200, None),
        (202, None),
        (302, Some("refused")),
        (400, Some("refused")),
        (401, Some("refused")),
        (404, Some("refused")),
        (413, Some("too_large")),
        (429, Some("rate_limited")),
        (500, Some("failed")),
        (503, Some("failed")),
    ] {
        let server = Server::start([http(status)]).await;
        let sentry = begin(&settings(server.address));
        sentry.event(&failure_of(0));
        let expected: Vec<_> = fate.map(|reason| (reason, 1)).into_iter().collect();
        assert_eq!(dropped(&settled(&sentry).await), expected, "after {status}");
    }
}

#[tokio::test]
async fn a_limit_holds_for_its_category_even_if_it_comes_with_200() {
    let mut server = Server::start([limits(200, "60:error:organization")]).await;
    let sentry = begin(&settings(server.address));
    sentry.event(&failure_of(0));
    server.next().await;
    settled(&sentry).await;
    sentry.event(&failure_of(1));
    sentry.transaction(&Arc::new(sample()), &[]);
    assert_eq!(server.next().await.item["type"], "transaction");
    let now = settled(&sentry).await;
    assert_eq!((now.sent(Kind::Event), now.sent(Kind::Transaction)), (1, 1));
    assert_eq!(dropped(&now), [("rate_limited", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_429_closes_all_for_a_minute_and_discards_what_waited() {
    let mut server = Server::start([http(429)]).await;
    let sentry = begin(&settings(server.address));
    (0..3).for_each(|group| sentry.event(&failure_of(group)));
    assert_eq!(dropped(&settled(&sentry).await), [("rate_limited", 3)]);
    server.next().await;
    sentry.transaction(&Arc::new(sample()), &[]);
    assert_eq!(dropped(&sentry.account().snapshot()), [("rate_limited", 4)], "it is not even queued");
    assert!(server.next_now().is_none(), "nothing was asked of a server that is busy");
    tokio::time::advance(Duration::from_secs(60)).await;
    sentry.event(&failure_of(4));
    server.next().await;
    assert_eq!(settled(&sentry).await.sent(Kind::Event), 1);
}

#[tokio::test]
async fn a_429_with_categories_closes_only_them() {
    let mut server = Server::start([limits(429, "60:transaction:key")]).await;
    let sentry = begin(&settings(server.address));
    sentry.transaction(&Arc::new(sample()), &[]);
    server.next().await;
    settled(&sentry).await;
    sentry.event(&failure_of(0));
    sentry.transaction(&Arc::new(sample()), &[]);
    let now = settled(&sentry).await;
    assert_eq!((now.sent(Kind::Event), dropped(&now)), (1, vec![("rate_limited", 2)]));
}

#[tokio::test]
async fn bursts_of_a_group_and_of_all_are_held_back() {
    let server = Server::start([]).await;
    let sentry = begin(&config::Sentry { max_per_group: 2, max_events: 3, ..settings(server.address) });
    for group in [0, 0, 0, 0, 1, 2] {
        sentry.event(&failure_of(group));
    }
    let now = settled(&sentry).await;
    assert_eq!((now.sent(Kind::Event), dropped(&now)), (3, vec![("burst_group", 2), ("burst", 1)]));
}

#[tokio::test(start_paused = true)]
async fn the_next_event_of_a_group_says_how_many_were_not_sent() {
    let mut server = Server::start([]).await;
    let sentry = begin(&config::Sentry { max_per_group: 1, ..settings(server.address) });
    (0..4).for_each(|_| sentry.event(&failure_of(0)));
    assert_eq!(server.next().await.payload["extra"], serde_json::Value::Null);
    tokio::time::advance(Duration::from_secs(60)).await;
    sentry.event(&failure_of(0));
    assert_eq!(server.next().await.payload["extra"]["tracecar.not_sent_before"], 3);
}

#[tokio::test]
async fn only_the_share_that_is_wanted_is_sent() {
    let server = Server::start([]).await;
    let none = config::Sentry { sample_rate: 0.0, traces_sample_rate: 0.0, ..settings(server.address) };
    let sentry = begin(&none);
    sentry.event(&failure_of(0));
    sentry.transaction(&Arc::new(sample()), &[]);
    let now = settled(&sentry).await;
    assert_eq!((now.accepted, dropped(&now)), (1, vec![("sampled", 1)]), "transactions are not even counted");
}

#[tokio::test]
async fn what_is_larger_than_sentry_takes_is_not_sent() {
    let server = Server::start([]).await;
    let sentry = begin(&settings(server.address));
    let mut call = sample_call();
    let path = call.put(&"/p".repeat(2000));
    call.request.as_mut().unwrap().path = path;
    let calls: Vec<_> = (0..500).map(|_| Arc::new(call.clone())).collect();
    sentry.transaction(&Arc::new(sample()), &calls);
    assert_eq!(dropped(&settled(&sentry).await), [("too_large", 1)]);
}

#[tokio::test]
async fn a_shutdown_sends_what_waits() {
    let server = Server::start([]).await;
    let sentry = begin(&settings(server.address));
    (0..5).for_each(|group| sentry.event(&failure_of(group)));
    sentry.shutdown(Duration::from_secs(5)).await;
    let now = sentry.account().snapshot();
    assert_eq!((now.sent(Kind::Event), now.queued, dropped(&now)), (5, 0, vec![]));
    sentry.event(&failure_of(6));
    assert_eq!(dropped(&sentry.account().snapshot()), [("shutdown", 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_no_longer_than_it_may() {
    let mut server = Server::start([Reply::Silence]).await;
    let sentry = begin(&settings(server.address));
    (0..3).for_each(|group| sentry.event(&failure_of(group)));
    server.next().await;
    let started = Instant::now();
    sentry.shutdown(Duration::from_secs(2)).await;
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    let now = sentry.account().snapshot();
    assert_eq!(dropped(&now), [("shutdown", 3)], "that which was on its way is counted, too");
    assert!(now.adds_up());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_a_pause_that_is_too_long() {
    let sentry = begin(&settings(nobody().await));
    (0..3).for_each(|group| sentry.event(&failure_of(group)));
    while sentry.account().snapshot().dropped(Dropped::Failed) == 0 {
        tokio::task::yield_now().await;
    }
    let started = Instant::now();
    sentry.shutdown(Duration::from_millis(100)).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(dropped(&sentry.account().snapshot()), [("failed", 1), ("shutdown", 2)]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_server_is_asked_less_and_less_but_once_a_minute_at_least() {
    let address = nobody().await;
    let sentry = begin(&settings(address));
    (0..20).for_each(|group| sentry.event(&failure_of(group)));
    let mut failures = Vec::new();
    while sentry.account().snapshot().queued > 1 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if sentry.account().snapshot().dropped(Dropped::Failed) > failures.len() as u64 {
            failures.push(Instant::now());
        }
    }
    let pauses: Vec<_> = failures.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(*pauses.iter().max().unwrap() <= LONGEST_PAUSE + Duration::from_secs(1), "{pauses:?}");
    assert!(*pauses.last().unwrap() >= LONGEST_PAUSE / 2, "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_recovers_is_sent_what_waited_and_spared_until_then() {
    let mut server = Server::start([http(500), http(200)]).await;
    let sentry = begin(&settings(server.address));
    let started = Instant::now();
    (0..3).for_each(|group| sentry.event(&failure_of(group)));
    while sentry.account().snapshot().queued > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let now = sentry.account().snapshot();
    assert_eq!((now.sent(Kind::Event), dropped(&now)), (2, vec![("failed", 1)]), "a 500 is final (SEN-6)");
    assert!(started.elapsed() >= FIRST_PAUSE / 2, "{:?}", started.elapsed());
    for _ in 0..3 {
        server.next().await;
    }
    assert!(server.next_now().is_none(), "nothing is sent twice");
}

#[tokio::test]
async fn what_one_was_asked_not_to_send_holds_for_the_next_of_the_same_project() {
    let server = Server::start([limits(200, "60:error:organization")]).await;
    let before = begin(&settings(server.address));
    before.event(&failure_of(0));
    settled(&before).await;
    let other = config::Sentry { environment: "other".to_owned(), ..settings(server.address) };
    let receiver = Receiver::new(&other, &service()).unwrap();
    let after = start(receiver, &Handle::current(), before.account(), Some(&before));
    before.shutdown(Duration::from_secs(5)).await;
    after.event(&failure_of(1));
    assert_eq!(dropped(&settled(&after).await), [("rate_limited", 1)]);
}

#[tokio::test]
async fn the_head_of_an_answer_is_enough() {
    let sentry = begin(&settings(head_only().await));
    sentry.event(&failure_of(0));
    let now = settled(&sentry).await;
    assert_eq!((now.sent(Kind::Event), dropped(&now)), (1, vec![]));
}

#[tokio::test]
async fn counters_go_on_with_other_settings() {
    let mut first = Server::start([]).await;
    let mut second = Server::start([]).await;
    let before = begin(&settings(first.address));
    before.event(&failure_of(0));
    first.next().await;
    settled(&before).await;
    let receiver = Receiver::new(&settings(second.address), &service()).unwrap();
    let after = start(receiver, &Handle::current(), before.account(), Some(&before));
    before.shutdown(Duration::from_secs(5)).await;
    after.event(&failure_of(0));
    second.next().await;
    let now = settled(&after).await;
    assert_eq!((now.accepted, now.sent(Kind::Event)), (2, 2));
}

#[tokio::test]
async fn a_handle_that_is_dropped_sends_what_waits_and_leaves_no_task() {
    let server = Server::start([]).await;
    let sentry = begin(&settings(server.address));
    let account = sentry.account();
    sentry.event(&failure_of(0));
    let task = lock(&sentry.inner.task).take().unwrap();
    drop(sentry);
    task.await.unwrap();
    assert_eq!(account.snapshot().sent(Kind::Event), 1);
    server.stop().await;
}

#[tokio::test]
async fn every_event_handed_in_is_accounted_for() {
    let script = [http(200), http(400), http(413), Reply::Close, http(200)];
    let server = Server::start(script).await;
    let sentry = begin(&config::Sentry { max_per_group: 3, max_events: 40, ..settings(server.address) });
    server.script([limits(200, "60:error:key")]);
    for round in 0..50 {
        sentry.event(&failure_of(round % 20));
        sentry.transaction(&Arc::new(sample()), &[]);
        let now = sentry.account().snapshot();
        assert!(now.adds_up(), "{now:?}");
        tokio::task::yield_now().await;
    }
    sentry.shutdown(Duration::from_secs(5)).await;
    let now = sentry.account().snapshot();
    assert_eq!((now.accepted, now.queued), (100, 0));
    assert!(now.adds_up(), "{now:?}");
    let rows: u64 = sentry.account().rows().iter().map(|row| row.value).sum();
    assert_eq!(rows, 100, "the metrics say the same");
}

#[test]
fn what_is_no_dsn_is_said_without_its_keys() {
    for dsn in
        ["https://sentry.example/1", "https://abc:hush@sentry.example/", "ftp://abc:hush@sentry.example/1"]
    {
        let given = config::Sentry { dsn: dsn.parse().unwrap(), ..settings(([127, 0, 0, 1], 1).into()) };
        let error = Receiver::new(&given, &service()).unwrap_err().to_string();
        assert!(
            error.contains("sentry.example") && !error.contains("hush") && !error.contains("abc"),
            "{error}"
        );
    }
    let given = config::Sentry {
        dsn: "https://abc:hush@sentry.example/1".parse().unwrap(),
        certificate: Some("/nowhere.pem".into()),
        ..settings(([127, 0, 0, 1], 1).into())
    };
    let error = Receiver::new(&given, &service()).unwrap_err().to_string();
    assert!(error.contains("/nowhere.pem"), "{error}");
}
