//! How an exchange ended, and whose doing it was.
//!
//! One table: the name on the span and in the log, the `error.type` (SEM-67, SEM-72), the fault. What status a
//! caller gets for an error of ours is decided in `proxy/error.rs`.

/// The one way in which an exchange ended. Every exchange has exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Both messages passed whole, whatever the status says.
    Complete,
    /// Nothing listens where the service should be.
    UpstreamRefused,
    /// The name of the service could not be resolved.
    UpstreamUnresolved,
    /// The service's host or network cannot be reached.
    UpstreamUnreachable,
    /// The service did not accept a connection in time.
    UpstreamConnectTimeout,
    /// The service's certificate is not valid for its name, or not by anybody whom we trust.
    UpstreamCertificate,
    /// The service and we found no common TLS.
    UpstreamTls,
    /// The service accepted the request and sent no response head in time.
    UpstreamTimeout,
    /// The service closed or reset the connection before its response head.
    UpstreamReset,
    /// The service answered with something that is not HTTP.
    UpstreamInvalid,
    /// The service broke off in the middle of its response.
    UpstreamBroken,
    /// The service began a response, and then sent nothing more of it for too long.
    UpstreamNotSending,
    /// The caller left before any response was sent to it.
    ClientGoneBeforeResponse,
    /// The caller left while the response was being sent.
    ClientGoneDuringResponse,
    /// The caller did not complete its request head in time.
    RequestTimeout,
    /// The caller did not go on with its request's content in time.
    ClientNotSending,
    /// The caller took nothing more of its response for too long.
    ClientNotReading,
    /// The caller sent bytes from which no request can be read.
    MalformedRequest,
    /// tracecar answered by itself, by a rule of its own.
    Rejected,
    /// As much was under way as may be at once.
    Overloaded,
    /// It lasted for as long as anything may.
    StreamTimeout,
    /// A tunnel was quiet on both sides for too long.
    TunnelIdle,
    /// tracecar was told to stop, and the drain time was over.
    Drained,
    /// A bug in tracecar ended it.
    Panicked,
}

/// Who caused an exchange to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller.
    Client,
    /// The service, or the way to it.
    Upstream,
    /// tracecar itself.
    Proxy,
}

impl Fault {
    /// The word on the span and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Upstream => "upstream",
            Fault::Proxy => "proxy",
        }
    }
}

impl Outcome {
    /// Every outcome, for tables and tests.
    pub const ALL: [Outcome; 24] = [
        Outcome::Complete,
        Outcome::UpstreamRefused,
        Outcome::UpstreamUnresolved,
        Outcome::UpstreamUnreachable,
        Outcome::UpstreamConnectTimeout,
        Outcome::UpstreamCertificate,
        Outcome::UpstreamTls,
        Outcome::UpstreamTimeout,
        Outcome::UpstreamReset,
        Outcome::UpstreamInvalid,
        Outcome::UpstreamBroken,
        Outcome::UpstreamNotSending,
        Outcome::ClientGoneBeforeResponse,
        Outcome::ClientGoneDuringResponse,
        Outcome::RequestTimeout,
        Outcome::ClientNotSending,
        Outcome::ClientNotReading,
        Outcome::MalformedRequest,
        Outcome::Rejected,
        Outcome::Overloaded,
        Outcome::StreamTimeout,
        Outcome::TunnelIdle,
        Outcome::Drained,
        Outcome::Panicked,
    ];

    /// The word on the span (`tracecar.outcome`) and in the log.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// `error.type` where the outcome itself is an error of the server side (SEM-64, SEM-67). A caller that
    /// leaves, or that sends what cannot be read, is not: SERVER spans leave such endings unset, as they do 4xx
    /// (SEM-62, SEM-65).
    pub fn error_type(self) -> Option<&'static str> {
        self.row().1
    }

    /// Whose doing it was; `None` where nothing went wrong: [`Outcome::Complete`] and [`Outcome::TunnelIdle`].
    pub fn fault(self) -> Option<Fault> {
        self.row().2
    }

    fn row(self) -> (&'static str, Option<&'static str>, Option<Fault>) {
        use Fault::{Client, Proxy, Upstream};
        match self {
            Outcome::Complete => ("complete", None, None),
            Outcome::UpstreamRefused => ("upstream_refused", Some("connection_refused"), Some(Upstream)),
            Outcome::UpstreamUnresolved => ("upstream_unresolved", Some("dns_error"), Some(Upstream)),
            Outcome::UpstreamUnreachable => ("upstream_unreachable", Some("connect_error"), Some(Upstream)),
            Outcome::UpstreamConnectTimeout => {
                ("upstream_connect_timeout", Some("connect_timeout"), Some(Upstream))
            }
            Outcome::UpstreamCertificate => {
                ("upstream_certificate", Some("server_certificate_invalid"), Some(Upstream))
            }
            Outcome::UpstreamTls => ("upstream_tls", Some("tls_error"), Some(Upstream)),
            Outcome::UpstreamTimeout => ("upstream_timeout", Some("timeout"), Some(Upstream)),
            Outcome::UpstreamReset => ("upstream_reset", Some("connection_reset"), Some(Upstream)),
            Outcome::UpstreamInvalid => ("upstream_invalid_response", Some("protocol_error"), Some(Upstream)),
            Outcome::UpstreamBroken => ("upstream_broken", Some("body_incomplete"), Some(Upstream)),
            Outcome::UpstreamNotSending => ("upstream_not_sending", Some("timeout"), Some(Upstream)),
            Outcome::ClientGoneBeforeResponse => ("client_gone_before_response", None, Some(Client)),
            Outcome::ClientGoneDuringResponse => ("client_gone_during_response", None, Some(Client)),
            Outcome::RequestTimeout => ("request_timeout", None, Some(Client)),
            Outcome::ClientNotSending => ("client_not_sending", None, Some(Client)),
            Outcome::ClientNotReading => ("client_not_reading", None, Some(Client)),
            Outcome::MalformedRequest => ("malformed_request", None, Some(Client)),
            Outcome::Rejected => ("rejected", None, Some(Client)),
            Outcome::Overloaded => ("overloaded", Some("overloaded"), Some(Proxy)),
            Outcome::StreamTimeout => ("stream_timeout", Some("timeout"), Some(Proxy)),
            Outcome::TunnelIdle => ("tunnel_idle", None, None),
            Outcome::Drained => ("drained", Some("drained"), Some(Proxy)),
            Outcome::Panicked => ("panicked", Some("_OTHER"), Some(Proxy)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_word_of_its_own() {
        let mut words: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Outcome::ALL.len());
    }

    #[test]
    fn a_client_that_leaves_is_not_a_server_error() {
        assert_eq!(Outcome::ClientGoneBeforeResponse.error_type(), None);
        assert_eq!(Outcome::ClientGoneDuringResponse.fault(), Some(Fault::Client));
    }
}
