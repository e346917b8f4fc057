//! Listeners that come, go, and lead elsewhere.

use super::{ASK, HELLO, change, start, text};
use crate::support::eventually;
use crate::support::origin::{Origin, Peer};
use crate::support::page;
use crate::support::program::File;

#[test]
fn a_listener_that_goes_away_drains_and_no_other_notices() {
    let origin = Origin::answering(HELLO);
    let two = |second: &str| {
        let second = match second {
            "" => String::new(),
            address => format!(", {{ listen: '{address}', to: '{}' }}", origin.url()),
        };
        text(&origin.url(), "").replacen("' }]", &format!("' }}{second}]"), 1)
    };
    let file = File::new(&two(""));
    let program = start(&file);
    let mut stays = Peer::connect(program.address);
    stays.send(ASK);
    stays.response();
    change(&program, &file, &two("127.0.0.2:0"));
    let second = program.announced("passing requests on", "listen=");
    let mut goes = Peer::connect(second);
    goes.send(ASK);
    assert_eq!(goes.response().text(), "hello");
    change(&program, &file, &two(""));
    assert_eq!(goes.rest().unwrap(), b"", "an idle connection is closed");
    let refused = || std::net::TcpStream::connect(second).is_err();
    tokio::runtime::Runtime::new().unwrap().block_on(eventually("nobody listens", refused));
    stays.send(ASK);
    assert_eq!(stays.response().text(), "hello");
    // And again on the same address.
    change(&program, &file, &two(&second.to_string()));
    let mut back = Peer::connect(second);
    back.send(ASK);
    assert_eq!(back.response().text(), "hello");
}

#[test]
fn with_several_workers_each_serves_what_the_others_hand_over_of_a_new_listener() {
    let origin = Origin::answering(HELLO);
    let (workers, listener) = ("runtime: { workers: 4 }", "' }, { listen: '127.0.0.2:0', to: '");
    let file = File::new(&text(&origin.url(), workers));
    let program = start(&file);
    for round in 0..3 {
        let two = text(&format!("{}{listener}{}", origin.url(), origin.url()), workers);
        change(&program, &file, &two);
        let second = program.announced("passing requests on", "listen=");
        // So many at once that no worker keeps all that it accepts.
        let mut callers: Vec<_> = (0..32).map(|_| Peer::connect(second)).collect();
        for caller in &mut callers {
            caller.send(ASK);
        }
        for caller in &mut callers {
            assert_eq!(caller.response().text(), "hello", "round {round}");
        }
        change(&program, &file, &text(&origin.url(), workers));
        for mut caller in callers {
            assert_eq!(caller.rest().unwrap(), b"");
        }
    }
    let open = || program.metrics().sum("tracecar_connections_open", &[]);
    let waits = tokio::runtime::Runtime::new().unwrap();
    waits.block_on(eventually("all are gone", || open() == 0.0));
    let versions = || program.metrics().sum("tracecar_config_versions", &[]);
    waits.block_on(eventually("and what their listeners went by", || versions() == 1.0));
}

#[test]
fn a_port_can_lead_the_other_way() {
    let service = Origin::answering(HELLO);
    let other = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let inwards = text(&format!("{}' }}, {{ listen: '{port}', to: '{}", service.url(), service.url()), "");
    let outwards = text(
        &service.url(),
        &format!("outbound: {{ mapped: [{{ listen: '{port}', to: '{}' }}] }}", other.url()),
    );
    let file = File::new(&inwards);
    let program = start(&file);
    for (text, answer) in [(&inwards, "hello"), (&outwards, "other"), (&inwards, "hello")] {
        change(&program, &file, text);
        let mut peer = Peer::connect(port);
        peer.send(ASK);
        assert_eq!(peer.response().text(), answer);
        change(&program, &file, if answer == "hello" { &outwards } else { &inwards });
        assert_eq!(peer.rest().unwrap(), b"", "who came in before is not led the other way");
    }
}

#[test]
fn the_pages_move_and_go_on_answering() {
    let origin = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), ""));
    let mut program = start(&file);
    let moved = text(&origin.url(), "")
        .replace("admin: { listen: '127.0.0.1:0' }", "admin: { listen: '127.0.0.2:0' }");
    let said = change(&program, &file, &moved);
    assert!(said.contains("admin.listen: 127.0.0.1:0 -> 127.0.0.2:0"), "{said}");
    let before = program.admin;
    program.admin = program.announced("metrics and health", "admin=");
    assert_eq!(page::read(program.admin, "/healthz").status(), 200);
    let refused = || std::net::TcpStream::connect(before).is_err();
    tokio::runtime::Runtime::new().unwrap().block_on(eventually("nobody listens", refused));
}
