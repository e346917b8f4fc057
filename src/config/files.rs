//! Files that keys name: the token of the admin pages, values of headers, PEM files.
//!
//! What they hold is secret, or may be: it is read here, kept apart from the settings' text, and never shown.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File as OsFile;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};

use super::excerpt::is_path;
use super::file::{self, File};
use super::leaf::{Leaf, Wrong, hashed};
use super::problem::{Findings, Problem};
use super::reader::step;
use super::tree::MAX_BYTES;
use super::value::{At, Map};
use super::web::Secret;

/// Reads a file as far as it may be read: what is longer than 1 MiB is refused, so that the wrong file does not fill the
/// memory; and so is what is no file, for a pipe or a device may never come to an end.
///
/// # Errors
/// What the system says, or what is wrong with the file.
pub fn read_file(path: &Path) -> io::Result<String> {
    let bytes = read_bytes(path)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// As [`read_file`], also of a pipe such as a shell's `<(...)`: for the start, where whoever started us waits, too. It cannot be
/// read a second time.
///
/// # Errors
/// As [`read_file`].
pub fn read_once(path: &Path) -> io::Result<String> {
    let bytes = bounded(path)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// As [`read_file`], whatever it holds.
///
/// # Errors
/// As [`read_file`].
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Asked before it is opened: opening a pipe waits for whoever writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    bounded(path)
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    OsFile::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// What the admin pages ask for before they tell or do more than health and metrics.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken(String);

impl AdminToken {
    /// The token itself, to compare with in constant time.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What was read of the files that keys name.
#[derive(Default)]
pub(super) struct Read {
    pub admin_token: Option<AdminToken>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Every file that a key names, by the key's path, with a hash of what it holds; `None` if it cannot be read.
    pub files: BTreeMap<String, (PathBuf, Option<u64>)>,
}

/// Reads the files that the keys of `file` name. Only secrets must be there: PEM files are judged where they are used.
pub(super) fn read(
    file: &File,
    source: &dyn Fn(&Path) -> io::Result<String>,
    findings: &mut Findings,
) -> Read {
    let mut read = Read::default();
    if let Some(at) = &file.admin.token_file {
        let path = "admin.token_file";
        let text = text(at, path, source, &mut read, findings);
        read.admin_token = text.and_then(|text| match text.contains(char::is_whitespace) {
            true => {
                let message = format!("{} holds more than one word", shown(&at.value));
                wrong(findings, at, path, message, "write the token alone into it");
                None
            }
            false => Some(AdminToken(text)),
        });
    }
    let Map(headers) = &file.export.otlp.headers;
    let Map(header_files) = &file.export.otlp.headers_file;
    for (name, at) in header_files {
        let path = format!("export.otlp.headers_file{}", step(name.as_str()));
        if headers.iter().any(|(other, _)| other == name) {
            let message = format!("export.otlp.headers has {name}, too");
            wrong(findings, at, &path, message, "remove one of the two");
            continue;
        }
        let Some(text) = text(at, &path, source, &mut read, findings) else { continue };
        match Secret::parse(&text) {
            Ok(Secret(value)) => read.headers.push((name.clone(), value)),
            Err(Wrong { message, .. }) => {
                let message = format!("{} {message}", shown(&at.value));
                wrong(findings, at, &path, message, "write the value alone into it, on one line");
            }
        }
    }
    for (key, path) in pem_files(file) {
        let content = source(path).ok().map(|text| hashed(text.as_bytes()));
        read.files.insert(key, (path.clone(), content));
    }
    read
}

/// The text of a secret, without the line break that editors leave. `None` means that a finding was noted.
fn text(
    at: &At<PathBuf>,
    path: &str,
    source: &dyn Fn(&Path) -> io::Result<String>,
    read: &mut Read,
    findings: &mut Findings,
) -> Option<String> {
    let file = shown(&at.value);
    let result = source(&at.value);
    let content = result.as_ref().ok().map(|text| hashed(text.as_bytes()));
    read.files.insert(path.to_owned(), (at.value.clone(), content));
    let text = match result {
        Ok(text) => text.trim().to_owned(),
        Err(error) => {
            let instead = match is_path(&at.value.to_string_lossy()) {
                true => "create it, and let the user that tracecar runs as read it",
                false => "write the path of a file that holds the secret",
            };
            wrong(findings, at, path, format!("cannot read {file}: {error}"), instead);
            return None;
        }
    };
    if text.is_empty() {
        wrong(findings, at, path, format!("{file} is empty"), "write the secret into it, or remove the key");
        return None;
    }
    Some(text)
}

/// A file for a message: many a key that asks for a file is given what belongs into it.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if is_path(&text) { text.into_owned() } else { "the file that it names".to_owned() }
}

fn wrong(findings: &mut Findings, at: &At<PathBuf>, path: &str, message: String, instead: &str) {
    findings.add(Problem { subject: path.to_owned(), message, place: at.place, instead: instead.to_owned() });
}

/// PEM files that keys name, with the paths of their keys.
fn pem_files(file: &File) -> Vec<(String, &PathBuf)> {
    let file::Otlp { certificate, client_certificate, client_key, .. } = &file.export.otlp;
    let file::Outbound { certificate: of_destinations, intercept, .. } = &file.outbound;
    let named = [
        ("export.otlp.certificate", certificate.as_ref()),
        ("export.otlp.client_certificate", value(client_certificate)),
        ("export.otlp.client_key", value(client_key)),
        ("sentry.certificate", file.sentry.certificate.as_ref()),
        ("outbound.certificate", of_destinations.as_ref()),
        ("outbound.intercept.ca_certificate", value(&intercept.ca_certificate)),
        ("outbound.intercept.ca_key", value(&intercept.ca_key)),
    ];
    let named = named.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path?)));
    let of_listeners = file.inbound.iter().enumerate().flat_map(|(index, inbound)| {
        // As changes name them: by address, where that is theirs alone.
        let listener = match inbound.listen.value {
            any if any.port() == 0 => index.to_string(),
            listen => listen.to_string(),
        };
        let files = pem_files_of(inbound).into_iter();
        files.map(move |(key, path)| (format!("inbound[{listener}].{key}"), path))
    });
    named.chain(of_listeners).collect()
}

fn pem_files_of(inbound: &file::Inbound) -> Vec<(String, &PathBuf)> {
    let mut files = Vec::new();
    if let Some(tls) = &inbound.tls {
        for (index, pair) in tls.certificates.value.iter().enumerate() {
            files.push((format!("tls.certificates[{index}].certificate"), &pair.certificate));
            files.push((format!("tls.certificates[{index}].key"), &pair.key));
        }
        files.extend(value(&tls.client_ca).map(|path| ("tls.client_ca".to_owned(), path)));
    }
    if let Some(file::ToTls { ca, client_certificate, client_key, .. }) = &inbound.to_tls {
        let named = [
            ("to_tls.ca", ca.as_ref()),
            ("to_tls.client_certificate", value(client_certificate)),
            ("to_tls.client_key", value(client_key)),
        ];
        files.extend(named.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path?))));
    }
    files
}

fn value(at: &Option<At<PathBuf>>) -> Option<&PathBuf> {
    at.as_ref().map(|at| &at.value)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::check::tests::{load, load_reading, minimal};
    use super::*;

    #[test]
    fn a_token_and_headers_come_from_files_and_are_never_shown() {
        let text = format!(
            "{}service: {{ name: a }}\nadmin: {{ token_file: /run/token }}\nexport: {{ otlp: {{ endpoint: \"https://c\", \
             headers_file: {{ X-Key: /run/key }}, certificate: /run/ca.pem }} }}\nsentry: {{ certificate: /run/sentry.pem }}",
            minimal()
        );
        let read = |path: &Path| match path.to_str() {
            Some("/run/token") => Ok("t0ken\n".to_owned()),
            Some("/run/key") => Ok(" hunter2\r\n".to_owned()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let loaded = load_reading(&text, &[], &read).unwrap_or_else(|problems| panic!("{problems}"));
        let startup = &loaded.settings.startup;
        assert_eq!(startup.admin_token.as_ref().map(AdminToken::as_bytes), Some(b"t0ken".as_slice()));
        let headers = &startup.export.otlp.as_ref().unwrap().headers;
        assert_eq!((headers[0].0.as_str(), headers[0].1.to_str().unwrap()), ("x-key", "hunter2"));
        let shown = format!("{loaded:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("hunter2"), "{shown}");
        let files: Vec<_> = loaded.files.iter().filter_map(|path| path.to_str()).collect();
        assert_eq!(files, ["/run/token", "/run/ca.pem", "/run/key", "/run/sentry.pem"]);
    }

    #[test]
    fn a_file_that_is_missing_is_named_for_whoever_waits_for_it() {
        let text = format!("{}admin: {{ token_file: /run/token }}", minimal());
        let problems = load_reading(&text, &[], &|_| Err(io::ErrorKind::NotFound.into())).unwrap_err();
        assert_eq!(problems.files(), [Path::new("/run/token")]);
    }

    #[test]
    fn a_variable_with_a_header_beats_the_file_that_holds_it() {
        let text = format!("{}export: {{ otlp: {{ headers_file: {{ a: /f, b: /f }} }} }}", minimal());
        let variables = [("OTEL_EXPORTER_OTLP_HEADERS", "a=1"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")];
        let loaded = load_reading(&text, &variables, &|_| Ok("2".to_owned())).unwrap();
        let headers = loaded.settings.startup.export.otlp.unwrap().headers;
        let texts: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(texts, [("a", b"1".as_slice()), ("b", b"2")]);
    }

    #[test]
    fn a_file_without_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, vec![b'x'; MAX_BYTES]).unwrap();
        assert_eq!(read_file(&path).unwrap().len(), MAX_BYTES);
        fs::write(&path, vec![b'x'; MAX_BYTES + 1]).unwrap();
        assert!(read_file(&path).unwrap_err().to_string().contains("1 MiB"));
        fs::write(&path, [0xff]).unwrap();
        assert!(read_file(&path).unwrap_err().to_string().contains("UTF-8"));
        assert!(load(minimal(), &[]).unwrap().files.is_empty());
    }
}
