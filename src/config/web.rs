//! Scalars of HTTP: where a service listens, endpoints, headers, methods, path templates; and the level of our log.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Method, Uri};
use ipnet::IpNet;

use super::excerpt::{Seen, url};
use super::leaf::{Leaf, Wrong, hashed, wrong};
use super::problem::quote;
use super::value::Form;
use super::{BaseUrl, Upstream, UpstreamProtocol};
use crate::exchange::{Exclusion, RouteError, Routes};
use crate::wire::egress::{PortRange, Target, TargetError};

impl Leaf for Upstream {
    const WHAT: &'static str = "where the service listens, such as http://127.0.0.1:3000";
    const FORM: Form = Form::Text(Some("^([hH][tT][tT][pP][sS]?|[hH]2[cC])://"));
    const SEEN: Seen = Seen::Url;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let shown = quote(&url(text));
        let Some((scheme, rest)) = text.split_once("://") else {
            let instead = match (text.chars().all(|char| char.is_ascii_digit()), host_and_port(text)) {
                (true, _) => format!("write http://127.0.0.1:{}", short(text)),
                (false, Some(host)) => format!("write http://{host}"),
                (false, None) => format!("write {}", Self::WHAT),
            };
            return wrong(format!("{shown} has no scheme"), instead);
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let protocol = match scheme.to_ascii_lowercase().as_str() {
            "http" => UpstreamProtocol::Http1,
            "h2c" => UpstreamProtocol::H2c,
            "https" => UpstreamProtocol::Https,
            _ => {
                let instead = "write http:// for HTTP/1.1, h2c:// for HTTP/2 without TLS, or https://";
                return wrong(format!("{shown} has a scheme that is not known"), instead);
            }
        };
        if !matches!(path, "" | "/") {
            let instead = match host_and_port(rest) {
                Some(host) => format!("write {scheme}://{host}; the path of each request is kept"),
                None => "leave the query out: each request brings its own".to_owned(),
            };
            return wrong(format!("{shown} has a path"), instead);
        }
        if authority.contains('@') {
            let instead = "leave the user and password out; callers' credentials are passed on";
            return wrong(format!("{shown} has a password"), instead);
        }
        let invalid = || format!("{shown} has no valid host and port");
        let instead = format!("write {scheme}://127.0.0.1:3000");
        let Ok(parsed) = authority.parse::<Authority>() else { return wrong(invalid(), instead) };
        let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
        let after_host = &authority[parsed.host().len()..];
        let port = match after_host.strip_prefix(':') {
            None if protocol == UpstreamProtocol::Https => 443,
            None => 80,
            Some(port) => match port.parse() {
                Ok(port) if port > 0 => port,
                _ => {
                    let host = short(parsed.host());
                    return wrong(
                        format!("{shown} has no valid port"),
                        format!("write {scheme}://{host}:3000, with a port from 1 to 65535"),
                    );
                }
            },
        };
        if host.is_empty() || host.contains('%') {
            return wrong(invalid(), instead);
        }
        Ok(Self { protocol, host: host.to_owned(), port, address: None })
    }

    fn show(&self) -> String {
        match self.protocol {
            UpstreamProtocol::Http1 => format!("http://{self}"),
            UpstreamProtocol::H2c => format!("h2c://{self}"),
            UpstreamProtocol::Https => format!("https://{self}"),
        }
    }
}

impl Leaf for BaseUrl {
    const WHAT: &'static str = "a destination such as https://preprocessing.internal/base";
    const FORM: Form = Upstream::FORM;
    const SEEN: Seen = Seen::Url;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let after_scheme = text.find("://").map_or(0, |at| at + 3);
        let path_at = text[after_scheme..].find(['/', '?', '#']).map_or(text.len(), |at| at + after_scheme);
        let (to, path) = text.split_at(path_at);
        let to = Upstream::parse(to)?;
        let path = path.trim_end_matches('/');
        if path.contains(['?', '#']) {
            let instead = "leave the query out: each request brings its own";
            return wrong(format!("{} has a query", quote(&url(text))), instead);
        }
        if !path.is_empty() && path.parse::<http::uri::PathAndQuery>().is_err() {
            return wrong(format!("{} has a path that is not one", quote(&url(text))), "percent-encode it");
        }
        Ok(Self { to, path: path.to_owned() })
    }

    fn show(&self) -> String {
        self.to.show() + &self.path
    }
}

impl Leaf for Target {
    const WHAT: &'static str = "a destination such as api.example.com, *.internal, 10.0.0.0/8 or *:25";

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().or_else(|error: TargetError| wrong(error.to_string(), format!("write {}", Self::WHAT)))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Leaf for PortRange {
    const WHAT: &'static str = "a port such as 443, or ports such as 1024-65535";

    fn parse(text: &str) -> Result<Self, Wrong> {
        text.parse().or_else(|error: TargetError| wrong(error.to_string(), format!("write {}", Self::WHAT)))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The beginning of a text for a suggestion.
fn short(text: &str) -> String {
    url(text).chars().filter(|char| !char.is_control()).take(80).collect()
}

/// Host and port of a URL without its scheme, for a suggestion. A query may hold an `@`, too, and a password a `?`.
fn host_and_port(text: &str) -> Option<String> {
    let host = text.rsplit('@').next().unwrap_or_default();
    (!text.contains(['?', '#'])).then(|| short(host.split('/').next().unwrap_or_default()))
}

/// An `http` or `https` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint(pub Uri);

impl Leaf for Endpoint {
    const WHAT: &'static str = "a URL such as http://collector:4318";
    const FORM: Form = Form::Text(Some("^[hH][tT][tT][pP][sS]?://"));
    const SEEN: Seen = Seen::Url;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if !text.contains("://") {
            let instead = match host_and_port(text).filter(|host| !host.is_empty()) {
                None => format!("write {}", Self::WHAT),
                Some(host) => format!("write http://{host}, or https://{host}"),
            };
            return wrong(format!("{} has no scheme", quote(&url(text))), instead);
        }
        let refused =
            |what: &str| wrong(format!("{} {what}", quote(&url(text))), format!("write {}", Self::WHAT));
        let Ok(uri) = text.parse::<Uri>() else { return refused("is not a URL") };
        match (uri.scheme_str(), uri.host()) {
            (_, None | Some("")) => refused("has no host"),
            (Some("http" | "https"), _) => Ok(Self(uri)),
            _ => refused("is neither http:// nor https://"),
        }
    }

    /// Without the user, password and query, any of which may be a secret.
    fn show(&self) -> String {
        let authority = self.0.authority().map_or("", Authority::as_str);
        let authority = match authority.rsplit_once('@') {
            Some((_, host)) => format!("***@{host}"),
            None => authority.to_owned(),
        };
        let query = if self.0.query().is_some() { "?***" } else { "" };
        let path = if self.0.path() == "/" { "" } else { self.0.path() };
        format!("{}://{authority}{path}{query}", self.0.scheme_str().unwrap_or_default())
    }

    fn hidden(&self) -> Option<u64> {
        let text = self.0.to_string();
        text.contains(['@', '?']).then(|| hashed(text.as_bytes()))
    }
}

impl Leaf for IpNet {
    const WHAT: &'static str = "a network such as 10.0.0.0/8";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        match text.parse::<IpNet>() {
            Ok(network) => Ok(network.trunc()),
            Err(_) => wrong(
                format!("{} is not a network", quote(text)),
                "write one such as 10.0.0.0/8, or a single address",
            ),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Leaf for HeaderName {
    const WHAT: &'static str = "the name of a header";

    fn parse(text: &str) -> Result<Self, Wrong> {
        HeaderName::from_bytes(text.as_bytes()).or_else(|_| {
            wrong(format!("{} cannot be the name of a header", quote(text)), "write one such as x-request-id")
        })
    }

    fn show(&self) -> String {
        self.as_str().to_owned()
    }
}

/// The value of a header that may hold a key or password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub HeaderValue);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Leaf for Secret {
    const WHAT: &'static str = "the value of a header";
    const SEEN: Seen = Seen::Never;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let Ok(mut value) = HeaderValue::from_str(text) else {
            return wrong(
                "holds a character that a header cannot carry",
                "remove line breaks and other control characters; a block scalar ends in a line break",
            );
        };
        value.set_sensitive(true);
        Ok(Self(value))
    }

    fn show(&self) -> String {
        "***".to_owned()
    }

    fn hidden(&self) -> Option<u64> {
        Some(hashed(self.0.as_bytes()))
    }
}

/// An HTTP method, whose case matters (SEM-90).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MethodName(pub String);

impl Leaf for MethodName {
    const WHAT: &'static str = "a method such as GET";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if Method::from_bytes(text.as_bytes()).is_err() {
            return wrong(format!("{} cannot be a method", quote(text)), "write one such as GET");
        }
        const STANDARD: [&str; 10] =
            ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];
        match STANDARD.iter().find(|name| **name != text && name.eq_ignore_ascii_case(text)) {
            Some(name) => wrong(
                format!("{} is not a method that anybody sends: their case matters", quote(text)),
                format!("write {name}"),
            ),
            None => Ok(Self(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// Parameters that a path template may have: matchit panics at 26.
const MAX_PARAMETERS: usize = 20;
/// Bytes that a path template or glob may have. Long ones cost more than anybody means to spend on a request.
const MAX_PATTERN: usize = 2048;

/// A path template such as `/models/{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(pub String);

impl AsRef<str> for Template {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Leaf for Template {
    const WHAT: &'static str = "a path template such as /models/{id}";
    const FORM: Form = Form::Text(Some("^/"));

    fn parse(text: &str) -> Result<Self, Wrong> {
        if !text.starts_with('/') {
            return wrong(
                format!("{} is not a path", quote(text)),
                format!("begin it with a slash: /{}", short(text)),
            );
        }
        if text.contains(['?', '#']) {
            return wrong(format!("{} has more than a path", quote(text)), "leave out the query");
        }
        if let Some(segment) = text.split('/').find(|segment| segment.len() > 1 && segment.starts_with(':')) {
            let instead = format!("write {{{}}} for {}", short(&segment[1..]), short(segment));
            return wrong(format!("{} has a parameter of another style", quote(text)), instead);
        }
        if text.matches('{').count() > MAX_PARAMETERS || text.len() > MAX_PATTERN {
            let message =
                format!("{} has more than {MAX_PARAMETERS} parameters, or is too long", quote(text));
            return wrong(message, "let /{*rest} stand for the end of the path");
        }
        match Routes::new(&[text], Vec::new()) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => wrong(
                format!("{} cannot be used: {}", quote(text), reason(error)),
                "write parameters as /{name}, and the rest of a path as /{*rest}",
            ),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A method of gRPC, or all of a service: `pkg.Service/Method`, `pkg.Service/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RpcPattern(pub String);

impl Leaf for RpcPattern {
    const WHAT: &'static str = "a gRPC method such as pkg.Service/Method or pkg.Service/*";
    const FORM: Form = Form::Text(Some("^[A-Za-z0-9_.]+/([A-Za-z0-9_]+|\\*)$"));

    fn parse(text: &str) -> Result<Self, Wrong> {
        let refused = |instead: String| wrong(format!("{} is not a gRPC method", quote(text)), instead);
        if let Some(rest) = text.strip_prefix('/') {
            return refused(format!("leave out the slash it begins with: {}", short(rest)));
        }
        let Some((service, method)) = text.split_once('/') else {
            return refused(format!("write {}/* for all methods of a service", short(text)));
        };
        let name = |text: &str, more: &[u8]| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || more.contains(&byte))
        };
        match name(service, b".") && (method == "*" || name(method, b"")) && text.len() <= MAX_PATTERN {
            true => Ok(Self(text.to_owned())),
            false => refused("write pkg.Service/Method, or pkg.Service/* for all of its methods".to_owned()),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

fn within_bounds(glob: &str) -> Result<(), Wrong> {
    match glob.len() > MAX_PATTERN {
        true => {
            wrong(format!("{} is too long", quote(glob)), format!("write at most {MAX_PATTERN} characters"))
        }
        false => Ok(()),
    }
}

/// A name or address that a certificate may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostName(pub String);

impl Leaf for HostName {
    const WHAT: &'static str = "the name of a host such as shop.internal";

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.parse::<IpAddr>().is_ok() {
            return Ok(Self(text.to_owned()));
        }
        let label = |label: &str| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=63).contains(&label.len()) && label.bytes().all(known)
        };
        match text.len() <= 253 && text.split('.').all(label) {
            true => Ok(Self(text.to_owned())),
            false => {
                let instead = "write one such as shop.internal, without scheme and port";
                wrong(format!("{} is not the name of a host", quote(text)), instead)
            }
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A glob over paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathGlob(pub String);

impl Leaf for PathGlob {
    const WHAT: &'static str = "a path or glob such as /health/*";
    const FORM: Form = Form::Text(Some("^[/*{\\[?]"));

    fn parse(text: &str) -> Result<Self, Wrong> {
        if !text.starts_with(['/', '*', '{', '[', '?']) {
            return wrong(
                format!("{} matches no path", quote(text)),
                format!("begin it with a slash: /{}", short(text)),
            );
        }
        within_bounds(text)?;
        match Exclusion::new(Some(text), None, None) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => wrong(
                format!("{} is not a glob: {}", quote(text), reason(error)),
                "write one such as /health/*, with ** to cross slashes",
            ),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// A glob over user agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AgentGlob(pub String);

impl Leaf for AgentGlob {
    const WHAT: &'static str = "a user agent or glob such as kube-probe/*";

    fn parse(text: &str) -> Result<Self, Wrong> {
        within_bounds(text)?;
        match Exclusion::new(None, None, Some(text)) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => wrong(
                format!("{} is not a glob: {}", quote(text), reason(error)),
                "write one such as kube-probe/*",
            ),
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The name of a resource attribute that has no key of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AttributeName(pub String);

impl Leaf for AttributeName {
    const WHAT: &'static str = "the name of an attribute";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let key = match text {
            "" => return wrong("an attribute needs a name", "write one such as team"),
            "service.name" => "name",
            "service.namespace" => "namespace",
            "service.version" => "version",
            "deployment.environment.name" => "environment",
            _ => return Ok(Self(text.to_owned())),
        };
        wrong("has a key of its own", format!("write it as service.{key}"))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

fn reason(error: RouteError) -> String {
    match error {
        RouteError::Template { reason, .. } | RouteError::Pattern { reason, .. } => reason,
    }
}

/// Levels of our own log: `info`, or `warn,tracecar::net=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogLevels(pub String);

impl Leaf for LogLevels {
    const WHAT: &'static str = "a level such as info, or levels by module such as warn,tracecar::net=debug";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let known = |level: &str| {
            let level = level.trim().to_ascii_lowercase();
            matches!(level.as_str(), "off" | "error" | "warn" | "info" | "debug" | "trace")
        };
        for part in text.split(',') {
            let level = part.split_once('=').map_or(part, |(_, level)| level);
            if !known(level) {
                let instead = "write one of off, error, warn, info, debug, trace, or module=level";
                return wrong(format!("{} is not a level", quote(level)), instead);
            }
        }
        Ok(Self(text.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_where_its_url_says() {
        let parse = |text| Upstream::parse(text).map(|to| (to.protocol, to.host, to.port));
        let (http, h2c) = (UpstreamProtocol::Http1, UpstreamProtocol::H2c);
        assert_eq!(parse("http://127.0.0.1:3000"), Ok((http, "127.0.0.1".to_owned(), 3000)));
        assert_eq!(parse("h2c://app:50051/"), Ok((h2c, "app".to_owned(), 50051)));
        assert_eq!(
            parse("https://api.example"),
            Ok((UpstreamProtocol::Https, "api.example".to_owned(), 443))
        );
        assert_eq!(parse("http://[::1]:80"), Ok((http, "::1".to_owned(), 80)));
        assert_eq!(parse("http://app"), Ok((http, "app".to_owned(), 80)));
        assert_eq!(Upstream::parse("http://[::1]:81").map(|to| to.show()).as_deref(), Ok("http://[::1]:81"));
    }

    #[test]
    fn a_service_that_cannot_be_reached_is_refused_with_what_to_write() {
        let cases = [
            ("127.0.0.1:3000", "write http://127.0.0.1:3000"),
            ("3000", "write http://127.0.0.1:3000"),
            ("https://app:443/api", "write https://app:443;"),
            ("http://app:3000/api", "write http://app:3000;"),
            ("ftp://app:3000", "write http://"),
            ("http://app:0", "write http://app:3000, with a port"),
            ("http://app:", "write http://app:3000, with a port"),
            ("http://app:99999", "write http://app:3000, with a port"),
            ("http://:3000", "write http://127.0.0.1:3000"),
            ("http://[::1", "write http://127.0.0.1:3000"),
            ("http://a b:3000", "write http://127.0.0.1:3000"),
            ("http://me:pw@app:3000", "leave the user"),
        ];
        for (text, instead) in cases {
            let wrong = Upstream::parse(text).expect_err(text);
            assert!(wrong.instead.starts_with(instead), "{text}: {wrong:?}");
            assert!(!wrong.message.contains("pw"), "{wrong:?}");
        }
    }

    #[test]
    fn an_endpoint_shows_no_secrets() {
        let endpoint = Endpoint::parse("https://me:pw@host:1/p?key=s").unwrap();
        assert_eq!(endpoint.show(), "https://***@host:1/p?***");
        assert_eq!(format!("{:?}", Secret::parse("s3cret").unwrap()), "***");
    }

    #[test]
    fn templates_of_other_routers_are_explained() {
        assert_eq!(Template::parse("/models/:id").unwrap_err().instead, "write {id} for :id");
        assert!(Template::parse("models").is_err());
        assert!(Template::parse("/a/{").is_err());
        assert!(Template::parse("/models/{id}").is_ok());
    }

    #[test]
    fn levels_are_names_or_names_by_module() {
        assert!(LogLevels::parse("warn,tracecar::net=debug").is_ok());
        assert!(LogLevels::parse("verbose").is_err());
    }
}
