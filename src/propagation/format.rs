//! The formats by name.

use std::str::FromStr;

/// One way to write a context into headers, named as in `OTEL_PROPAGATORS` (PROP-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `tracecontext`: the headers `traceparent` and `tracestate` of W3C Trace Context, level 2.
    TraceContext,
    /// `baggage`: the W3C header of that name, which we check and count but pass on byte for byte (BAG-6).
    Baggage,
    /// `b3`: Zipkin's one header of that name. It is read from `x-b3-…` as well (B3-1).
    B3,
    /// `b3multi`: Zipkin's several headers, `x-b3-…`. It is read from `b3` as well (B3-1).
    B3Multi,
    /// `jaeger`: the header `uber-trace-id`. The baggage in `uberctx-…` passes as it is (JAE-2).
    Jaeger,
    /// `xray`: the header `x-amzn-trace-id` of AWS (XR-1).
    XRay,
    /// `datadog`: the headers `x-datadog-…` (DD-1).
    Datadog,
    /// `sentry-trace`: the header of that name. Sentry's part of `baggage` passes as it is (SEN-41).
    SentryTrace,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 8] = [
        Format::TraceContext,
        Format::Baggage,
        Format::B3,
        Format::B3Multi,
        Format::Jaeger,
        Format::XRay,
        Format::Datadog,
        Format::SentryTrace,
    ];

    /// The name in `OTEL_PROPAGATORS`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::TraceContext => "tracecontext",
            Format::Baggage => "baggage",
            Format::B3 => "b3",
            Format::B3Multi => "b3multi",
            Format::Jaeger => "jaeger",
            Format::XRay => "xray",
            Format::Datadog => "datadog",
            Format::SentryTrace => "sentry-trace",
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    /// Finds a format by its name, in any case (ENV-20). The caller removes white space, and treats `none`.
    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        Format::ALL
            .into_iter()
            .find(|format| format.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// A name that no [`Format`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown propagation format {0:?}: use one of {names}", names = Format::ALL.map(Format::as_str).join(", "))]
pub struct UnknownFormat(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_in_any_case() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse(), Ok(format));
            assert_eq!(format.as_str().to_uppercase().parse(), Ok(format));
        }
    }

    #[test]
    fn an_unknown_name_is_told_with_those_that_exist() {
        let error = "zipkin".parse::<Format>().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"unknown propagation format "zipkin": use one of tracecontext, baggage, b3, b3multi, jaeger, xray, datadog, sentry-trace"#
        );
    }
}
