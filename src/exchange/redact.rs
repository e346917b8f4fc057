//! What of a query string may be seen in spans and logs (SEM-80 to SEM-83).
//!
//! Redaction happens before a query enters the record, so that no sink can leak what it never had.

use std::borrow::Cow;
use std::collections::BTreeSet;

/// The keys that SEM-81 lists, in all versions of the conventions up to now. Matched case-sensitively (SEM-82).
const KNOWN_SECRETS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
    "sig",
];

/// Which query values are replaced by `REDACTED`. Keys always stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryRedaction {
    /// All values but those of the keys listed.
    All {
        /// Keys whose values may be seen.
        allow: BTreeSet<String>,
    },
    /// The values of the seven keys that the conventions name (SEM-81).
    Known,
    /// None.
    Off,
}

impl Default for QueryRedaction {
    fn default() -> Self {
        Self::All { allow: BTreeSet::new() }
    }
}

impl QueryRedaction {
    /// The query as it may be seen.
    pub fn apply<'q>(&self, query: &'q str) -> Cow<'q, str> {
        match self {
            QueryRedaction::Off => query.into(),
            QueryRedaction::Known => redact(query, |key| KNOWN_SECRETS.contains(&key)),
            QueryRedaction::All { allow } => redact(query, |key| !allow.contains(key)),
        }
    }
}

fn redact(query: &str, secret: impl Fn(&str) -> bool) -> Cow<'_, str> {
    let hidden = |pair: &str| match pair.split_once('=') {
        Some((key, value)) => !value.is_empty() && secret(key),
        // Without a `=` nobody can tell a flag from a secret: `?dGhlIHRva2Vu` is a value.
        None => !pair.is_empty() && secret(pair),
    };
    if !query.split('&').any(hidden) {
        return query.into();
    }
    let mut out = String::with_capacity(query.len());
    for (index, pair) in query.split('&').enumerate() {
        if index > 0 {
            out.push('&');
        }
        match pair.split_once('=') {
            _ if !hidden(pair) => out.push_str(pair),
            Some((key, _)) => {
                out.push_str(key);
                out.push_str("=REDACTED");
            }
            None => out.push_str("REDACTED"),
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_values_are_hidden_but_the_allowed() {
        let redaction = QueryRedaction::All { allow: ["page".to_owned()].into() };
        assert_eq!(redaction.apply("page=2&email=a%40b&flag="), "page=2&email=REDACTED&flag=");
        assert_eq!(redaction.apply("c2VjcmV0"), "REDACTED");
        assert_eq!(redaction.apply("a=b=c&&"), "a=REDACTED&&");
    }

    #[test]
    fn known_keys_match_case_sensitively() {
        assert_eq!(QueryRedaction::Known.apply("sig=x&SIG=y&q=z"), "sig=REDACTED&SIG=y&q=z");
        assert_eq!(QueryRedaction::Off.apply("sig=x"), "sig=x");
    }
}
