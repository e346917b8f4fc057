//! What the service is told of its caller, in `X-Forwarded-*` and `Forwarded`.

use std::net::IpAddr;

use http::header::{FORWARDED, HeaderName};
use http::{HeaderMap, HeaderValue};

use super::elements::{is_closed, is_token};
use super::{Origin, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};

const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// What becomes of the headers of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// They go on as they came.
    #[default]
    Pass,
    /// The peer is added to the chain (FWD-6).
    Append,
    /// They say what we know, and nothing else.
    Set,
    /// They are removed.
    Strip,
}

/// What becomes of the headers that tell the service who asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Telling {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`.
    pub x_forwarded: Policy,
    /// `Forwarded`.
    pub forwarded: Policy,
}

/// The hop by which a request came to us.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// The TCP peer.
    pub peer: IpAddr,
    /// Whether it is a proxy that is believed.
    pub trusted: bool,
    /// The scheme that it spoke with us.
    pub scheme: &'static str,
    /// The authority that it asked for; empty where it named none.
    pub authority: &'a str,
}

impl Telling {
    /// Whether everything goes on as it came.
    pub fn passes(self) -> bool {
        self == Self::default()
    }

    /// Makes the headers of a request say what they shall. `origin` is what is known of the original request.
    pub fn apply(self, headers: &mut HeaderMap, hop: &Hop<'_>, origin: &Origin) {
        match self.x_forwarded {
            Policy::Pass => {}
            Policy::Append => {
                chain(headers, X_FORWARDED_FOR, |_| true, &hop.peer.to_canonical().to_string());
                for (name, value) in beside(hop, origin) {
                    // What a proxy that is not believed says of the scheme or the host is not passed off as ours.
                    if !hop.trusted || !headers.contains_key(&name) {
                        put(headers, name, value);
                    }
                }
            }
            Policy::Set => {
                put(headers, X_FORWARDED_FOR, Some(origin.client.to_canonical().to_string()));
                beside(hop, origin).into_iter().for_each(|(name, value)| put(headers, name, value));
            }
            Policy::Strip => {
                for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, X_FORWARDED_PORT] {
                    headers.remove(name);
                }
            }
        }
        match self.forwarded {
            Policy::Pass => {}
            // Behind a quote that is not closed, ours could not be read.
            Policy::Append => {
                chain(headers, FORWARDED, is_closed, &element(hop.peer, hop.scheme, hop.authority))
            }
            Policy::Set => {
                let authority = origin.host.as_deref().unwrap_or(hop.authority);
                let element = element(origin.client, origin.scheme.unwrap_or(hop.scheme), authority);
                put(headers, FORWARDED, Some(element));
            }
            Policy::Strip => drop(headers.remove(FORWARDED)),
        }
    }
}

/// What stands beside `X-Forwarded-For`. The port is the one that was asked for, which is the scheme's where none was named.
fn beside(hop: &Hop<'_>, origin: &Origin) -> [(HeaderName, Option<String>); 3] {
    let scheme = origin.scheme.unwrap_or(hop.scheme);
    let host = origin.host.as_deref().unwrap_or(hop.authority);
    let named = host.rsplit_once(':').map(|(_, port)| port).filter(|port| port.parse::<u16>().is_ok());
    let port = named.unwrap_or(if scheme == "https" { "443" } else { "80" });
    [
        (X_FORWARDED_PROTO, Some(scheme.to_owned())),
        (X_FORWARDED_HOST, Some(host.to_owned()).filter(|host| !host.is_empty())),
        (X_FORWARDED_PORT, Some(port.to_owned())),
    ]
}

/// One line out of all that are there and `last`: many readers see one line only.
fn chain(headers: &mut HeaderMap, name: HeaderName, keeps: impl Fn(&[u8]) -> bool, last: &str) {
    let lines = headers.get_all(&name).iter().map(|line| line.as_bytes().trim_ascii());
    let mut elements: Vec<&[u8]> = lines.filter(|line| !line.is_empty() && keeps(line)).collect();
    elements.push(last.as_bytes());
    // Parts of header values with a comma between them are one.
    if let Ok(line) = HeaderValue::from_bytes(&elements.join(&b", "[..])) {
        headers.insert(name, line);
    }
}

/// The header says `value`, or is not there.
fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    match value.and_then(|value| HeaderValue::try_from(value).ok()) {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

/// An element of `Forwarded`. It has no port of the caller's, by which those who limit rates would know each connection as
/// another caller.
fn element(client: IpAddr, scheme: &str, authority: &str) -> String {
    let client = match client.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let host = match authority {
        "" => String::new(),
        plain if plain.bytes().all(is_token) => format!(";host={plain}"),
        other => format!(";host=\"{}\"", other.replace('\\', "\\\\").replace('"', "\\\"")),
    };
    format!("for={client}{host};proto={scheme}")
}

#[cfg(test)]
mod tests {
    use super::super::{Family, elements};
    use super::*;

    /// What comes of headers that a peer sends to `shop:81`, as the lines of all that are left.
    fn told(telling: Telling, peer: &str, lines: &[(&'static str, &str)]) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let (peer, nets) = (peer.parse().unwrap(), ["10.0.0.0/8".parse().unwrap()]);
        let origin = Origin::of(&headers, peer, &nets, &[Family::XForwarded, Family::Forwarded]);
        let trusted = super::super::is_trusted(peer, &nets);
        telling.apply(&mut headers, &Hop { peer, trusted, scheme: "http", authority: "shop:81" }, &origin);
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        lines.sort();
        lines
    }

    fn x(policy: Policy) -> Telling {
        Telling { x_forwarded: policy, ..Telling::default() }
    }

    fn rfc(policy: Policy) -> Telling {
        Telling { forwarded: policy, ..Telling::default() }
    }

    fn lines(lines: &[(&str, &str)]) -> Vec<(String, String)> {
        lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const FROM_A_BALANCER: [(&str, &str); 4] = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
    ];

    #[test]
    fn a_trusted_proxy_is_added_to_and_believed() {
        let expected = lines(&[
            ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.1"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
        ]);
        assert_eq!(told(x(Policy::Append), "::ffff:10.0.0.1", &FROM_A_BALANCER), expected, "FWD-6");
    }

    #[test]
    fn what_anybody_says_of_scheme_and_host_is_replaced() {
        let expected = lines(&[
            ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 2001:db8::7"),
            ("x-forwarded-host", "shop:81"),
            ("x-forwarded-port", "81"),
            ("x-forwarded-proto", "http"),
        ]);
        assert_eq!(told(x(Policy::Append), "2001:db8::7", &FROM_A_BALANCER), expected, "FWD-6");
    }

    #[test]
    fn set_says_what_spans_say() {
        let behind = |client, host, port, proto| {
            lines(&[
                ("x-forwarded-for", client),
                ("x-forwarded-host", host),
                ("x-forwarded-port", port),
                ("x-forwarded-proto", proto),
            ])
        };
        let trusted = told(x(Policy::Set), "10.0.0.1", &FROM_A_BALANCER);
        assert_eq!(trusted, behind("203.0.113.9", "shop.example", "443", "https"));
        let stranger = told(x(Policy::Set), "192.0.2.1", &FROM_A_BALANCER);
        assert_eq!(stranger, behind("192.0.2.1", "shop:81", "81", "http"));
    }

    #[test]
    fn one_family_is_none_of_the_others_business() {
        let sent = [("forwarded", "for=1.2.3.4"), ("x-forwarded-for", "1.2.3.4"), ("x-real-ip", "1.2.3.4")];
        assert_eq!(told(x(Policy::Strip), "192.0.2.1", &sent), lines(&[sent[0], sent[2]]));
        assert_eq!(told(rfc(Policy::Strip), "192.0.2.1", &sent), lines(&sent[1..]));
        assert_eq!(told(Telling::default(), "192.0.2.1", &sent), lines(&sent));
    }

    #[test]
    fn an_element_is_quoted_where_it_has_to_be() {
        let sent = [("forwarded", "for=1.2.3.4"), ("forwarded", r#"for=_a;by=""#), ("forwarded", "for=_b")];
        let expected = r#"for=1.2.3.4, for=_b, for="[2001:db8::7]";host="shop:81";proto=http"#;
        let told = told(rfc(Policy::Append), "2001:db8::7", &sent);
        assert_eq!(told, lines(&[("forwarded", expected)]), "FWD-4");
        let element = element([1, 2, 3, 4].into(), "https", r#"a"\b"#);
        assert_eq!(element, r#"for=1.2.3.4;host="a\"\\b";proto=https"#);
        assert!(elements::elements(element.as_bytes())[0].is_some());
    }
}
