//! `/errors` and `/slow`: what belongs together, and who may read it.

use serde_json::Value;

use super::{answer, ask, car};
use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};
use crate::support::page;
use crate::support::program::{File, Program, Start};
use crate::support::sentry::Sentry;

fn page(car: &TestCar, path: &str) -> Value {
    let page = page::read(car.bound.admin.unwrap(), path);
    assert_eq!((page.status(), page.header("content-type")), (200, Some("application/json")));
    serde_json::from_str(&page.text()).expect("JSON")
}

/// A service that fails with the message in a header.
fn failing() -> Origin {
    Origin::new(|peer| {
        while let Some(request) = peer.request() {
            peer.send(answer("500 No", "", request.header("x-message").unwrap_or_default()));
        }
    })
}

#[test]
fn numbers_and_ids_make_no_groups_and_another_cause_does() {
    let car = TestCar::before(&failing().url());
    for (path, message) in [
        ("/orders/17", "no stock for order 17 of 6b3f0f5e-8c57-4d0e-9d6c-0b6f6f3a2b11"),
        ("/orders/4711", "no stock for order 4711 of 0d9c1f7a-2a3b-4c5d-8e6f-7a8b9c0d1e2f"),
        ("/orders/4711", "payment refused for order 4711"),
    ] {
        ask(&car, path, &format!("X-Message: {message}\r\n"));
        car.record();
    }
    let page = page(&car, "/errors");
    let mut groups: Vec<_> = page["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            (group["place"].as_str().unwrap(), group["title"].as_str().unwrap(), group["count"].as_u64())
        })
        .collect();
    groups.sort_unstable();
    assert_eq!(
        groups,
        [
            (
                "GET /orders/{id}",
                "GET /orders/{id}: no stock for order 4711 of 0d9c1f7a-2a3b-4c5d-8e6f-7a8b9c0d1e2f",
                Some(2)
            ),
            ("GET /orders/{id}", "GET /orders/{id}: payment refused for order 4711", Some(1)),
        ]
    );
    assert_eq!(page["failures"], 3);
}

#[test]
fn sentry_groups_by_what_the_page_groups_by() {
    let (origin, sentry) = (failing(), Sentry::new());
    let car = car(&origin, &sentry, "");
    let fingerprint = |message: &str| {
        ask(&car, "/orders/17", &format!("X-Message: {message}\r\n"));
        sentry.event().json["fingerprint"].clone()
    };
    let first = fingerprint("no stock for order 17");
    assert_eq!(first[0], "under-test", "services that share a project stay apart");
    assert_eq!(first, fingerprint("no stock for order 18"));
    assert_ne!(first, fingerprint("payment refused for order 17"));
}

#[test]
fn the_page_shows_an_example_that_can_be_looked_up() {
    let car = TestCar::before(&failing().url());
    ask(&car, "/", "X-Message: no stock\r\n");
    let identity = car.record().identity;
    let page = page(&car, "/errors");
    let example = &page["groups"][0]["examples"][0];
    assert_eq!(example["trace_id"], identity.trace_id.to_string());
    assert_eq!(
        (&example["span_id"], &example["sampled"]),
        (&identity.span_id.to_string().into(), &true.into())
    );
}

#[test]
fn where_nothing_is_wrong_the_pages_say_so_in_the_same_form() {
    let car = TestCar::before("http://127.0.0.1:1");
    let errors = page(&car, "/errors");
    for list in ["groups", "jumps", "routes", "outages"] {
        assert_eq!(errors[list].as_array().map(Vec::len), Some(0), "{list}");
    }
    assert_eq!(errors["failures"], 0);
    let slow = page(&car, "/slow");
    assert_eq!(slow["now"].as_array().map(Vec::len), Some(0), "{slow:#}");
}

fn asked(program: &Program, method: &str, path: &str, token: &str) -> Message {
    let mut peer = Peer::connect(program.admin);
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    peer.send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{token}\r\n"));
    peer.response()
}

#[test]
fn what_went_wrong_is_not_for_everybody_on_the_network() {
    let token = File::new("s3cret\n");
    let open = |more: &str| {
        let file = File::new(&format!(
            "service: {{ name: shop }}\ninbound: [{{ listen: '127.0.0.1:0', to: 'http://127.0.0.1:1' }}]\n\
             admin: {{ listen: '0.0.0.0:0'{more} }}\n"
        ));
        let mut program = Start::new(["run", "--config", file.name()]).run();
        program.admin.set_ip([127, 0, 0, 1].into());
        (program, file)
    };
    let (without, _file) = open("");
    let (with, _file) = open(&format!(", token_file: '{}'", token.name()));
    for path in ["/errors", "/slow"] {
        assert_eq!(asked(&without, "GET", path, "s3cret").status(), 403, "{path}: there is no token to give");
        assert_eq!(asked(&with, "GET", path, "").status(), 401, "{path}");
        assert_eq!(asked(&with, "GET", path, "s3cre").status(), 401, "{path}");
        assert_eq!(asked(&with, "GET", path, "s3cret").status(), 200, "{path}");
        let posted = asked(&with, "POST", path, "s3cret");
        assert_eq!((posted.status(), posted.header("allow")), (405, Some("GET, HEAD")), "{path}");
    }
}
