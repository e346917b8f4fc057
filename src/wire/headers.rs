//! Headers that concern one hop only, and those an intermediary adds.

use std::time::SystemTime;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{StatusCode, Version};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Removes what concerns this hop only (HOP-1, HOP-2), and returns the protocol that an HTTP/1.1 `Upgrade` asks
/// for, so that it can be asked for again on the next hop (HX-3).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // One walk over the names is cheaper than asking for each that might be there: most are not.
    let mut present = [false; HOPS];
    for name in headers.keys() {
        if let Some(index) = HOP_BY_HOP.iter().position(|known| known == name) {
            present[index] = true;
        }
    }
    let mut upgrade = None;
    for index in (0..HOPS).filter(|index| present[*index]) {
        match &HOP_BY_HOP[index] {
            name if *name == CONNECTION => upgrade = remove_connection(headers),
            name if *name == TE => reduce_te(headers),
            name => drop(headers.remove(name)),
        }
    }
    // Upgrading to h2c is obsolete, and a way to smuggle requests past intermediaries (HX-6).
    upgrade.and_then(without_h2c)
}

/// What is left of a list of protocols without h2c; `None` where nothing is.
fn without_h2c(protocols: HeaderValue) -> Option<HeaderValue> {
    let is_h2c = |protocol: &&[u8]| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c");
    let all = || protocols.as_bytes().split(|byte| *byte == b',');
    if !all().any(|protocol| is_h2c(&protocol)) {
        return Some(protocols);
    }
    let kept: Vec<&[u8]> = all().filter(|protocol| !is_h2c(protocol)).map(<[u8]>::trim_ascii).collect();
    if kept.iter().all(|protocol| protocol.is_empty()) {
        return None;
    }
    HeaderValue::from_bytes(&kept.join(&b", "[..])).ok()
}

const HOPS: usize = 7;

/// `Connection` comes first: what it says of the others has to be read while they are there.
static HOP_BY_HOP: [HeaderName; HOPS] =
    [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS];

/// Removes `Connection` and all that it names; returns the protocol to upgrade to, if it names that.
fn remove_connection(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut upgrade = None;
    let mut nominated = Vec::new();
    for value in headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()) {
        for option in value.split(',').map(str::trim) {
            // The two that nearly all messages have name no header of their own that is not removed anyway.
            if option.eq_ignore_ascii_case("keep-alive") || option.eq_ignore_ascii_case("close") {
                continue;
            }
            nominated.extend(HeaderName::from_bytes(option.as_bytes()));
        }
    }
    headers.remove(CONNECTION);
    for name in nominated {
        match name {
            UPGRADE => upgrade = headers.get(UPGRADE).cloned(),
            // No sender may nominate what every recipient needs (RFC 9110 section 7.6.1); doing as told would change
            // what the message is. The others are dealt with by themselves.
            HOST | CONTENT_LENGTH | TE | TRANSFER_ENCODING => {}
            name => drop(headers.remove(name)),
        }
    }
    upgrade
}

/// `TE: trailers` says that everybody down the line takes trailers; so it is passed on only where the client said it
/// (HOP-14). Nothing else of TE is end to end.
fn reduce_te(headers: &mut HeaderMap) {
    let is_trailers =
        |value: &str| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    let mut lines = headers.get_all(TE).iter();
    // Left as it was written, where it says that and nothing else.
    if lines.next().is_some_and(|first| first == "trailers") && lines.next().is_none() {
        return;
    }
    let trailers = headers.get_all(TE).iter().filter_map(|value| value.to_str().ok()).any(is_trailers);
    headers.remove(TE);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Asks for `protocol` on the next hop.
pub fn request_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Makes a request's headers fit for an HTTP/1.1 hop: one cookie line (H2-2), and `TE` listed in `Connection`
/// (HOP-14).
pub fn fit_for_http1(headers: &mut HeaderMap, from: Version) {
    if from == Version::HTTP_2 && headers.get_all(COOKIE).iter().nth(1).is_some() {
        let joined: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&joined.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
    if headers.contains_key(TE) && !headers.contains_key(CONNECTION) {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
}

/// Makes a response's headers fit for an HTTP/2 hop, where connection-specific fields are malformed (SMG-28), and
/// where trailers need no announcement.
pub fn fit_for_http2(headers: &mut HeaderMap) {
    headers.remove(TRAILER);
}

/// Adds ourselves to `Via`, with the version the message was received with (HOP-8).
pub fn add_via(headers: &mut HeaderMap, received: Version) {
    let value = match received {
        Version::HTTP_10 => "1.0 tracecar",
        Version::HTTP_2 => "2 tracecar",
        _ => "1.1 tracecar",
    };
    headers.append(VIA, HeaderValue::from_static(value));
}

/// Adds the time to a response that does not say when it was made (HOP-13).
pub fn add_date(headers: &mut HeaderMap) {
    if !headers.contains_key(DATE)
        && let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(DATE, now);
    }
}

/// Whether a response ends where its head ends, whatever its headers say (FRM-1). 101 is not one of them.
pub fn never_has_content(status: StatusCode) -> bool {
    status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn what_connection_names_is_removed() {
        let mut map = headers(&[
            ("connection", "close, X-Foo"),
            ("connection", "bar"),
            ("x-foo", "1"),
            ("bar", "2"),
            ("keep-alive", "timeout=5"),
            ("x-end", "3"),
        ]);
        assert_eq!(strip_hop_by_hop(&mut map), None);
        assert_eq!(map, headers(&[("x-end", "3")]));
    }

    #[test]
    fn connection_cannot_remove_what_frames_or_routes_the_message() {
        let mut map =
            headers(&[("connection", "host, content-length"), ("host", "a"), ("content-length", "3")]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("host", "a"), ("content-length", "3")]));
    }

    #[test]
    fn an_upgrade_is_reported_only_where_connection_names_it() {
        let mut map = headers(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(strip_hop_by_hop(&mut map), Some(HeaderValue::from_static("websocket")));
        assert!(map.is_empty());
        let mut map = headers(&[("upgrade", "websocket")]);
        assert_eq!(strip_hop_by_hop(&mut map), None);
        let mut map = headers(&[
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAM"),
        ]);
        assert_eq!(strip_hop_by_hop(&mut map), None);
        assert!(map.is_empty());
    }

    #[test]
    fn an_upgrade_to_h2c_is_taken_out_of_a_list() {
        for (protocols, left) in [
            ("h2c", None),
            ("H2C, ", None),
            ("h2c, websocket", Some("websocket")),
            ("a,h2c ,b", Some("a, b")),
        ] {
            let mut map = headers(&[("connection", "upgrade"), ("upgrade", protocols)]);
            assert_eq!(strip_hop_by_hop(&mut map), left.map(HeaderValue::from_static), "{protocols}");
        }
    }

    #[test]
    fn te_trailers_survives_and_other_codings_do_not() {
        let mut map = headers(&[("te", "gzip, trailers"), ("connection", "te")]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("te", "trailers")]));
        let mut map = headers(&[("te", "gzip")]);
        strip_hop_by_hop(&mut map);
        assert!(map.is_empty());
    }

    #[test]
    fn cookie_crumbs_of_http2_become_one_line() {
        let mut map = headers(&[("cookie", "a=1"), ("cookie", "b=2")]);
        fit_for_http1(&mut map, Version::HTTP_2);
        assert_eq!(map, headers(&[("cookie", "a=1; b=2")]));
    }
}
