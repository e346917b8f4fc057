//! What a proxy has to know of gRPC: which requests are calls, which methods there are, and what statuses mean that no service
//! has written.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// gRPC status codes by number; the names are those of `rpc.response.status_code` (RPC-5).
pub const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Its number is its place in [`GRPC_STATUS`]; so are those below.
pub const CANCELLED: u8 = 1;
/// What nobody can say.
pub const UNKNOWN: u8 = 2;
/// It took too long.
pub const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
/// The service knows no such method.
pub const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
/// It may be there again in a moment.
pub const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

/// Whether content of this type is that of a call. Calls of gRPC-Web are none: their trailers are in their content.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let (kind, rest) = content_type.split_at(content_type.len().min(GRPC.len()));
    kind.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' ' | b'\t'))
}

/// The status of a response that has none of its own (RPC-12).
pub fn of_http(status: u16) -> u8 {
    match status {
        400 | 431 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The status of a stream that was reset with this code of HTTP/2 (RPC-13).
pub fn of_reset(code: u32) -> u8 {
    match code {
        0x7 => UNAVAILABLE,
        0x8 => CANCELLED,
        0xb => RESOURCE_EXHAUSTED,
        0xc => PERMISSION_DENIED,
        _ => INTERNAL,
    }
}

/// Reads `grpc-timeout`: at most eight digits and a unit. `None` for what is no such thing.
pub fn timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let amount = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(amount * 3600)),
        b'M' => Some(Duration::from_secs(amount * 60)),
        b'S' => Some(Duration::from_secs(amount)),
        b'm' => Some(Duration::from_millis(amount)),
        b'u' => Some(Duration::from_micros(amount)),
        b'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// How much is known of the method of a call. Anybody can ask for any method, so a name is not believed to be one (RPC-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RpcMethod {
    /// The settings name it.
    Listed,
    /// The settings name its service, which may say that it knows no such method.
    OfListedService,
    /// Nothing.
    Other,
}

/// The methods that spans name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcMethods {
    /// Paths, each with itself to be shared.
    methods: HashMap<Box<str>, Arc<str>>,
    services: HashSet<Box<str>>,
}

impl RpcMethods {
    /// Those of `pkg.Service/Method` and `pkg.Service/*`.
    pub fn new<'t>(given: impl IntoIterator<Item = &'t str>) -> Self {
        let mut known = Self::default();
        for text in given {
            match text.strip_suffix("/*") {
                Some(service) => drop(known.services.insert(service.into())),
                None => {
                    let path: Arc<str> = format!("/{text}").into();
                    known.methods.insert((&*path).into(), path);
                }
            }
        }
        known
    }

    /// What is known of the method of a call to `path`, and the path where it is fit to tell calls apart.
    pub fn find(&self, path: &str) -> (RpcMethod, Option<Arc<str>>) {
        if let Some(path) = self.methods.get(path) {
            return (RpcMethod::Listed, Some(path.clone()));
        }
        let service = || path.strip_prefix('/')?.rsplit_once('/').map(|(service, _)| service);
        match !self.services.is_empty() && service().is_some_and(|service| self.services.contains(service)) {
            true => (RpcMethod::OfListedService, Some(path.into())),
            false => (RpcMethod::Other, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(status: u8) -> &'static str {
        GRPC_STATUS[usize::from(status)]
    }

    #[test]
    fn calls_are_told_by_their_content_type() {
        for is in ["application/grpc", "Application/gRPC+proto", "application/grpc; charset=x"] {
            assert!(is_grpc(is.as_bytes()), "{is}");
        }
        for is_not in
            ["", "application/grp", "application/grpc-web", "application/grpc-web+proto", "application/json"]
        {
            assert!(!is_grpc(is_not.as_bytes()), "{is_not}");
        }
    }

    #[test]
    fn a_response_without_status_has_that_of_its_http_status() {
        let all = [
            (200, "UNKNOWN"),
            (204, "UNKNOWN"),
            (302, "UNKNOWN"),
            (400, "INTERNAL"),
            (401, "UNAUTHENTICATED"),
            (403, "PERMISSION_DENIED"),
            (404, "UNIMPLEMENTED"),
            (429, "UNAVAILABLE"),
            (431, "INTERNAL"),
            (500, "UNKNOWN"),
            (502, "UNAVAILABLE"),
            (503, "UNAVAILABLE"),
            (504, "UNAVAILABLE"),
        ];
        for (status, expected) in all {
            assert_eq!(name(of_http(status)), expected, "RPC-12: {status}");
        }
    }

    #[test]
    fn a_reset_stream_has_the_status_of_its_code() {
        let all =
            [(7, "UNAVAILABLE"), (8, "CANCELLED"), (11, "RESOURCE_EXHAUSTED"), (12, "PERMISSION_DENIED")];
        for code in 0..20 {
            let other = all.iter().find(|(known, _)| *known == code).map_or("INTERNAL", |(_, name)| name);
            assert_eq!(name(of_reset(code)), other, "RPC-13: {code}");
        }
    }

    #[test]
    fn a_timeout_has_a_unit_and_at_most_eight_digits() {
        let seconds = |text: &str| timeout(text.as_bytes()).map(|time| time.as_secs_f64());
        assert_eq!(seconds("99999999H"), Some(99_999_999.0 * 3600.0));
        assert_eq!((seconds("2M"), seconds("3S")), (Some(120.0), Some(3.0)));
        assert_eq!((seconds("250m"), seconds("0n")), (Some(0.25), Some(0.0)));
        assert_eq!((seconds("5u"), seconds("7n")), (Some(5e-6), Some(7e-9)));
        for bad in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", " 1S", "1SS", "١S"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn methods_are_known_by_name_or_by_their_service() {
        let methods = RpcMethods::new(["shop.Cart/Add", "shop.Stock/*"]);
        let find = |path| {
            let (known, path) = methods.find(path);
            (known, path.as_deref().map(str::to_owned))
        };
        let of = |path: &str| Some(path.to_owned());
        assert_eq!(find("/shop.Cart/Add"), (RpcMethod::Listed, of("/shop.Cart/Add")));
        assert_eq!(find("/shop.Stock/Get"), (RpcMethod::OfListedService, of("/shop.Stock/Get")));
        for other in ["/shop.Cart/Take", "shop.Cart/Add", "/shop.Stock", "/x/shop.Stock/Get", "/", ""] {
            assert_eq!(find(other), (RpcMethod::Other, None), "{other}");
        }
    }
}
