//! Secrets in every place that events and pages are made of.

use super::{answer, car};
use crate::support::origin::{Origin, Peer};
use crate::support::page::read;
use crate::support::sentry::Sentry;

/// Planted in all places that an event or a page is made of. What is a secret is the subject of the unit tests; that nothing goes
/// around them is that of this one.
#[test]
fn what_is_secret_stays_with_us() {
    let content = r#"{"message":"cannot log in with password=hunter2 and Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl",
        "exception":"LoginError","trace":"Traceback (most recent call last):\n  File \"/srv/a.py\", line 1, in login\n    connect(\"postgres://shop:Tr0ub4dor@db/shop\")\nLoginError: no\n"}"#;
    let headers = "Content-Type: application/json\r\nSet-Cookie: session=cookie-planted-1\r\nX-Auth-Token: header-planted-2\r\n";
    let origin = Origin::answering(answer("500 No", headers, content));
    let sentry = Sentry::new();
    let car = car(&origin, &sentry, "");
    let mut peer = Peer::connect(car.address());
    let body = r#"{"card":"4111111111111111","password":"body-planted-3"}"#;
    peer.send(format!(
        "POST /reset/eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9.c2lnbmF0dXJl?token=query-planted-4&page=2 HTTP/1.1\r\nHost: shop\r\n\
         Authorization: Bearer header-planted-5\r\nCookie: session=cookie-planted-6; theme=dark\r\n\
         X-Api-Key: header-planted-7\r\nReferer: http://shop/?password=referer-planted-8\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(peer.response().text(), content, "it passes as it is");
    let event = sentry.event();
    assert_eq!(event.title().0, "LoginError");
    let page = read(car.bound.admin.unwrap(), "/errors").text();
    assert!(page.contains("LoginError"));
    for (name, text) in [("the event", event.json.to_string()), ("the page", page)] {
        for secret in [
            "hunter2",
            "c2lnbmF0dXJl",
            "Tr0ub4dor",
            "4111111111111111",
            "cookie-planted",
            "header-planted",
            "body-planted",
            "query-planted",
            "referer-planted",
        ] {
            assert!(!text.contains(secret), "{secret} is in {name}: {text}");
        }
    }
    assert!(event.json["request"]["headers"].get("host").is_some(), "headers are there: {:#}", event.json);
}
