//! Who may ask for what changes something, or tells more than health and metrics.

use std::net::IpAddr;

use http::header::{self, AUTHORIZATION, HeaderMap, ORIGIN};
use http::uri::Authority;
use http::{HeaderName, StatusCode};
use subtle::ConstantTimeEq;

use super::{Page, plain, with};
use crate::config::AdminToken;

/// Who can reach the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenTo {
    /// They listen on loopback.
    ThisHost,
    Others,
}

/// Set by browsers on requests that a page of another site makes.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The answer to a request that does not bring the token and needs it, or that no request of this kind should get; `None` lets
/// it pass.
pub(super) fn refuse(token: Option<&AdminToken>, open_to: OpenTo, headers: &HeaderMap) -> Option<Page> {
    match token {
        Some(token) => match given(headers) {
            Some(given) if bool::from(given.ct_eq(token.as_bytes())) => None,
            _ => {
                let page = plain(
                    StatusCode::UNAUTHORIZED,
                    "this needs the token of admin.token_file: Authorization: Bearer TOKEN\n",
                );
                Some(with(page, header::WWW_AUTHENTICATE, "Bearer"))
            }
        },
        None if open_to == OpenTo::Others => Some(plain(
            StatusCode::FORBIDDEN,
            "these pages can be reached from other hosts, so this needs a token: write one to a file, and its name to \
             admin.token_file\n",
        )),
        // A page in a browser on this host is not somebody on this host.
        None if headers.contains_key(ORIGIN) || of_another_site(headers) => {
            Some(plain(StatusCode::FORBIDDEN, "this is not for pages in a browser\n"))
        }
        // Whoever answers for a name in DNS can have it lead to this host, and a page of that name then asks for its own.
        None if !names_this_host(headers) => Some(plain(
            StatusCode::FORBIDDEN,
            "ask for localhost or an address: by another name anybody's page in a browser could ask, too\n",
        )),
        None => None,
    }
}

fn given(headers: &HeaderMap) -> Option<&[u8]> {
    let given = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = given.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Whether the host that is asked for is an address, or the name that leads here wherever it is asked for. HTTP/1.0 names none.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

fn of_another_site(headers: &HeaderMap) -> bool {
    let site = headers.get(SEC_FETCH_SITE).and_then(|site| site.to_str().ok());
    site.is_some_and(|site| site != "none" && site != "same-origin")
}
