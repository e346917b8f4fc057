//! The TLS that a request came by.

/// What was agreed on in a handshake with a caller. One for all requests of its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The version: `1.2`, `1.3`.
    pub version: &'static str,
    /// The certificate that the caller has shown, where it was asked for one. It was verified then.
    pub client: Option<ClientCertificate>,
}

/// Whose certificate a caller has shown. Each text is bounded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its subject, as RFC 4514 writes names.
    pub subject: String,
    /// Who has signed it, in the same way.
    pub issuer: String,
    /// The first of its URIs, such as a SPIFFE id, or else of its host names.
    pub name: Option<String>,
}
