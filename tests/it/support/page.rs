//! The pages of the admin port, and the numbers on the metrics page.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::origin::{Message, Peer};

/// Reads one page.
pub fn read(admin: SocketAddr, path: &str) -> Message {
    read_as(admin, path, "*/*")
}

/// Reads one page in the form that `accept` asks for.
pub fn read_as(admin: SocketAddr, path: &str, accept: &str) -> Message {
    let mut peer = Peer::connect(admin);
    peer.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n"));
    peer.response()
}

/// The labels of a sample.
pub type Labels = BTreeMap<String, String>;

/// The samples of a metrics page in Prometheus text.
#[derive(Debug)]
pub struct Page(pub Vec<(String, Labels, f64)>);

impl Page {
    /// The page as it is now.
    pub fn of(admin: SocketAddr) -> Self {
        Self::parse(&read(admin, "/metrics").text())
    }

    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(samples.map(|line| sample(line).unwrap_or_else(|| panic!("not a sample: {line}"))).collect())
    }

    /// The sum of all samples of this name that have all these labels; 0 where there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.named(name)
            .filter(|(of, _)| {
                labels.iter().all(|(label, value)| of.get(*label).is_some_and(|is| is == value))
            })
            .map(|(_, value)| value)
            .sum()
    }

    /// A counter or gauge as the integer it is, over all its labels.
    pub fn count(&self, name: &str) -> u64 {
        self.sum(name, &[]) as u64
    }

    /// All samples of this name.
    pub fn named<'p>(&'p self, name: &'p str) -> impl Iterator<Item = (&'p Labels, f64)> {
        self.0.iter().filter(move |(is, ..)| is == name).map(|(_, labels, value)| (labels, *value))
    }
}

fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some((series.to_owned(), Labels::new(), value));
    };
    let mut labels = Labels::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (label, quoted) = rest.split_once("=\"")?;
        let end = end_of_quoted(quoted)?;
        let unescaped = quoted[..end].replace("\\\"", "\"").replace("\\n", "\n").replace("\\\\", "\\");
        labels.insert(label.to_owned(), unescaped);
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    Some((name.to_owned(), labels, value))
}

fn end_of_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })
}
