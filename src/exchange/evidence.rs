//! What a failed exchange said beside the facts that each record has: headers, and the first part of the answer.
//!
//! Kept of failures only, and only where somebody wants to read it: the request path copies, and whoever reads it (on the
//! telemetry thread) cleans it of secrets before anything of it is shown.

use std::ops::RangeInclusive;
use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What a failed exchange said.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Headers of the request, as they came; empty where nobody wants them.
    pub request_headers: HeaderCopy,
    /// Headers of the response, as they came; empty where there was none.
    pub response_headers: HeaderCopy,
    /// The first part of the response's content, as it came: it may be compressed.
    pub content: Vec<u8>,
    /// There was more than `content`.
    pub cut: bool,
    /// `grpc-message`, with its escapes (RPC-14).
    pub grpc_message: Option<String>,
}

/// Headers, copied into one piece of memory: the map itself would keep the connection's buffer alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderCopy {
    bytes: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(u32, u32)>,
}

impl HeaderCopy {
    /// Copies headers until `limit` bytes are full.
    pub fn of(headers: &HeaderMap, limit: usize) -> Self {
        let mut copy =
            Self { bytes: Vec::with_capacity(limit.min(1024)), ends: Vec::with_capacity(headers.len()) };
        for (name, value) in headers {
            copy.add(name, value, limit);
        }
        copy
    }

    fn add(&mut self, name: &HeaderName, value: &HeaderValue, limit: usize) {
        if self.bytes.len() + name.as_str().len() + value.len() > limit {
            return;
        }
        self.bytes.extend_from_slice(name.as_str().as_bytes());
        let name_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value.as_bytes());
        self.ends.push((name_end, self.bytes.len() as u32));
    }

    /// Names in lower case and values, in the order in which they came, but for those of one name, which stand together.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(name_end, value_end)| {
            let (name_end, value_end) = (*name_end as usize, *value_end as usize);
            let name = std::str::from_utf8(&self.bytes[start..name_end]).unwrap_or_default();
            let value = &self.bytes[name_end..value_end];
            start = value_end;
            (name, value)
        })
    }

    /// The first value of `name`, where it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.iter().find(|(known, _)| *known == name)?.1;
        std::str::from_utf8(value).ok()
    }

    /// Memory that it holds.
    pub fn size_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<(u32, u32)>()
    }
}

impl Evidence {
    /// Memory that it holds, for queues that are bounded in bytes.
    pub fn size_bytes(&self) -> usize {
        let headers = self.request_headers.size_bytes() + self.response_headers.size_bytes();
        let message = self.grpc_message.as_ref().map_or(0, String::capacity);
        size_of::<Self>() + headers + self.content.capacity() + message
    }
}

/// Which exchanges keep [`Evidence`], and how much of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Keeping {
    /// Whether the content of failed answers is kept: the first [`MAX_CONTENT`] bytes.
    pub content: bool,
    /// Whether headers are kept, too.
    pub headers: bool,
    /// What counts as a failure beside statuses from 500.
    pub chosen: Vec<Chosen>,
}

/// Statuses of the service that count as failures.
#[derive(Clone, Debug, PartialEq)]
pub struct Chosen {
    /// The template of the route; `None` stands for all.
    pub route: Option<Arc<str>>,
    /// The statuses.
    pub statuses: Vec<RangeInclusive<u16>>,
}

/// Bytes of a failed answer's content that are kept. Pages that frameworks show to developers are about as long.
pub const MAX_CONTENT: usize = 64 * 1024;

/// Bytes of headers that are kept of each side.
const MAX_HEADERS: usize = 8 * 1024;

impl Keeping {
    /// Headers of a request, where they are wanted: whether it fails is known later.
    pub fn request(&self, headers: &HeaderMap) -> Option<Box<Evidence>> {
        let copy =
            || Evidence { request_headers: HeaderCopy::of(headers, MAX_HEADERS), ..Evidence::default() };
        self.headers.then(|| Box::new(copy()))
    }

    /// Headers of a response that failed: all, where they are wanted, or those that say how to read the content.
    pub fn response(&self, headers: &HeaderMap) -> HeaderCopy {
        if self.headers {
            return HeaderCopy::of(headers, MAX_HEADERS);
        }
        let mut copy = HeaderCopy::default();
        for name in [CONTENT_TYPE, CONTENT_ENCODING] {
            headers.get(&name).into_iter().for_each(|value| copy.add(&name, value, MAX_HEADERS));
        }
        copy
    }

    /// Whether a status of the service counts as a failure on that route by choice.
    pub fn chooses(&self, route: Option<&str>, status: u16) -> bool {
        let there = |chosen: &Chosen| chosen.route.is_none() || chosen.route.as_deref() == route;
        let counts = |chosen: &Chosen| chosen.statuses.iter().any(|range| range.contains(&status));
        self.chosen.iter().any(|chosen| there(chosen) && counts(chosen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(headers: &[(&str, &[u8])]) -> HeaderMap {
        let pair = |(name, value): &(&str, &[u8])| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value).unwrap())
        };
        headers.iter().map(pair).collect()
    }

    #[test]
    fn all_headers_are_there_as_they_came() {
        let map = map(&[("Accept", b"a/b"), ("x-empty", b""), ("accept", b"c/d"), ("x-odd", b"\xff\xfe")]);
        let copy = HeaderCopy::of(&map, 1000);
        let mut pairs: Vec<(&str, &[u8])> = copy.iter().collect();
        pairs.sort_unstable();
        let expected: [(&str, &[u8]); 4] =
            [("accept", b"a/b"), ("accept", b"c/d"), ("x-empty", b""), ("x-odd", b"\xff\xfe")];
        assert_eq!(pairs, expected);
        assert_eq!((copy.text("accept"), copy.text("x-empty")), (Some("a/b"), Some("")));
        assert_eq!(
            (copy.text("x-odd"), copy.text("x-none")),
            (None, None),
            "what is no text is not read as one"
        );
    }

    #[test]
    fn a_copy_is_bounded_and_what_is_too_long_for_it_takes_no_others_place() {
        let long = vec![b'x'; 100];
        let mut map = map(&[("a", b"1"), ("x-long", &long), ("b", b"2")]);
        let copy = HeaderCopy::of(&map, 50);
        assert_eq!((copy.text("a"), copy.text("x-long"), copy.text("b")), (Some("1"), None, Some("2")));
        for number in 0..1000 {
            map.insert(
                HeaderName::try_from(format!("x-{number}")).unwrap(),
                HeaderValue::from_static("value"),
            );
        }
        let copy = HeaderCopy::of(&map, 500);
        let bytes: usize = copy.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!((480..=500).contains(&bytes), "{bytes}");
        assert_eq!(HeaderCopy::of(&map, 0).iter().count(), 0);
    }

    #[test]
    fn headers_are_kept_where_they_are_wanted_and_else_those_that_say_how_to_read() {
        let map =
            map(&[("content-type", b"text/plain"), ("set-cookie", b"a=1"), ("content-encoding", b"gzip")]);
        let names = |keeping: &Keeping| -> Vec<String> {
            let copy = keeping.response(&map);
            let mut names: Vec<_> = copy.iter().map(|(name, _)| name.to_owned()).collect();
            names.sort_unstable();
            names
        };
        let without = Keeping::default();
        assert_eq!(names(&without), ["content-encoding", "content-type"]);
        assert!(without.request(&map).is_none());
        let with = Keeping { headers: true, ..Keeping::default() };
        assert_eq!(names(&with), ["content-encoding", "content-type", "set-cookie"]);
        assert_eq!(with.request(&map).unwrap().request_headers.text("set-cookie"), Some("a=1"));
    }

    #[test]
    fn statuses_are_chosen_for_all_routes_or_for_one() {
        let keeping = Keeping {
            chosen: vec![
                Chosen { route: None, statuses: vec![409..=409] },
                Chosen { route: Some("/login".into()), statuses: vec![401..=403, 420..=420] },
            ],
            ..Keeping::default()
        };
        for (route, status, chosen) in [
            (None, 409, true),
            (Some("/login"), 409, true),
            (Some("/login"), 401, true),
            (Some("/login"), 403, true),
            (Some("/login"), 404, false),
            (Some("/login"), 420, true),
            (Some("/other"), 401, false),
            (None, 401, false),
        ] {
            assert_eq!(keeping.chooses(route, status), chosen, "{route:?} {status}");
        }
        assert!(!Keeping::default().chooses(None, 500));
    }

    #[test]
    fn what_it_holds_counts_for_queues() {
        let mut evidence = Evidence::default();
        let empty = evidence.size_bytes();
        evidence.content = vec![0; MAX_CONTENT];
        evidence.response_headers = HeaderCopy::of(&map(&[("a", &[b'x'; 500])]), MAX_HEADERS);
        assert!(evidence.size_bytes() >= empty + MAX_CONTENT + 501);
    }
}
