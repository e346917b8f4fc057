//! What the keys of failures and of Sentry hold, and what is made of them.

use std::ops::RangeInclusive;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Uri};

use super::excerpt::Seen;
use super::file::{self, File};
use super::leaf::{Leaf, Wrong, hashed, wrong};
use super::problem::quote;
use super::value::Form;
use super::{Otlp, OtlpProtocol, OtlpTls, Queue, Sentry};
use crate::exchange::{Chosen, Keeping};

/// How requests get to Sentry as performance data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traces {
    Auto,
    Transactions,
    Otlp,
    Off,
}

/// A DSN: `{scheme}://{public key}[:{secret}]@{host}{path}/{project}` (SEN-1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dsn(pub Uri);

impl Dsn {
    /// The part before the `@`: the key that clients show.
    fn key(&self) -> &str {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        user.split(':').next().unwrap_or_default()
    }

    fn host(&self) -> &str {
        let authority = self.0.authority().map_or("", |authority| authority.as_str());
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }

    /// What stands before the project in the path, and the project.
    fn project(&self) -> (&str, &str) {
        self.0.path().trim_end_matches('/').rsplit_once('/').unwrap_or_default()
    }
}

impl Leaf for Dsn {
    const WHAT: &'static str = "a DSN such as https://public@sentry.example/1";
    const FORM: Form = Form::Text(Some("^[hH][tT][tT][pP][sS]?://[^@/]+@"));
    const SEEN: Seen = Seen::Url;

    fn parse(text: &str) -> Result<Self, Wrong> {
        let refused = |what: &str| {
            let shown = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
            let shown: String = shown.chars().filter(|char| !char.is_control()).take(80).collect();
            let instead = "copy it from Settings > Client Keys (DSN) of the project in Sentry";
            wrong(format!("{} {what}", quote(&shown)), instead)
        };
        let Ok(uri) = text.trim().parse::<Uri>() else { return refused("is not a DSN") };
        let dsn = Self(uri);
        match dsn.0.scheme_str() {
            Some("http" | "https") => {}
            _ => return refused("is neither http:// nor https://"),
        }
        if dsn.0.host().is_none_or(str::is_empty) {
            return refused("has no host");
        }
        if dsn.key().is_empty() {
            return refused("has no key before an @");
        }
        let (_, project) = dsn.project();
        if project.is_empty() || !project.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return refused("does not end with a project's number");
        }
        Ok(dsn)
    }

    /// Without the keys: the public one lets anybody send events.
    fn show(&self) -> String {
        format!("{}://***@{}{}", self.0.scheme_str().unwrap_or_default(), self.host(), self.0.path())
    }

    fn hidden(&self) -> Option<u64> {
        Some(hashed(self.0.to_string().as_bytes()))
    }
}

/// One status, or all from one to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StatusRange(pub RangeInclusive<u16>);

impl Leaf for StatusRange {
    const WHAT: &'static str = "a status such as 409, or statuses such as 400-499";

    fn parse(text: &str) -> Result<Self, Wrong> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number =
            |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            (Some(first), Some(last)) => {
                wrong(format!("{} ends before it begins", quote(text)), format!("write {last}-{first}"))
            }
            _ => wrong(format!("{} is not a status", quote(text)), format!("write {}", Self::WHAT)),
        }
    }

    fn show(&self) -> String {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    }
}

/// What is kept of exchanges that fail.
pub(super) fn keeping(file: &File) -> Keeping {
    let rule = |rule: &file::StatusRule| {
        let route: Option<Arc<str>> = rule.route.as_ref().map(|template| template.0.as_str().into());
        Chosen { route, statuses: rule.status.iter().map(|range| range.0.clone()).collect() }
    };
    Keeping {
        content: file.failures.read_content,
        headers: file.sentry.dsn.is_some(),
        chosen: file.failures.statuses.iter().map(rule).collect(),
    }
}

/// The organization whose DSN it is, where its host says so: `o42.ingest.sentry.io` (SEN-44).
pub(super) fn organization(file: &File) -> Option<Arc<str>> {
    let host = file.sentry.dsn.as_ref()?.0.host()?;
    let number = host.split('.').next()?.strip_prefix('o')?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| number.into())
}

/// Sentry, where there is a DSN. `exported` says that spans are exported by OTLP.
pub(super) fn sentry(file: &File, exported: bool) -> Option<Sentry> {
    let file::Sentry { dsn, traces, .. } = &file.sentry;
    let transactions = match traces {
        Traces::Auto => !exported,
        Traces::Transactions => true,
        Traces::Otlp | Traces::Off => false,
    };
    let given =
        |own: &Option<String>, of_service: &Option<String>| own.clone().or_else(|| of_service.clone());
    Some(Sentry {
        dsn: dsn.as_ref()?.0.clone(),
        environment: given(&file.sentry.environment, &file.service.environment)
            .unwrap_or_else(|| "production".to_owned()),
        release: given(&file.sentry.release, &file.service.version),
        sample_rate: file.sentry.sample_rate.0,
        traces_sample_rate: if transactions { file.sentry.traces_sample_rate.0 } else { 0.0 },
        calls: file.sentry.calls,
        slow: file.sentry.slow,
        max_per_group: file.sentry.max_per_group.0,
        max_events: file.sentry.max_events.0,
        certificate: file.sentry.certificate.clone(),
    })
}

/// Sentry's endpoint for OTLP (SEN-32), where spans are to go there.
pub(super) fn otlp(file: &File) -> Option<Otlp> {
    let dsn = file.sentry.dsn.as_ref().filter(|_| file.sentry.traces == Traces::Otlp)?;
    let (path, project) = dsn.project();
    let endpoint = Uri::builder()
        .scheme(dsn.0.scheme_str()?)
        .authority(dsn.host())
        .path_and_query(format!("{path}/api/{project}/integration/otlp/v1/traces/"))
        .build()
        .ok()?;
    let key = HeaderValue::try_from(format!("sentry sentry_key={}, sentry_version=7", dsn.key())).ok()?;
    let queue = &file.export.otlp.queue;
    Some(Otlp {
        endpoint,
        protocol: OtlpProtocol::HttpProtobuf,
        headers: vec![(HeaderName::from_static("x-sentry-auth"), key)],
        gzip: true,
        timeout: file.export.otlp.timeout,
        tls: OtlpTls { certificate: file.sentry.certificate.clone(), client: None },
        queue: Queue {
            max_spans: queue.max_spans.0,
            max_bytes: queue.max_bytes.0,
            max_batch: queue.max_batch.value.0,
            schedule_delay: queue.schedule_delay,
            export_timeout: queue.export_timeout,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{load, minimal};
    use super::*;

    #[test]
    fn a_dsn_is_shown_without_its_keys() {
        let dsn = Dsn::parse("https://public:secret@o1.sentry.example:9000/self/hosted/42").unwrap();
        assert_eq!(dsn.show(), "https://***@o1.sentry.example:9000/self/hosted/42");
        assert_eq!(
            (dsn.key(), dsn.host(), dsn.project()),
            ("public", "o1.sentry.example:9000", ("/self/hosted", "42"))
        );
    }

    #[test]
    fn what_is_no_dsn_is_refused_without_a_key_in_the_message() {
        for text in [
            "public@host/1",
            "ftp://key@host/1",
            "https://host/1",
            "https://key@/1",
            "https://key@host/",
            "https://@h/1",
        ] {
            let Wrong { message, .. } = Dsn::parse(text).unwrap_err();
            assert!(!message.contains("key@"), "{message}");
        }
    }

    fn sentry_of(text: &str, variables: &[(&str, &str)]) -> Option<Sentry> {
        let text = format!("{}{text}", minimal());
        load(&text, variables).unwrap().settings.startup.sentry
    }

    const DSN: &str = "sentry: { dsn: 'https://key@o42.sentry.example/7' }\n";

    #[test]
    fn without_a_dsn_or_with_an_empty_one_sentry_is_off() {
        assert_eq!(sentry_of("", &[]), None);
        assert_eq!(sentry_of("sentry: { dsn: '' }", &[]), None);
        assert_eq!(sentry_of("sentry: { dsn: '${SENTRY_DSN:-}' }", &[("SENTRY_DSN", "")]), None);
        assert!(sentry_of("", &[("SENTRY_DSN", "https://key@host/1")]).is_some());
    }

    #[test]
    fn environment_and_release_are_taken_from_whoever_says_them_first() {
        let said = |text: &str, variables: &[(&str, &str)]| {
            let sentry = sentry_of(text, variables).unwrap();
            (sentry.environment, sentry.release.unwrap_or_default())
        };
        let all = [
            ("SENTRY_ENVIRONMENT", "a"),
            ("SENTRY_RELEASE", "b"),
            ("ENVIRONMENT", "c"),
            ("APP_VERSION", "d"),
        ];
        let of_service = format!("{DSN}service: {{ environment: e, version: f }}\n");
        let pair = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        assert_eq!(said(&of_service, &all), pair("a", "b"));
        assert_eq!(
            said(&of_service, &all[2..]),
            pair("e", "f"),
            "what is meant for all says less than the service's own"
        );
        assert_eq!(said(DSN, &all[2..]), pair("c", "d"));
        assert_eq!(said(DSN, &[]), pair("production", ""), "SEN-21");
    }

    #[test]
    fn transactions_are_sent_where_spans_go_nowhere_else() {
        let rate = |text: &str| sentry_of(&format!("{DSN}{text}"), &[]).unwrap().traces_sample_rate;
        assert_eq!(rate(""), 0.1);
        assert_eq!(rate("export: { otlp: { endpoint: 'http://c:4318' } }"), 0.0);
    }

    #[test]
    fn spans_go_to_the_endpoint_of_sentry_where_they_are_wanted_there() {
        let text = DSN.replace("}", ", traces: otlp }") + minimal();
        let settings = load(&text, &[]).unwrap().settings.startup;
        let otlp = settings.export.otlp.unwrap();
        assert_eq!(otlp.endpoint, "https://o42.sentry.example/api/7/integration/otlp/v1/traces/", "SEN-32");
        assert_eq!(otlp.headers[0].1, "sentry sentry_key=key, sentry_version=7");
        assert_eq!(settings.sentry.unwrap().traces_sample_rate, 0.0);
    }

    #[test]
    fn the_organization_is_in_the_host() {
        let organization = |dsn: &str| {
            let text = format!(
                "{}sentry: {{ dsn: '{dsn}' }}\npropagation: {{ formats: [sentry-trace] }}",
                minimal()
            );
            let propagation = load(&text, &[]).unwrap().settings.live.propagation;
            let of = |number: &str| {
                propagation
                    == crate::propagation::Propagation::both(vec![crate::propagation::Format::SentryTrace])
                        .within(Some(number.into()))
            };
            of("42")
        };
        assert!(organization("https://key@o42.ingest.sentry.io/7"));
        assert!(!organization("https://key@sentry.example/7"));
        assert!(!organization("https://key@other42.example/7"));
    }

    #[test]
    fn statuses_are_numbers_or_ranges() {
        assert_eq!(StatusRange::parse("409").unwrap(), StatusRange(409..=409));
        assert_eq!(StatusRange::parse("400-499").unwrap().show(), "400-499");
        for text in ["", "4xx", "99", "600", "499-400", "-", "400-"] {
            assert!(StatusRange::parse(text).is_err(), "{text:?}");
        }
    }
}
