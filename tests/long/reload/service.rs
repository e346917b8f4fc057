//! The services: each says who it is, and what it was asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::http::{Connection, Failure, frame};
use crate::support::origin::{Origin, Peer};

/// Time between two events of a stream.
pub const EVENT: Duration = Duration::from_millis(100);

/// A service of this name. Streams end when `over`.
pub fn start(name: &'static str, over: &Arc<AtomicBool>) -> Origin {
    let over = over.clone();
    Origin::new(move |peer| {
        // How a connection ends is what the callers look at.
        let _ = serve(peer, name, &over);
    })
}

fn serve(peer: &Peer, name: &str, over: &AtomicBool) -> Result<(), Failure> {
    let stream = peer.stream.try_clone().map_err(|error| error.to_string())?;
    let mut connection = Connection::of(stream)?.patient();
    while let Some(head) = connection.head()? {
        let path = head.split(' ').nth(1).unwrap_or_default();
        let mut words = path.split('/').skip(1);
        match words.next().unwrap_or_default() {
            "events" => events(&mut connection, over)?,
            "websocket" => return echo(&mut connection),
            "probe" => answer(&mut connection, if path.contains("fail") { 500 } else { 200 }, name, &head)?,
            "slow" => {
                let time = words.next().and_then(|time| time.parse().ok()).unwrap_or_default();
                // Slow is what this path is.
                std::thread::sleep(Duration::from_millis(time));
                answer(&mut connection, 200, name, "slow")?;
            }
            _ => answer(&mut connection, 200, name, name)?,
        }
    }
    Ok(())
}

fn answer(connection: &mut Connection, status: u16, name: &str, body: &str) -> Result<(), Failure> {
    let length = body.len();
    connection
        .send(format!("HTTP/1.1 {status} Said\r\nX-Origin: {name}\r\nContent-Length: {length}\r\n\r\n{body}"))
}

fn events(connection: &mut Connection, over: &AtomicBool) -> Result<(), Failure> {
    connection
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for number in 0_u64.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let event = format!("data: {number}\n\n");
        connection.send(format!("{:x}\r\n{event}\r\n", event.len()))?;
        // This is the pace of the events.
        std::thread::sleep(EVENT);
    }
    connection.send("0\r\n\r\n")
}

/// A WebSocket that says what it is told. The key is always that of RFC 6455 section 1.3, and so is the answer.
fn echo(connection: &mut Connection) -> Result<(), Failure> {
    connection.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )?;
    loop {
        let (opcode, content) = connection.frame()?;
        connection.send(frame(opcode, &content, None))?;
        if opcode == 8 {
            return Ok(());
        }
    }
}
