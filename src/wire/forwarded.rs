//! Who asked first, where trusted proxies tell: `Forwarded` (RFC 7239) and `X-Forwarded-*`.
//!
//! Anybody can send these headers, so they count only from proxies that the configuration trusts (SEM-53), and only
//! as far back as the chain of trust reaches (FWD-6). [`tell`] is about what the service is told.

pub mod elements;
pub mod tell;

use std::net::{IpAddr, SocketAddrV4};

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

use self::elements::{Element, host, is_port, scheme};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Headers that are written together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `X-Forwarded-For` and those beside it.
    XForwarded,
    /// `Forwarded`.
    Forwarded,
}

/// What trusted proxies say of the original request.
#[derive(Debug, PartialEq, Eq)]
pub struct Origin {
    /// The caller: the nearest address that is no trusted proxy, or the farthest known (SEM-30).
    pub client: IpAddr,
    /// The scheme it used, where told (SEM-22).
    pub scheme: Option<&'static str>,
    /// The authority it asked for, where told (SEM-50).
    pub host: Option<String>,
}

/// What one family of headers says of it.
#[derive(Default)]
struct Told {
    client: Option<IpAddr>,
    scheme: Option<&'static str>,
    host: Option<String>,
}

impl Origin {
    /// What `headers` of the `believed` families say, as far as `peer` and those before it are `trusted`. Most proxies write one
    /// family and pass the other on as anybody sent it. So where both are there, what they do not agree on is not known.
    pub fn of(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet], believed: &[Family]) -> Self {
        let mut told = [Told::default(), Told::default()];
        if is_trusted(peer, trusted) {
            if believed.contains(&Family::Forwarded) {
                told[0] = Told::by_forwarded(headers, trusted);
            }
            if believed.contains(&Family::XForwarded) {
                told[1] = Told::by_x_forwarded(headers, trusted);
            }
        }
        let [one, other] = told;
        Self {
            client: agreed(one.client, other.client).unwrap_or(peer),
            scheme: agreed(one.scheme, other.scheme),
            host: agreed(one.host, other.host),
        }
    }
}

/// What either says, or both.
fn agreed<T: PartialEq>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => (one == other).then_some(one),
        (one, other) => one.or(other),
    }
}

impl Told {
    /// The elements are in the order of the proxies, the last one is the nearest (FWD-4). Each is told by the one whose address
    /// is in the element after it; of the scheme and the host, the farthest who is trusted knows most.
    fn by_forwarded(headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let mut told = Self::default();
        let lines = headers.get_all(FORWARDED).iter().rev();
        let nearest_first = lines.flat_map(|line| elements::elements(line.as_bytes()).into_iter().rev());
        for element in nearest_first {
            let Some(Element { client, scheme, host }) = element else { break };
            told.scheme = scheme.or(told.scheme);
            told.host = host.or(told.host);
            told.client = client.or(told.client);
            if !client.is_some_and(|client| is_trusted(client, trusted)) {
                break;
            }
        }
        told
    }

    fn by_x_forwarded(headers: &HeaderMap, trusted: &[IpNet]) -> Self {
        let mut told = Self::default();
        let chain = list(headers, &X_FORWARDED_FOR);
        let mut hops = 0;
        for address in chain.iter().rev().map(|text| address(text)) {
            hops += 1;
            told.client = address.or(told.client);
            if !address.is_some_and(|address| is_trusted(address, trusted)) {
                break;
            }
        }
        // Where each proxy adds to all headers, they go together. Where there is one value, it was handed on. Of other
        // numbers of values, the last one was written by the peer.
        let beside = |name| {
            let list = list(headers, &name);
            let at = match list.len() == chain.len() {
                true => chain.len() - hops,
                false => list.len().checked_sub(1)?,
            };
            list.get(at).map(|text| (*text).to_owned())
        };
        told.scheme = beside(X_FORWARDED_PROTO).as_deref().and_then(scheme);
        told.host = beside(X_FORWARDED_HOST).as_deref().and_then(host);
        told
    }
}

/// Whether `address` is that of a trusted proxy.
pub fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

/// The elements of a comma-separated header, over all its lines, that are not empty. One that is no text is `?`: to leave it
/// out would put what stands before it nearer than it is.
fn list<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(|element| std::str::from_utf8(element.trim_ascii()).unwrap_or("?"))
        .filter(|element| !element.is_empty())
        .collect()
}

/// An address of `X-Forwarded-For`. It has no port and no brackets, but some proxies write them.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port.then(|| address.parse().ok().filter(IpAddr::is_ipv6)).flatten().map(canonical);
    }
    let with_port = || text.parse().ok().map(|address: SocketAddrV4| (*address.ip()).into());
    text.parse().ok().or_else(with_port).map(canonical)
}

fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const BOTH: [Family; 2] = [Family::XForwarded, Family::Forwarded];

    fn believing(families: &[Family], peer: &str, lines: &[(&'static str, &[u8])]) -> Origin {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        Origin::of(&headers, peer.parse().unwrap(), &trusted, families)
    }

    fn origin(peer: &str, lines: &[(&'static str, &str)]) -> Origin {
        let lines: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        believing(&BOTH, peer, &lines)
    }

    fn client(lines: &[(&'static str, &str)]) -> String {
        origin("10.0.0.1", lines).client.to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        let lines =
            [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("forwarded", "for=1.2.3.4")];
        let seen = origin("203.0.113.9", &lines);
        assert_eq!(seen, Origin { client: "203.0.113.9".parse().unwrap(), scheme: None, host: None });
    }

    #[test]
    fn the_chain_is_followed_only_through_trusted_proxies() {
        let spoofed = [("x-forwarded-for", "6.6.6.6, 203.0.113.9"), ("x-forwarded-for", "10.1.1.1")];
        assert_eq!(client(&spoofed), "203.0.113.9");
        assert_eq!(client(&[("x-forwarded-for", "10.9.9.9, 10.1.1.1")]), "10.9.9.9");
        assert_eq!(client(&[("x-forwarded-for", "1.1.1.1, unknown")]), "10.0.0.1");
        let spoofed = [("forwarded", "for=6.6.6.6, for=203.0.113.9"), ("forwarded", "for=10.1.1.1")];
        assert_eq!(client(&spoofed), "203.0.113.9");
        assert_eq!(client(&[("forwarded", "for=1.1.1.1, for=_hidden, for=10.2.2.2")]), "10.2.2.2");
    }

    #[test]
    fn what_cannot_be_read_ends_the_chain_and_is_never_stepped_over() {
        for bad in
            ["\u{e9}", "fe80::1%eth0", "1.2.3", "[::1", "[1.2.3.4]", "1.2.3.4:99999", "for=1.2.3.4", "?"]
        {
            let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", bad)];
            assert_eq!(client(&lines), "10.0.0.1", "{bad}");
            // The proxy has added to what it was sent.
            let added = format!("{bad}, 203.0.113.9");
            let lines = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", added.as_str())];
            assert_eq!(client(&lines), "203.0.113.9", "{bad}");
        }
        let open = r#"for=6.6.6.6;by=", for="[2001:db8::9]""#;
        assert_eq!(client(&[("forwarded", "for=6.6.6.6"), ("forwarded", open)]), "10.0.0.1");
        assert_eq!(client(&[("forwarded", open), ("forwarded", "for=203.0.113.9")]), "203.0.113.9");
        let twice = "for=6.6.6.6, for=10.1.1.1;for=10.1.1.2, for=10.3.3.3";
        assert_eq!(client(&[("forwarded", twice)]), "10.3.3.3");
        let no_text =
            [("x-forwarded-for", &b"6.6.6.6"[..]), ("x-forwarded-for", b"\xff, 203.0.113.9, \xff\xfe")];
        assert_eq!(believing(&BOTH, "10.0.0.1", &no_text).client.to_string(), "10.0.0.1");
    }

    #[test]
    fn a_family_that_a_proxy_passes_on_as_anybody_sent_it_is_no_spoof() {
        let lines = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=6.6.6.6;host=evil;proto=https")];
        assert_eq!(client(&lines), "10.0.0.1", "nobody knows which of them the proxy wrote");
        let lines = lines.map(|(name, value)| (name, value.as_bytes()));
        let of = |family| believing(&[family], "10.0.0.1", &lines).client.to_string();
        assert_eq!(of(Family::XForwarded), "203.0.113.9");
        assert_eq!(of(Family::Forwarded), "6.6.6.6");
        let agreed = [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")];
        assert_eq!(client(&agreed), "203.0.113.9");
    }

    #[test]
    fn forwarded_tells_client_scheme_and_host() {
        let told =
            r#"For="[2001:db9::7]:4711";proto=HTTPS;host="shop.example:8443", for=10.2.2.2;proto=http"#;
        let seen = origin("10.0.0.1", &[("forwarded", told)]);
        assert_eq!(seen.client.to_string(), "2001:db9::7");
        assert_eq!((seen.scheme, seen.host.as_deref()), (Some("https"), Some("shop.example:8443")));
        let spoofed = format!("for=6.6.6.6;proto=http;host=evil, {told}");
        assert_eq!(origin("10.0.0.1", &[("forwarded", &spoofed)]), seen, "SEM-53");
    }

    #[test]
    fn what_stands_beside_is_told_by_whoever_told_the_client() {
        let beside = |lines: &[(&'static str, &str)]| {
            let seen = origin("10.0.0.1", lines);
            (seen.scheme, seen.host)
        };
        let chain = ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.1.1.1");
        let of = |host: &str| Some(host.to_owned());
        let spoofed = [chain, ("x-forwarded-host", "evil, shop.example, inner")];
        assert_eq!(beside(&spoofed), (None, of("shop.example")));
        assert_eq!(beside(&[chain, ("x-forwarded-proto", "https")]), (Some("https"), None));
        assert_eq!(beside(&[chain, ("x-forwarded-proto", "http, https")]), (Some("https"), None));
        for bad in ["user@shop", "a b", "http://shop", ""] {
            assert_eq!(beside(&[chain, ("x-forwarded-host", bad)]), (None, None), "{bad}");
        }
    }

    #[test]
    fn a_thousand_proxies_are_no_trouble() {
        let long = format!("6.6.6.6, {}", vec!["10.0.0.2"; 1000].join(", "));
        assert_eq!(client(&[("x-forwarded-for", &long)]), "6.6.6.6");
        let long = format!("for=6.6.6.6, {}", vec!["for=10.0.0.2"; 1000].join(", "));
        assert_eq!(client(&[("forwarded", &long)]), "6.6.6.6");
    }

    #[test]
    fn ports_and_brackets_are_taken_off() {
        for (text, expected) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("\"[2001:db8::1]:80\"", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected);
        }
        for bad in ["_secret", "[::1", "[::1]80", "1:2:3:4:5:6:7:8:80", "192.0.2.1:"] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }
}
