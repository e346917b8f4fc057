//! Sends a case through tracecar, and says what is wrong with what became of it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::case::{Behind, Case, Verdict};
use super::recorder::{Recorder, Seen};
use crate::support::car::TestCar;
use crate::support::strict::{Strict, brief, holds};

/// What is sent behind a case. Where it is served the connection ends with it.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";

/// How long an answer may take that should come at once.
const WAIT: Duration = Duration::from_secs(5);

/// Longest case that is also sent byte for byte.
const SHORT: usize = 2000;

/// How the bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// In one piece, with a request behind.
    Whole,
    /// Each byte by itself, with a request behind.
    Bytewise,
    /// With nothing behind but the end of the sending side.
    Alone,
}

/// What is wrong with a case, in every way of sending.
pub fn problems(case: &Case) -> Vec<String> {
    let ways = [Sending::Whole, Sending::Bytewise, Sending::Alone];
    let sensible = ways.into_iter().filter(|way| match way {
        Sending::Whole => true,
        Sending::Bytewise => case.bytes.len() <= SHORT,
        Sending::Alone => case.verdict == Verdict::Accept && !case.ends,
    });
    let mut problems = Vec::new();
    for way in sensible {
        let (answer, seen) = send(case, way);
        let told = judge(case, way, &answer, &seen);
        if !told.is_empty() {
            let (Ok(said) | Err(said)) = answer.as_ref();
            let said = brief(said);
            problems.push(format!("{} ({way:?}): {}\n    answered: {said}", case.name, told.join("; ")));
        }
    }
    problems
}

/// Sends a case; returns all that was answered, as an error where the connection did not end, and all that the service
/// got.
fn send(case: &Case, way: Sending) -> (Result<Vec<u8>, Vec<u8>>, Vec<Seen>) {
    let recorder = Recorder::new();
    let car = TestCar::before(&recorder.url());
    let mut caller = TcpStream::connect(car.address()).expect("it listens");
    caller.set_nodelay(true).expect("a TCP socket");
    caller.set_read_timeout(Some(WAIT)).expect("a TCP socket");
    let ends = case.ends || way == Sending::Alone;
    let mut bytes = case.bytes.clone();
    if !ends {
        bytes.extend_from_slice(BEHIND.as_bytes());
    }
    // Whoever refuses may close before all has been sent.
    let piece = if way == Sending::Bytewise { 1 } else { bytes.len() };
    let _ = bytes.chunks(piece).try_for_each(|piece| caller.write_all(piece));
    if ends {
        let _ = caller.shutdown(Shutdown::Write);
    }
    let answer = read(&mut caller);
    drop(caller);
    drop(car.ended());
    (answer, recorder.seen())
}

/// Reads to the end of the connection. A reset is one as well, but silence is none.
fn read(caller: &mut TcpStream) -> Result<Vec<u8>, Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match caller.read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error)
                if [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::TimedOut].contains(&error.kind()) =>
            {
                return Err(all);
            }
            Err(_) => return Ok(all),
        }
    }
}

/// The statuses in what was answered. No content of ours looks like a status line.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.split("HTTP/1.").skip(1);
    lines.filter_map(|line| line.get(2..5)?.parse().ok()).collect()
}

fn judge(case: &Case, way: Sending, answer: &Result<Vec<u8>, Vec<u8>>, seen: &[Seen]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wrong = |problem: String| problems.push(problem);
    for fault in seen.iter().filter_map(|seen| seen.fault.as_ref()) {
        wrong(format!("the service was sent what nobody may send: {fault}"));
    }
    for each in seen.iter().filter(|seen| seen.target() == "/smuggled") {
        wrong(format!("smuggled: {}", brief(&each.message.head)));
    }
    let answer = match answer {
        Ok(answer) => answer,
        Err(_) => {
            wrong("the connection does not end".to_owned());
            return problems;
        }
    };
    let statuses = statuses(answer);
    let complete: Vec<&Seen> =
        seen.iter().filter(|seen| seen.complete && seen.target() != "/behind").collect();
    let behind = seen.iter().any(|seen| seen.target() == "/behind");
    let refused = statuses.iter().any(|status| case.refusals.contains(status));
    let passed = match case.verdict {
        Verdict::Accept => true,
        Verdict::Reject | Verdict::Abort | Verdict::Answered => false,
        Verdict::Either => !refused,
        Verdict::EitherAbort => !refused && !complete.is_empty(),
    };
    // How many good requests there are before one that is refused.
    let good = if passed || case.verdict == Verdict::Reject { case.requests } else { 0 };
    if complete.len() != good {
        let targets: Vec<_> = complete.iter().map(|seen| brief(&seen.message.head)).collect();
        wrong(format!("the service got {} requests, not {good}: {targets:?}", complete.len()));
    }
    if passed {
        let served = !case.ends && way != Sending::Alone && case.behind == Behind::Yes;
        if case.behind != Behind::Maybe && behind != served {
            wrong(format!("what is behind is {}served", if behind { "" } else { "not " }));
        }
        let should = vec![200; good + usize::from(behind)];
        if !case.any_answer && statuses != should {
            wrong(format!("the answers are {statuses:?}, not {should:?}"));
        }
        problems.extend(complete.iter().flat_map(|seen| content(case, &seen.message)));
        return problems;
    }
    if behind && case.verdict != Verdict::Answered {
        wrong("what is behind is served".to_owned());
    }
    if case.verdict == Verdict::Reject && seen.len() > good {
        wrong("something of it has reached the service".to_owned());
    }
    let last = statuses.get(good..).unwrap_or_default();
    let ok = match (case.verdict, last) {
        (Verdict::Abort | Verdict::EitherAbort, []) => true,
        (Verdict::Answered, [first, ..]) => case.refusals.contains(first),
        (_, [only]) => case.refusals.contains(only),
        _ => false,
    };
    if !ok && !case.any_answer {
        wrong(format!("the answers are {statuses:?}, and should be one of {:?}", case.refusals));
    }
    problems
}

/// What a service got that is not what it should have got.
fn content(case: &Case, message: &Strict) -> Vec<String> {
    let mut problems = Vec::new();
    let mut wrong = |bytes: &[u8], what: &str| problems.push(format!("{} {what}", brief(bytes)));
    let missing = case.sees.iter().filter(|line| !message.says(line));
    let changed = case.exactly.iter().filter(|line| message.lines().all(|given| given != line.as_slice()));
    for line in missing.chain(changed) {
        wrong(line, &format!("is not in {}", brief(&message.head)));
    }
    let all = [&message.head[..], &message.content, &message.trailers].concat();
    for text in case.never.iter().filter(|text| holds(&all, text)) {
        wrong(text, "has gone on");
    }
    for text in case.not_in_head.iter().filter(|text| holds(&message.head, text)) {
        wrong(text, "has become a header");
    }
    if case.content.as_ref().is_some_and(|content| *content != message.content) {
        wrong(&message.content, "is what the content became");
    }
    if case.trailer.as_ref().is_some_and(|trailer| !holds(&message.trailers, trailer)) {
        wrong(&message.trailers, "is what the trailers became");
    }
    problems
}
