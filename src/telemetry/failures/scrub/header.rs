//! Headers. Anybody may put a secret into one and call it as they like, so values are shown only of those that are known to
//! hold none.

use std::borrow::Cow;

use super::{FILTERED, decoded, denied, path, text};

/// Headers whose values are shown, cleaned as text.
const SHOWN: [&str; 62] = [
    "accept",
    "age",
    "allow",
    "alt-svc",
    "b3",
    "cache-control",
    "connection",
    "date",
    "dnt",
    "etag",
    "expect",
    "expires",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-message",
    "grpc-status",
    "grpc-timeout",
    "host",
    "keep-alive",
    "last-modified",
    "max-forwards",
    "nel",
    "permissions-policy",
    "pragma",
    "priority",
    "proxy-status",
    "range",
    "referrer-policy",
    "retry-after",
    "save-data",
    "sec-gpc",
    "sentry-trace",
    "server",
    "server-timing",
    "strict-transport-security",
    "te",
    "timing-allow-origin",
    "traceparent",
    "traceresponse",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "uber-trace-id",
    "upgrade",
    "upgrade-insecure-requests",
    "user-agent",
    "vary",
    "x-amzn-trace-id",
    "x-aspnet-version",
    "x-b3-flags",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-cache",
    "x-cloud-trace-context",
    "x-content-type-options",
    "x-frame-options",
    "x-powered-by",
    "x-requested-with",
    "x-robots-tag",
    "x-xss-protection",
];

/// How names begin of headers whose values are shown.
const SHOWN_STARTS: [&str; 10] = [
    "accept-",
    "access-control-",
    "content-",
    "cross-origin-",
    "if-",
    "ratelimit-",
    "sec-ch-ua",
    "sec-fetch-",
    "x-datadog-",
    "x-ratelimit-",
];

/// Headers whose value is a URL.
const URLS: [&str; 7] = [
    "referer",
    "location",
    "content-location",
    "origin",
    "x-original-uri",
    "x-original-url",
    "x-rewrite-url",
];

/// Headers that hold the id of a request.
const IDS: [&str; 4] = ["x-request-id", "x-correlation-id", "request-id", "correlation-id"];

/// What is said of a cookie beside its value.
const COOKIE_ATTRIBUTES: [&str; 8] =
    ["path", "domain", "expires", "max-age", "samesite", "secure", "httponly", "partitioned"];

/// Characters of an id, and of the name of a cookie.
const ID: usize = 64;
const COOKIE: usize = 40;

/// A header's value as it may be shown; `name` is in lower case. What is not UTF-8 in it becomes U+FFFD.
pub fn header(name: &str, value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value);
    match name {
        "cookie" | "set-cookie" => cookies(name, &value),
        "baggage" => keys(&value),
        "link" => links(&value),
        "refresh" => refresh(&value),
        name if IDS.contains(&name) => id(&value).into_owned(),
        name if URLS.contains(&name) => url(&value),
        name if is_shown(name) => text(&value).into_owned(),
        _ => FILTERED.to_owned(),
    }
}

/// The id of a request as it may be shown: it is up to whoever sends one, and need not be any.
pub fn id(id: &str) -> Cow<'_, str> {
    let is_one =
        id.len() <= ID && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    if is_one { text(id) } else { FILTERED.into() }
}

fn is_shown(name: &str) -> bool {
    // `access-control-allow-credentials` is a yes or no; other names of that kind are somebody's own.
    SHOWN.contains(&name)
        || SHOWN_STARTS.iter().any(|start| name.starts_with(start))
            && (name.starts_with("access-control-") || !denied(name))
}

/// Names stay where they are words, and what is said of a cookie that is set; all values go.
fn cookies(header: &str, value: &str) -> String {
    let set = header.starts_with("set-");
    let parts = value.split(';').enumerate().map(|(index, part)| {
        let part = part.trim();
        let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
        let attribute =
            set && index > 0 && COOKIE_ATTRIBUTES.iter().any(|known| name.eq_ignore_ascii_case(known));
        match value {
            Some(value) if attribute => format!("{name}={}", path(value)),
            _ if attribute || part.is_empty() => part.to_owned(),
            Some(_) if is_words(name) => format!("{name}={FILTERED}"),
            // Without a name it is all value.
            _ => FILTERED.to_owned(),
        }
    });
    parts.collect::<Vec<_>>().join("; ")
}

fn is_words(name: &str) -> bool {
    let digits = name.bytes().filter(u8::is_ascii_digit).count();
    name.len() <= COOKIE
        && digits < 5
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && text(name) == name
}

/// `baggage`, of which anything may be a value.
fn keys(value: &str) -> String {
    let members = value.split(',').map(|member| match member.split_once('=') {
        Some((key, _)) if is_words(key.trim()) => format!("{}={FILTERED}", key.trim()),
        _ => FILTERED.to_owned(),
    });
    members.collect::<Vec<_>>().join(",")
}

/// `<https://h/a>; rel=next, …`.
fn links(value: &str) -> String {
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('<') {
        let (target, behind) = after.split_once('>').unwrap_or((after, ""));
        out.push_str(&text(before));
        out.push_str(&format!("<{}>", url(target)));
        rest = behind;
    }
    out.push_str(&text(rest));
    out
}

/// `5; url=https://h/a`.
fn refresh(value: &str) -> String {
    match value.split_once('=') {
        Some((before, target)) => format!("{}={}", text(before), url(target)),
        None => text(value).into_owned(),
    }
}

/// A URL without credentials and secret segments, and with the keys of its query only. The fragment may hold a token (OAuth),
/// so it goes.
fn url(url: &str) -> String {
    let (rest, fragment) = url.split_once('#').map_or((url, None), |(rest, fragment)| (rest, Some(fragment)));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let mut out = match rest.split_once("//") {
        Some((scheme, rest)) => {
            // A password may hold what ends an authority elsewhere, so the last `@` counts, wherever it is.
            let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
            format!("{}//{}", text(scheme), path(rest))
        }
        None => path(rest).into_owned(),
    };
    if let Some(query) = query {
        let keys = query.split('&').map(|pair| match pair.split_once('=') {
            Some((key, _)) if text(&decoded(key)) == decoded(key) => format!("{key}={FILTERED}"),
            None if pair.is_empty() => String::new(),
            _ => FILTERED.to_owned(),
        });
        out = format!("{out}?{}", keys.collect::<Vec<_>>().join("&"));
    }
    match fragment {
        Some(_) => format!("{out}#{FILTERED}"),
        None => out,
    }
}
