//! Request targets: what was asked for, and how to ask for it on the next hop.
//!
//! A path is never normalised (HOP-11): `/a/../b?x=%2F&&` goes on byte for byte.

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{HeaderValue, Request, Version};

/// The authority that a request asks for, as it was written but for a name and password: that of its target where it
/// has one (absolute-form, `:authority`), else `Host`. Empty where there is none (SEM-50, FWD-1).
pub fn authority<B>(request: &Request<B>) -> &str {
    if let Some(authority) = request.uri().authority() {
        return without_userinfo(authority);
    }
    let host = request.headers().get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

/// Puts a request's target and `Host` into the form that an HTTP/1.1 server expects: origin-form, with `Host`
/// from the target where that had an authority (FWD-1, H2-1). `fallback` is for callers that name no host and need
/// not, which are those of HTTP/1.0 and HTTP/2: the HTTP/1.1 that we speak on their behalf does not do without.
pub fn to_origin_form<B>(request: &mut Request<B>, fallback: impl FnOnce() -> String) {
    let Some(authority) = request.uri().authority() else {
        if request.version() != Version::HTTP_11
            && !request.headers().contains_key(HOST)
            && let Ok(host) = HeaderValue::try_from(fallback())
        {
            request.headers_mut().insert(HOST, host);
        }
        return;
    };
    if let Ok(host) = HeaderValue::from_str(without_userinfo(authority)) {
        request.headers_mut().insert(HOST, host);
    }
    let path = match request.uri().path_and_query() {
        Some(path) if !path.as_str().is_empty() => path.clone(),
        _ => PathAndQuery::from_static("/"),
    };
    *request.uri_mut() = Uri::from(path);
}

/// Puts a request's target into the form that HTTP/2 carries as pseudo-headers. `fallback` is the authority for
/// requests that name none.
pub fn to_http2_form<B>(request: &mut Request<B>, scheme: Scheme, fallback: &str) {
    let named = authority(request).parse::<Authority>().or_else(|_| fallback.parse());
    let Ok(authority) = named else {
        return;
    };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(scheme);
    parts.authority = Some(authority);
    parts.path_and_query = Some(parts.path_and_query.unwrap_or(PathAndQuery::from_static("/")));
    // All three parts are set, which is the one thing `from_parts` can complain about.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request.headers_mut().remove(HOST);
    *request.version_mut() = Version::HTTP_2;
}

fn without_userinfo(authority: &Authority) -> &str {
    let text = authority.as_str();
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, host: Option<&str>) -> Request<()> {
        let mut builder = Request::builder().uri(uri);
        if let Some(host) = host {
            builder = builder.header(HOST, host);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn an_absolute_target_overrules_host() {
        let mut asked = request("http://user:pw@shop.example:81/a/../b?x=%2F&&", Some("other"));
        assert_eq!(authority(&asked), "shop.example:81", "a password is nobody else's business");
        to_origin_form(&mut asked, || unreachable!("it has one"));
        assert_eq!(asked.uri().to_string(), "/a/../b?x=%2F&&");
        assert_eq!(asked.headers()[HOST], "shop.example:81");
    }

    #[test]
    fn an_origin_form_target_is_left_as_it_is() {
        let mut asked = request("/a//b?", Some("shop"));
        to_origin_form(&mut asked, || unreachable!("it has one"));
        assert_eq!(asked.uri().to_string(), "/a//b?");
        assert_eq!(asked.headers()[HOST], "shop");
    }

    #[test]
    fn a_host_is_given_only_to_those_who_need_none() {
        let mut asked = request("/", None);
        to_origin_form(&mut asked, || "shop:3000".to_owned());
        assert!(asked.headers().is_empty(), "HTTP/1.1 without Host is for the service to refuse");
        *asked.version_mut() = Version::HTTP_10;
        to_origin_form(&mut asked, || "shop:3000".to_owned());
        assert_eq!(asked.headers()[HOST], "shop:3000");
    }

    #[test]
    fn http2_gets_its_authority_from_host_or_else_from_the_upstream() {
        let mut asked = request("/x", Some("shop"));
        to_http2_form(&mut asked, Scheme::HTTP, "127.0.0.1:3000");
        assert_eq!(asked.uri().to_string(), "http://shop/x");
        assert!(asked.headers().is_empty());
        let mut asked = request("/x", None);
        to_http2_form(&mut asked, Scheme::HTTP, "127.0.0.1:3000");
        assert_eq!(asked.uri().to_string(), "http://127.0.0.1:3000/x");
    }
}
