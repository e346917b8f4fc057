//! Who asked first, where trusted proxies tell: `Forwarded` (RFC 7239) and `X-Forwarded-*`.
//!
//! Anybody can send these headers, so they count only from proxies that the configuration trusts (SEM-53), and only
//! as far back as the chain of trust reaches (FWD-6).

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

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

impl Origin {
    /// What `headers` say, as far as `peer` and those before it are `trusted`.
    pub fn of(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Self {
        let mut origin = Self { client: peer, scheme: None, host: None };
        if !is_trusted(peer, trusted) {
            return origin;
        }
        if headers.contains_key(FORWARDED) {
            origin.read_forwarded(headers, trusted);
            return origin;
        }
        origin.walk(elements(headers, &X_FORWARDED_FOR).rev().map(node), trusted);
        origin.scheme = elements(headers, &X_FORWARDED_PROTO).next().and_then(scheme);
        origin.host = elements(headers, &X_FORWARDED_HOST).next().map(str::to_owned);
        origin
    }

    /// The elements are in the order of the proxies, the last one is the nearest (FWD-4).
    fn read_forwarded(&mut self, headers: &HeaderMap, trusted: &[IpNet]) {
        let parameter = |element: &str, wanted: &str| {
            element.split(';').find_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"').to_owned())
            })
        };
        let nearest_first: Vec<&str> = elements(headers, &FORWARDED).rev().collect();
        self.walk(nearest_first.iter().map(|element| node(&parameter(element, "for")?)), trusted);
        if let Some(first) = nearest_first.last() {
            self.scheme = parameter(first, "proto").as_deref().and_then(scheme);
            self.host = parameter(first, "host");
        }
    }

    /// Goes back from the nearest hop for as long as each address is known and trusted.
    fn walk(&mut self, nearest_first: impl Iterator<Item = Option<IpAddr>>, trusted: &[IpNet]) {
        for address in nearest_first {
            let Some(address) = address else {
                return;
            };
            self.client = address;
            if !is_trusted(address, trusted) {
                return;
            }
        }
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|net| net.contains(&address))
}

/// The elements of a comma-separated header, over all its lines.
fn elements<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'h str> {
    let lines: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    let elements: Vec<&str> = lines
        .into_iter()
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
        .collect();
    elements.into_iter()
}

/// An address with or without port, with or without brackets; `unknown` and `_hidden` are none.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches('"');
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']')?.0.parse().ok();
    }
    text.parse().ok().or_else(|| text.rsplit_once(':')?.0.parse().ok())
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn origin(peer: &str, lines: &[(&'static str, &'static str)]) -> Origin {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        Origin::of(&headers, peer.parse().unwrap(), &trusted)
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        let seen = origin("203.0.113.9", &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https")]);
        assert_eq!(seen, Origin { client: "203.0.113.9".parse().unwrap(), scheme: None, host: None });
    }

    #[test]
    fn the_chain_is_followed_only_through_trusted_proxies() {
        let seen = origin(
            "10.0.0.1",
            &[("x-forwarded-for", "6.6.6.6, 203.0.113.9"), ("x-forwarded-for", "10.1.1.1")],
        );
        assert_eq!(seen.client.to_string(), "203.0.113.9");
        let all_trusted = origin("10.0.0.1", &[("x-forwarded-for", "10.9.9.9, 10.1.1.1")]);
        assert_eq!(all_trusted.client.to_string(), "10.9.9.9");
        let hidden = origin("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, unknown")]);
        assert_eq!(hidden.client.to_string(), "10.0.0.1");
    }

    #[test]
    fn forwarded_tells_client_scheme_and_host() {
        let seen = origin(
            "10.0.0.1",
            &[(
                "forwarded",
                r#"For="[2001:db9::7]:4711";proto=HTTPS;host="shop.example:8443", for=10.2.2.2"#,
            )],
        );
        assert_eq!(seen.client.to_string(), "2001:db9::7");
        assert_eq!((seen.scheme, seen.host.as_deref()), (Some("https"), Some("shop.example:8443")));
    }

    #[test]
    fn ports_and_brackets_are_taken_off() {
        assert_eq!(node("192.0.2.1:80").unwrap().to_string(), "192.0.2.1");
        assert_eq!(node("2001:db8::1").unwrap().to_string(), "2001:db8::1");
        assert_eq!(node("_secret"), None);
        assert_eq!(node("[::1"), None);
    }
}
