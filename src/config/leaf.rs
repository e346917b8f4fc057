//! Scalars with a meaning: durations, sizes, addresses, names. Those of HTTP are in `web`.
//!
//! Each is parsed once, here, into the type that the program uses. Nothing in this file knows a key.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use super::excerpt::Seen;
use super::problem::quote;
use super::sentry::Traces;
use super::value::Form;
use super::{ClientAuth, HalfClose, LogFormat, OtlpProtocol, TlsVersion, Trust};
use crate::exchange::Method;
use crate::propagation::{Format, Generate};
use crate::wire::forwarded::Family;
use crate::wire::forwarded::tell::Policy;

/// Longest wait that can be set: a deadline that far ahead never overflows a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// A scalar with a meaning.
pub(super) trait Leaf: Sized {
    /// What it is, after "write": `a duration such as 500ms or 10s`.
    const WHAT: &'static str;
    /// What it looks like, for editors.
    const FORM: Form = Form::Text(None);
    /// Whether YAML's own type matters, so that it cannot stand in quotes.
    const BARE: bool = false;
    /// What excerpts of the file show of it.
    const SEEN: Seen = Seen::All;

    /// All texts that it can be, where they are few.
    fn names() -> Vec<&'static str> {
        Vec::new()
    }

    /// What `text` stands for. `text` is never empty.
    fn parse(text: &str) -> Result<Self, Wrong>;

    /// The text that stands for it, or a mask where that is a secret.
    fn show(&self) -> String;

    /// A hash of what [`show`](Self::show) masks, by which two secrets are compared.
    fn hidden(&self) -> Option<u64> {
        None
    }
}

/// A hash with a key of this process: it tells whether two secrets are the same, and nothing else.
pub(super) fn hashed(secret: &[u8]) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(secret)
}

/// Why a text is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What is wrong with it; quotes it unless it is secret.
    pub message: String,
    /// What to write instead.
    pub instead: String,
}

pub(super) fn wrong<T>(message: impl Into<String>, instead: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { message: message.into(), instead: instead.into() })
}

/// Types that are one of a few names.
macro_rules! names {
    ($( $type:ty { $($name:literal => $value:expr),+ $(,)? } )+) => { $(
        impl Leaf for $type {
            const WHAT: &'static str = concat!("one of these:" $(, " ", $name)+);

            fn names() -> Vec<&'static str> {
                vec![$($name),+]
            }

            fn parse(text: &str) -> Result<Self, Wrong> {
                match text {
                    $($name => Ok($value),)+
                    _ => wrong(format!("{} is not known here", quote(text)), nearest(text, &[$($name),+])),
                }
            }

            fn show(&self) -> String {
                let mut name = "";
                $(if *self == $value { name = $name; })+
                name.to_owned()
            }
        }
    )+ };
}

fn nearest(text: &str, names: &[&str]) -> String {
    let meant: String = text.chars().take(64).collect::<String>().to_lowercase();
    let near = names.iter().map(|name| (strsim::damerau_levenshtein(&meant, name), name)).min();
    match near {
        Some((distance, name)) if distance <= (name.len() / 3).max(1) => format!("write {name}"),
        _ => format!("write one of {}", names.join(", ")),
    }
}

/// A sampler's name, as `OTEL_TRACES_SAMPLER` has it (SMP-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SamplerName {
    AlwaysOn,
    AlwaysOff,
    Ratio,
    ParentAlwaysOn,
    ParentAlwaysOff,
    ParentRatio,
}

/// Which query values are hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redact {
    All,
    Known,
    Off,
}

/// Whether OTLP requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    None,
}

/// Whether spans go to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConsoleMode {
    Auto,
    On,
    Off,
}

/// A format, or none for `none`, as `OTEL_PROPAGATORS` has them (PROP-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Propagator(pub Option<Format>);

names! {
    SamplerName {
        "always_on" => SamplerName::AlwaysOn,
        "always_off" => SamplerName::AlwaysOff,
        "traceidratio" => SamplerName::Ratio,
        "parentbased_always_on" => SamplerName::ParentAlwaysOn,
        "parentbased_always_off" => SamplerName::ParentAlwaysOff,
        "parentbased_traceidratio" => SamplerName::ParentRatio,
    }
    Redact { "all" => Redact::All, "known" => Redact::Known, "off" => Redact::Off }
    Compression { "gzip" => Compression::Gzip, "none" => Compression::None }
    ConsoleMode { "auto" => ConsoleMode::Auto, "on" => ConsoleMode::On, "off" => ConsoleMode::Off }
    OtlpProtocol { "http/protobuf" => OtlpProtocol::HttpProtobuf, "grpc" => OtlpProtocol::Grpc }
    TlsVersion { "TLSv1.2" => TlsVersion::Tls12, "TLSv1.3" => TlsVersion::Tls13 }
    ClientAuth { "none" => ClientAuth::None, "optional" => ClientAuth::Optional, "required" => ClientAuth::Required }
    Family { "x_forwarded" => Family::XForwarded, "forwarded" => Family::Forwarded }
    Policy {
        "append" => Policy::Append,
        "set" => Policy::Set,
        "pass" => Policy::Pass,
        "strip" => Policy::Strip,
    }
    HalfClose { "serve" => HalfClose::Serve, "cancel" => HalfClose::Cancel }
    Traces {
        "auto" => Traces::Auto,
        "transactions" => Traces::Transactions,
        "otlp" => Traces::Otlp,
        "off" => Traces::Off,
    }
    LogFormat { "json" => LogFormat::Json, "text" => LogFormat::Text }
    Propagator {
        "tracecontext" => Propagator(Some(Format::TraceContext)),
        "baggage" => Propagator(Some(Format::Baggage)),
        "b3" => Propagator(Some(Format::B3)),
        "b3multi" => Propagator(Some(Format::B3Multi)),
        "jaeger" => Propagator(Some(Format::Jaeger)),
        "xray" => Propagator(Some(Format::XRay)),
        "datadog" => Propagator(Some(Format::Datadog)),
        "sentry-trace" => Propagator(Some(Format::SentryTrace)),
        "none" => Propagator(None),
    }
    Trust { "continue" => Trust::Continue, "sample" => Trust::Sample, "restart" => Trust::Restart }
    Method {
        "correlation" => Method::Correlation,
        "token" => Method::Token,
        "process" => Method::Process,
        "sole" => Method::Sole,
    }
    Generate { "trace_id" => Generate::TraceId, "uuidv7" => Generate::UuidV7 }
}

impl Leaf for bool {
    const WHAT: &'static str = "true or false";
    const FORM: Form = Form::Truth;
    const BARE: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text {
            "true" | "True" | "TRUE" => Ok(true),
            "false" | "False" | "FALSE" => Ok(false),
            "yes" | "on" | "1" => wrong(format!("{} is not true or false", quote(text)), "write true"),
            "no" | "off" | "0" => wrong(format!("{} is not true or false", quote(text)), "write false"),
            _ => wrong(format!("{} is not true or false", quote(text)), "write true or false"),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Leaf for String {
    const WHAT: &'static str = "text";

    fn parse(text: &str) -> Result<Self, Wrong> {
        Ok(text.to_owned())
    }

    fn show(&self) -> String {
        self.clone()
    }
}

impl Leaf for PathBuf {
    const WHAT: &'static str = "the path of a file";
    const SEEN: Seen = Seen::Path;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if text.contains('\0') {
            return wrong("a path cannot hold a zero character", "write the path of a file");
        }
        // What belongs into the file, such as a key in PEM. No path that anybody means has several lines.
        if text.contains('\n') {
            return wrong("a path cannot hold a line break", "write the path of a file");
        }
        Ok(text.into())
    }

    fn show(&self) -> String {
        self.to_string_lossy().into_owned()
    }
}

/// A whole number from 1 to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count<const MAX: usize>(pub usize);

impl<const MAX: usize> Leaf for Count<MAX> {
    const WHAT: &'static str = "a whole number from 1";
    const FORM: Form = Form::Whole { min: 1, max: MAX };
    const BARE: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.parse() {
            Ok(number) if (1..=MAX).contains(&number) => Ok(Self(number)),
            _ => wrong(
                format!("{} is not a whole number from 1 to {MAX}", quote(text)),
                format!("write a number from 1 to {MAX}"),
            ),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A whole number up to `MAX`, where 0 is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit<const MAX: usize>(pub usize);

impl<const MAX: usize> Leaf for Limit<MAX> {
    const WHAT: &'static str = "a whole number, or 0 for no bound";
    const FORM: Form = Form::Whole { min: 0, max: MAX };
    const BARE: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        match text.parse() {
            Ok(number) if number <= MAX => Ok(Self(number)),
            _ => wrong(
                format!("{} is not a whole number from 0 to {MAX}", quote(text)),
                format!("write a number from 1 to {MAX}, or 0 for no bound"),
            ),
        }
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio(pub f64);

impl Leaf for Ratio {
    const WHAT: &'static str = "a share from 0 to 1, such as 0.1";
    const FORM: Form = Form::Share;
    const BARE: bool = true;

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some(percent) = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok()) {
            let instead = format!("write {}", percent / 100.0);
            return wrong(format!("{} is a percentage", quote(text)), instead);
        }
        match text.parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => Ok(Self(share)),
            _ => {
                wrong(format!("{} is not a share from 0 to 1", quote(text)), "write 0.1 for one trace in ten")
            }
        }
    }

    fn show(&self) -> String {
        format!("{:?}", self.0)
    }
}

/// Reads a duration as the configuration writes it: `500ms`, `10s`, `5m`.
///
/// # Errors
/// Says what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    Duration::parse(text).map_err(|wrong| format!("{}: {}", wrong.message, wrong.instead))
}

impl Leaf for Duration {
    const WHAT: &'static str = "a duration such as 500ms, 10s or 5m";
    const FORM: Form = Form::Text(Some("^[0-9]+(ms|s|m|h)$"));

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (number, unit) =
            text.split_at(text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len()));
        let refused = |instead: String| wrong(format!("{} is not a duration", quote(text)), instead);
        if text.starts_with('-') {
            return refused("durations are not negative: write one such as 10s".to_owned());
        }
        let Ok(number) = number.parse::<u64>() else {
            return refused("write one such as 500ms, 10s or 5m".to_owned());
        };
        let milliseconds = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1_000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            "" => return refused(format!("add a unit: {number}s, {number}ms, {number}m or {number}h")),
            _ => {
                return refused(meant(text).map_or_else(
                    || "write one whole number and one unit: ms, s, m or h".to_owned(),
                    |meant| format!("write {meant}"),
                ));
            }
        };
        match milliseconds.map(Duration::from_millis) {
            Some(duration) if duration <= LONGEST => Ok(duration),
            _ => refused("the longest is 8760h, a year".to_owned()),
        }
    }

    fn show(&self) -> String {
        let milliseconds = self.as_millis();
        match [(3_600_000, "h"), (60_000, "m"), (1_000, "s")]
            .iter()
            .find(|(size, _)| milliseconds > 0 && milliseconds.is_multiple_of(*size))
        {
            Some((size, unit)) => format!("{}{unit}", milliseconds / size),
            None if milliseconds == 0 => "0s".to_owned(),
            None => format!("{milliseconds}ms"),
        }
    }
}

/// The duration that somebody meant who wrote `10sec`, `5 min`, `1.5s` or `2 days`.
fn meant(text: &str) -> Option<String> {
    let number_ends = text.find(|char: char| !char.is_ascii_digit() && char != '.')?;
    let (number, unit) = text.split_at(number_ends);
    let milliseconds = match unit.trim().to_ascii_lowercase().as_str() {
        "ms" | "msec" | "msecs" | "millis" | "millisecond" | "milliseconds" => 1.0,
        "s" | "sec" | "secs" | "second" | "seconds" => 1e3,
        "m" | "min" | "mins" | "minute" | "minutes" => 60e3,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600e3,
        "d" | "day" | "days" => 24.0 * 3_600e3,
        _ => return None,
    };
    let milliseconds = number.parse::<f64>().ok()? * milliseconds;
    let whole = milliseconds >= 1.0 && milliseconds.fract() == 0.0 && milliseconds <= 1e12;
    // Checked to be a whole number that fits.
    whole.then(|| Duration::from_millis(milliseconds as u64).show())
}

/// A duration that is longer than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait(pub Duration);

impl Leaf for Wait {
    const WHAT: &'static str = Duration::WHAT;
    const FORM: Form = Form::Text(Some("^0*[1-9][0-9]*(ms|s|m|h)$"));

    fn parse(text: &str) -> Result<Self, Wrong> {
        let duration = Duration::parse(text)?;
        match duration.is_zero() {
            true => wrong(
                format!("{} would end every wait at once", quote(text)),
                "write how long to wait; there is no waiting without a bound",
            ),
            false => Ok(Self(duration)),
        }
    }

    fn show(&self) -> String {
        self.0.show()
    }
}

/// A size in bytes, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub usize);

impl Leaf for Bytes {
    const WHAT: &'static str = "a size such as 64KiB or 16MiB";
    const FORM: Form = Form::Text(Some("^0*[1-9][0-9]*(B|KiB|MiB|GiB)$"));

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (number, unit) =
            text.split_at(text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len()));
        let refused = |instead: String| wrong(format!("{} is not a size", quote(text)), instead);
        let Ok(count) = number.parse::<usize>() else {
            return refused("write one such as 64KiB or 16MiB".to_owned());
        };
        let size = match unit {
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "" => return refused(format!("add a unit: {number}B, {number}KiB, {number}MiB or {number}GiB")),
            _ => {
                let binary = match unit.trim_start().chars().next().map(|first| first.to_ascii_uppercase()) {
                    Some('K') => "KiB",
                    Some('M') => "MiB",
                    Some('G') => "GiB",
                    _ => {
                        return refused("write one whole number and one unit: B, KiB, MiB or GiB".to_owned());
                    }
                };
                return refused(format!("write {number}{binary}"));
            }
        };
        // Half of the address space, so that sums of sizes stay numbers.
        match count.checked_mul(size) {
            Some(bytes) if (1..=usize::MAX / 2).contains(&bytes) => Ok(Self(bytes)),
            Some(0) => refused("write at least 1B".to_owned()),
            _ => refused("write a size that fits in memory".to_owned()),
        }
    }

    fn show(&self) -> String {
        match [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
            .iter()
            .find(|(size, _)| self.0.is_multiple_of(*size))
        {
            Some((size, unit)) => format!("{}{unit}", self.0 / size),
            None => format!("{}B", self.0),
        }
    }
}

impl Leaf for SocketAddr {
    const WHAT: &'static str = "an address and port such as 0.0.0.0:8080";
    const FORM: Form = Form::Text(Some("^[0-9a-fA-F.:\\[\\]%]+:[0-9]{1,5}$"));

    fn parse(text: &str) -> Result<Self, Wrong> {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let message = format!("{} is not an address and port", quote(text));
        if let Ok(address) = text.parse::<IpAddr>() {
            return wrong(message, format!("add the port: {}", SocketAddr::new(address, 8080)));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let port: Option<u16> = port.parse().ok();
        match (host, port) {
            ("" | "*", Some(port)) => wrong(message, format!("write 0.0.0.0:{port}")),
            ("localhost", Some(port)) => wrong(message, format!("write 127.0.0.1:{port}")),
            ("http" | "https", _) => wrong(message, "write 0.0.0.0:8080: an address has no scheme"),
            (_, Some(port)) if text.contains("://") => {
                wrong(message, format!("leave the scheme out: write 0.0.0.0:{port}"))
            }
            (host, Some(_)) if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
                wrong(message, "write four numbers from 0 to 255, as in 10.0.0.1:8080")
            }
            (_, Some(port)) => wrong(
                message,
                format!("names cannot be listened on: write an address such as 0.0.0.0:{port}"),
            ),
            _ => wrong(message, "write one such as 0.0.0.0:8080, with a port below 65536"),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instead<T: Leaf + std::fmt::Debug>(text: &str) -> String {
        T::parse(text).expect_err(text).instead
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, milliseconds) in
            [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("2h", 7_200_000), ("0s", 0)]
        {
            let duration = Duration::parse(text).unwrap();
            assert_eq!(duration, Duration::from_millis(milliseconds));
            assert_eq!(duration.show(), text);
        }
        assert!(instead::<Duration>("10").contains("10s"));
        for text in ["", "s", "1.5s", "1m30s", "-1s", "10 s", "9999999h", "99999999999999999999ms", "١s"] {
            assert!(Duration::parse(text).is_err(), "{text}");
        }
        assert!(Wait::parse("0s").is_err());
    }

    #[test]
    fn sizes_are_a_number_and_a_binary_unit() {
        for (text, bytes) in [("64KiB", 65_536), ("1MiB", 1 << 20), ("3GiB", 3 << 30), ("100B", 100)] {
            let size = Bytes::parse(text).unwrap();
            assert_eq!(size.0, bytes);
            assert_eq!(size.show(), text);
        }
        assert_eq!(instead::<Bytes>("16MB"), "write 16MiB");
        assert_eq!(instead::<Bytes>("64k"), "write 64KiB");
        for text in ["0B", "99999999999999GiB", "MiB", "1.5MiB", "5 apples"] {
            assert!(Bytes::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_written_another_way_are_answered_with_ours() {
        let cases = [
            (":8080", "write 0.0.0.0:8080"),
            ("8080", "write 0.0.0.0:8080"),
            ("localhost:8080", "write 127.0.0.1:8080"),
            ("10.0.0.1", "add the port: 10.0.0.1:8080"),
            ("::1", "add the port: [::1]:8080"),
            ("http://0.0.0.0:8080", "leave the scheme out: write 0.0.0.0:8080"),
        ];
        for (text, expected) in cases {
            assert_eq!(instead::<SocketAddr>(text), expected, "{text}");
        }
    }

    #[test]
    fn shares_are_not_percentages() {
        assert_eq!(instead::<Ratio>("10%"), "write 0.1");
        for text in ["2", "-0.1", "NaN", "inf", "half"] {
            assert!(Ratio::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_nearly_right_is_named() {
        assert_eq!(instead::<SamplerName>("always-on"), "write always_on");
        assert_eq!(instead::<OtlpProtocol>("http"), "write one of http/protobuf, grpc");
        for name in SamplerName::names() {
            assert_eq!(SamplerName::parse(name).unwrap().show(), name);
        }
    }
}
