//! Lets a service answer with a case, and says what is wrong with what the caller gets.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::case::{Case, Verdict};
use crate::support::car::TestCar;
use crate::support::origin::Origin;
use crate::support::strict::{Strict, brief, holds};

/// How long an answer may take that should come at once.
const WAIT: Duration = Duration::from_secs(5);

/// Longest case that is also sent byte for byte.
const SHORT: usize = 2000;

/// What the service answers to everything but the case.
const NEXT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext";

/// How a final answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// As its framing says.
    Framed,
    /// With the connection, which is the only end that it has.
    Closed,
    /// With the connection, before its framing says so.
    Cut,
}

/// What the caller got.
#[derive(Debug, Default)]
struct Got {
    interim: Vec<u16>,
    status: Option<u16>,
    message: Strict,
    end: Option<End>,
    fault: Option<String>,
    /// The answer to another request on the same connection, where that was still open.
    next: Option<Vec<u8>>,
}

/// What is wrong with a case, with the bytes sent in one piece and one by one.
pub fn problems(case: &Case) -> Vec<String> {
    let mut problems = Vec::new();
    for bytewise in [false, true] {
        if bytewise && (case.at_once || case.bytes.len() > SHORT) {
            continue;
        }
        let got = ask(case, bytewise);
        let told = judge(case, &got);
        if !told.is_empty() {
            let way = if bytewise { "bytewise" } else { "whole" };
            let head = brief(&got.message.head);
            problems.push(format!("{} ({way}): {}\n    the caller got {head}", case.name, told.join("; ")));
        }
    }
    problems
}

fn ask(case: &Case, bytewise: bool) -> Got {
    let (bytes, closes) = (case.bytes.clone(), case.closes);
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            if !request.head.contains(" /case ") {
                peer.send(NEXT);
                continue;
            }
            let piece = if bytewise { 1 } else { bytes.len().max(1) };
            bytes.chunks(piece).for_each(|piece| peer.send(piece));
            if closes {
                return;
            }
        }
    });
    let car = TestCar::before(&origin.url());
    let stream = TcpStream::connect(car.address()).expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    stream.set_read_timeout(Some(WAIT)).expect("a TCP socket");
    let mut writer = stream.try_clone().expect("a descriptor is free");
    let mut reader = BufReader::new(stream);
    let version = if case.http_1_0 { "1.0" } else { "1.1" };
    let lines: Vec<u8> = case.asks.iter().flat_map(|line| [line, &b"\r\n"[..]].concat()).collect();
    let start = format!("{} /case HTTP/{version}\r\nHost: shop\r\n", case.method);
    let _ = writer.write_all(&[start.as_bytes(), &lines, b"\r\n"].concat());
    let mut got = Got::default();
    if let Err(fault) = read(case, &mut reader, &mut got) {
        got.fault = Some(fault);
    }
    if got.end == Some(End::Framed) {
        let _ = writer.write_all(b"GET /next HTTP/1.1\r\nHost: shop\r\n\r\n");
        let mut next = Strict::default();
        if next.read_head(&mut reader) == Ok(true) && next.read_content(&mut reader) == Some(Ok(true)) {
            got.next = Some(next.content);
        }
    }
    got
}

/// Reads the final answer and those before it.
fn read(case: &Case, reader: &mut BufReader<TcpStream>, got: &mut Got) -> Result<(), String> {
    loop {
        got.message = Strict::default();
        if !got.message.read_head(reader)? {
            return Ok(());
        }
        let status = status(&got.message)?;
        if (100..200).contains(&status) && status != 101 {
            got.interim.push(status);
            continue;
        }
        got.status = Some(status);
        let none = case.method == "HEAD" || [204, 304].contains(&status);
        let content = if none { Some(Ok(true)) } else { got.message.read_content(reader) };
        got.end = Some(match content {
            None => {
                let end = reader.read_to_end(&mut got.message.content);
                if end.is_ok() { End::Closed } else { End::Cut }
            }
            Some(Ok(true)) => End::Framed,
            Some(Ok(false)) => End::Cut,
            Some(Err(fault)) => return Err(fault),
        });
        return Ok(());
    }
}

fn status(message: &Strict) -> Result<u16, String> {
    let line = String::from_utf8_lossy(message.lines().next().unwrap_or_default()).into_owned();
    let wrong = || format!("status line {line:?}");
    let (version, rest) = line.split_once(' ').ok_or_else(wrong)?;
    let (status, _) = rest.split_once(' ').ok_or_else(wrong)?;
    let is_status = status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) || !is_status {
        return Err(wrong());
    }
    status.parse().map_err(|_| wrong())
}

fn judge(case: &Case, got: &Got) -> Vec<String> {
    let mut problems: Vec<String> =
        got.fault.iter().map(|fault| format!("nobody may send {fault}")).collect();
    let mut wrong = |problem: String| problems.push(problem);
    let last = case.http_1_0 || got.message.all("connection").iter().any(|option| option == "close");
    if got.end == Some(End::Framed) && !last && got.next.as_deref() != Some(b"next") {
        let next = got.next.as_deref().map(brief);
        wrong(format!("the next answer on the connection is {next:?}"));
    }
    let ours = !got.message.all("proxy-status").is_empty();
    // What breaks off at once may be refused, or end before anything of it has gone on.
    let refused = match case.verdict {
        Verdict::Pass => false,
        Verdict::Refuse => true,
        Verdict::Either | Verdict::Cut => ours,
    };
    let nothing = case.verdict == Verdict::Cut && got.status.is_none();
    let status = if refused { 502 } else { case.status };
    if got.status != Some(status) && !nothing {
        wrong(format!("the status is {:?}, not {status}", got.status));
    }
    let all = [&got.message.head[..], &got.message.content, &got.message.trailers].concat();
    for text in case.never.iter().filter(|text| holds(&all, text)) {
        wrong(format!("{} has gone on", brief(text)));
    }
    if refused {
        if !ours {
            wrong("an answer of ours says so in Proxy-Status (GW-5)".to_owned());
        }
        return problems;
    }
    if case.verdict == Verdict::Cut {
        if got.end != Some(End::Cut) && !nothing {
            wrong(format!("to the caller its end is {:?}", got.end));
        }
        return problems;
    }
    if ours {
        wrong("it is an answer of ours".to_owned());
    }
    if !matches!(got.end, Some(End::Framed | End::Closed)) {
        wrong(format!("its end is {:?}", got.end));
    }
    if got.interim != case.interim {
        wrong(format!("the statuses before are {:?}, not {:?}", got.interim, case.interim));
    }
    let missing = case.sees.iter().filter(|line| !got.message.says(line));
    let changed =
        case.exactly.iter().filter(|line| got.message.lines().all(|given| given != line.as_slice()));
    for line in missing.chain(changed) {
        wrong(format!("{} is not there", brief(line)));
    }
    if case.content.as_ref().is_some_and(|content| *content != got.message.content) {
        wrong(format!("the content became {}", brief(&got.message.content)));
    }
    if case.trailer.as_ref().is_some_and(|trailer| !holds(&got.message.trailers, trailer)) {
        wrong(format!("the trailers became {}", brief(&got.message.trailers)));
    }
    problems
}
