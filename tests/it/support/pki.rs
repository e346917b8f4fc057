//! Certificates in files, as an operator has them, and callers that speak TLS.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::PATIENCE;

/// A CA, with a folder for what it signs.
pub struct Pki {
    pub folder: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

impl Pki {
    /// A CA of that name; `ca.pem` in its folder is its certificate.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().expect("a folder for temporary files");
        std::fs::write(folder.path().join("ca.pem"), ca.pem()).expect("it is ours");
        Self { folder, ca }
    }

    /// Signs a certificate of `name`, also as its common name.
    pub fn sign(&self, name: &str) -> Signed {
        self.sign_with(name, |_| {})
    }

    pub fn sign_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        self.sign_for(&KeyPair::generate().unwrap(), name, change)
    }

    /// The same for a key that is there.
    pub fn sign_for(&self, key: &KeyPair, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let certificate = params.signed_by(key, &self.ca).unwrap().pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    /// Writes both to `{stem}.pem` and `{stem}.key` in the folder.
    pub fn put(&self, stem: &str, Signed { certificate, key }: &Signed) {
        std::fs::write(self.path(&format!("{stem}.pem")), certificate).expect("it is ours");
        std::fs::write(self.path(&format!("{stem}.key")), key).expect("it is ours");
    }

    /// A pair of files, as the configuration names it; signed and written now.
    pub fn pair(&self, stem: &str, name: &str) -> String {
        self.put(stem, &self.sign(name));
        self.named(stem)
    }

    /// The same of files that are there.
    pub fn named(&self, stem: &str) -> String {
        let [certificate, key] = ["pem", "key"].map(|end| self.path(&format!("{stem}.{end}")));
        format!("{{ certificate: '{}', key: '{}' }}", certificate.display(), key.display())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Whoever trusts this CA, offers these protocols, and shows this certificate.
    pub fn client(&self, alpn: &[&str], shows: Option<&Signed>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(read(&self.ca())).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match shows {
            None => builder.with_no_client_auth(),
            Some(Signed { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn read(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).expect("it is a certificate")
}

/// A connection of a caller.
pub struct Secure {
    sender: Sender,
    /// Done when the connection is.
    over: JoinHandle<()>,
    /// The certificate that was shown to it.
    pub shown: CertificateDer<'static>,
    pub version: rustls::ProtocolVersion,
    pub resumed: bool,
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub version: Version,
    pub status: u16,
    pub text: String,
}

impl Secure {
    /// Connects, says `before` in clear text, and shakes hands for `name`.
    pub async fn connect(
        address: SocketAddr,
        before: &[u8],
        name: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        timeout(PATIENCE, Self::begin(address, before, name, config))
            .await
            .map_err(|_| late("no handshake"))?
    }

    async fn begin(
        address: SocketAddr,
        before: &[u8],
        name: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(before).await?;
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let session = stream.get_ref().1;
        let shown = session.peer_certificates().expect("servers show one")[0].clone().into_owned();
        let version = session.protocol_version().expect("it is agreed on");
        let resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
        let http2 = session.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        let (sender, over) = match http2 {
            true => {
                let handshake = http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = handshake.map_err(io::Error::other)?;
                (Sender::Http2(sender), tokio::spawn(async move { drop(connection.await) }))
            }
            false => {
                let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
                (Sender::Http1(sender), tokio::spawn(async move { drop(connection.await) }))
            }
        };
        Ok(Self { sender, over, shown, version, resumed })
    }

    pub async fn get(&mut self, path: &str) -> io::Result<Answer> {
        timeout(PATIENCE, self.ask(path)).await.map_err(|_| late("no answer"))?
    }

    async fn ask(&mut self, path: &str) -> io::Result<Answer> {
        let mut request = Request::new(Empty::new());
        let sent = async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    *request.uri_mut() = path.parse().expect("a path");
                    request.headers_mut().insert("host", "shop.example".parse().unwrap());
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    *request.uri_mut() = format!("https://shop.example{path}").parse().expect("a path");
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        let answer = tokio::select! {
            biased;
            answer = sent => answer,
            // hyper may forget a request of HTTP/2 whose connection breaks in the moment that it is sent.
            _ = &mut self.over => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let answer = answer.map_err(io::Error::other)?;
        let (version, status) = (answer.version(), answer.status().as_u16());
        let content = answer.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { version, status, text: String::from_utf8_lossy(&content).into_owned() })
    }

    /// The common name of the certificate that was shown.
    pub fn common_name(&self) -> String {
        let (_, certificate) = x509_parser::parse_x509_certificate(&self.shown).expect("a certificate");
        let name = certificate.subject().iter_common_name().next().expect("it has one");
        name.as_str().expect("it is text").to_owned()
    }
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {PATIENCE:?}"))
}

/// One request on a connection of its own.
pub async fn get(
    address: SocketAddr,
    before: &[u8],
    name: &str,
    config: Arc<ClientConfig>,
) -> io::Result<Answer> {
    Secure::connect(address, before, name, config).await?.get("/").await
}
