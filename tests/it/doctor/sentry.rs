//! What it says of a Sentry.

use std::net::TcpListener;

use tokio::runtime::Runtime;

use super::{OK, about, ask, assert_says, checks, config};
use crate::support::origin::{Nowhere, Origin};
use crate::support::program::Start;
use crate::support::secure::{Trust, service};
use crate::support::sentry::Sentry;

/// What it says of the Sentry with that DSN.
fn sentry(dsn: &str, more: &str) -> (String, String, String) {
    about("sentry", &format!("sentry: {{ dsn: '{dsn}', traces: off {more} }}"))
}

/// What it says of a Sentry that answers with that.
fn answers(answer: &str) -> (String, String, String) {
    let origin = Origin::answering(answer);
    sentry(&format!("http://public-key@{}/7", origin.address), "")
}

#[test]
fn one_that_takes_events_is_asked_and_gets_none() {
    let taker = Sentry::new();
    assert_says(&sentry(&taker.dsn(), ""), "ok", &["/7 takes events ("]);
    let asked = taker.next();
    assert_eq!(
        (asked.kind.as_str(), &asked.json),
        ("client_report", &serde_json::json!({"discarded_events": []}))
    );
    assert_eq!(asked.path, "/api/7/envelope/");
    assert!(asked.auth.contains("sentry_key=public"), "{}", asked.auth);
    assert!(taker.come().is_none(), "it is asked once");
}

#[test]
fn it_is_asked_where_the_environment_names_it_and_not_where_nobody_does() {
    let (origin, taker) = (Origin::answering(OK), Sentry::new());
    let file = config(&origin, "");
    let ended =
        Start::new(["doctor", "--json", "--config", file.name()]).env("SENTRY_DSN", taker.dsn()).end();
    assert_says(&checks(&ended, "sentry")[0], "ok", &["takes events"]);
    assert_eq!(checks(&ended, "config").len(), 1, "nothing is wrong with that");
    assert!(checks(&ask(&file, &["--json"]), "sentry").is_empty());
}

#[test]
fn what_it_answers_is_said_in_words() {
    let empty = |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    let limited =
        "HTTP/1.1 200 OK\r\nX-Sentry-Rate-Limits: 60:error:key\r\nContent-Length: 2\r\n\r\n{}".to_owned();
    let unknown = "HTTP/1.1 403 Forbidden\r\nContent-Length: 12\r\n\r\nno such keys".to_owned();
    let cases: [(String, &str, &[&str]); 12] = [
        (unknown, "problem", &["403", "no such keys", "does not know the key", "Client Keys"]),
        (empty("400 Bad Request"), "problem", &["400", "does not know the key"]),
        (empty("401 Unauthorized"), "problem", &["401", "does not know the key"]),
        (empty("404 Not Found"), "problem", &["404", "no such project"]),
        (empty("405 Method Not Allowed"), "problem", &["405", "no such project"]),
        (empty("301 Moved"), "problem", &["301", "redirects are not followed"]),
        (empty("407 Proxy"), "problem", &["407", "a proxy stands before it"]),
        (empty("413 Large"), "problem", &["413", "limits"]),
        (empty("418 Teapot"), "problem", &["418", "is this the address of a Sentry"]),
        (empty("429 Many"), "warning", &["429", "at the moment", "quota"]),
        (limited, "warning", &["200", "at the moment"]),
        (empty("503 Gone"), "warning", &["503", "at the moment", "tracecar_sentry_dropped_total"]),
    ];
    for (answer, state, words) in cases {
        assert_says(&answers(&answer), state, words);
    }
}

#[test]
fn one_that_wants_no_transactions_is_a_warning_where_there_would_be_some() {
    let limits = "HTTP/1.1 200 OK\r\nX-Sentry-Rate-Limits: 86400:transaction;span:organization\r\nContent-Length: 2\r\n\r\n{}";
    let taker = Sentry::answering(limits);
    assert_says(&sentry(&taker.dsn(), ""), "ok", &["takes events"]);
    let with = about("sentry", &format!("sentry: {{ dsn: '{}', traces: transactions }}", taker.dsn()));
    assert_says(&with, "warning", &["takes events; it wants no transactions", "sentry.traces: off"]);
}

#[test]
fn no_key_is_shown_though_it_is_repeated_to_us() {
    let said =
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 42\r\n\r\nkey incorrect: https://public-key@sentry/77";
    let found = answers(said);
    assert_says(&found, "problem", &["key incorrect: https://***@sentry/7"]);
    assert!(!format!("{found:?}").contains("public-key"), "{found:?}");
}

#[test]
fn one_that_cannot_be_reached_is_told_from_one_that_does_not_answer() {
    let nowhere = Nowhere::new();
    let closed = sentry(&format!("http://public@{}/7", nowhere.address), "");
    assert_says(&closed, "problem", &["cannot connect to", "connection refused", "by no proxy"]);
    let unknown = sentry("https://public@o1.sentry.invalid/7", "");
    assert_says(&unknown, "problem", &["cannot resolve o1.sentry.invalid", "DNS"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = sentry(&format!("http://public@{}/7", silent.local_addr().unwrap()), "");
    assert_says(&silent, "problem", &["no answer within", "is this the address of a Sentry"]);
}

#[test]
fn tls_where_there_is_none_and_the_other_way_round_is_found_out() {
    let plain = Sentry::new();
    let found = sentry(&plain.dsn().replace("http:", "https:"), "");
    assert_says(&found, "problem", &["speaks no TLS, and we speak TLS", "http://"]);

    let runtime = Runtime::new().unwrap();
    let trust = Trust::new();
    let (port, _asked) = runtime.block_on(service(trust.server("localhost", &["http/1.1"])));
    let found = sentry(&format!("http://public@localhost:{port}/7"), "");
    assert_says(&found, "problem", &["speaks TLS, and we speak none", "https://"]);
    let dsn = format!("https://public@localhost:{port}/7");
    assert_says(&sentry(&dsn, ""), "problem", &["the TLS handshake failed", "sentry.certificate"]);
    let ca = trust.folder.path().join("ca.pem");
    let found = sentry(&dsn, &format!(", certificate: '{}'", ca.display()));
    assert_says(&found, "ok", &["takes events"]);
    let found = sentry(&dsn, ", certificate: /nowhere/ca.pem");
    assert_says(&found, "problem", &["/nowhere/ca.pem", "would not start"]);
}
