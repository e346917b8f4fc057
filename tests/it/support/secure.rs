//! Services with TLS: a CA of the test's own, and whoever trusts it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracecar::net::connector::Connector;
use tracecar::net::intercept::Authority;
use tracecar::net::tls::ServiceTls;

/// Who signed the certificates of a test.
pub struct Trust {
    pub folder: tempfile::TempDir,
    pub authority: Authority,
    pub root: CertificateDer<'static>,
}

impl Trust {
    pub fn new() -> Self {
        let (certificate, key) = Authority::make().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &certificate).unwrap();
        let root = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        Self { folder, authority: Authority::load(&certificate, &key).unwrap(), root }
    }

    pub fn server(&self, host: &str, alpn: &[&str]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.authority.acceptor(host, false).unwrap());
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    pub fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        client_trusting(roots)
    }

    pub fn connector(&self) -> Connector {
        let tls = ServiceTls::trusting(&self.folder.path().join("ca.pem")).unwrap();
        Connector { tls: Arc::new(tls), ..Connector::default() }
    }
}

pub fn client_trusting(roots: RootCertStore) -> Arc<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// A request as a service saw it.
#[derive(Debug)]
pub struct Seen {
    pub peer: SocketAddr,
    pub request: Request<()>,
}

/// A service with TLS, spoken to with whatever was agreed on. `/close` ends the connection after the answer.
pub async fn service(config: Arc<ServerConfig>) -> (u16, Receiver<Seen>) {
    service_on(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), config)
}

/// The same on a socket that somebody else has bound. Needs a runtime around it.
pub fn service_on(listener: std::net::TcpListener, config: Arc<ServerConfig>) -> (u16, Receiver<Seen>) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, sees) = channel();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let (acceptor, seen) = (TlsAcceptor::from(config.clone()), seen.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, peer, seen).await;
                }
            });
        }
    });
    (port, sees)
}

async fn answer(stream: tokio_rustls::server::TlsStream<TcpStream>, peer: SocketAddr, seen: Sender<Seen>) {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (parts, body) = request.into_parts();
        let seen = seen.clone();
        async move {
            let content = body.collect().await?.to_bytes();
            let _ = seen.send(Seen { peer, request: Request::from_parts(parts, ()) });
            Ok::<_, hyper::Error>(Response::new(Full::new(content)))
        }
    });
    let io = TokioIo::new(stream);
    let _ = match http2 {
        true => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
        }
        false => hyper::server::conn::http1::Builder::new().serve_connection(io, service).await,
    };
}
