//! `tracecar ca`: makes the local CA that `outbound.intercept` signs with, and says what to do with it.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf, absolute};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use tracecar::net::intercept::Authority;

/// For the key: whoever reads it can pose as any site.
const OWNER_ONLY: u32 = 0o600;

/// For the certificate, which the service's user has to read.
const FOR_ALL: u32 = 0o644;

/// What is asked for.
#[derive(Args)]
pub struct Ca {
    /// The folder for local-ca.pem and local-ca.key. It has to be there.
    #[arg(long, value_name = "DIR", required_unless_present_all = ["certificate", "key"])]
    out: Option<PathBuf>,
    /// Where the certificate goes, in place of DIR/local-ca.pem.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Where its key goes, in place of DIR/local-ca.key.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Replace files that are there. What trusts the old CA does not trust the new one.
    #[arg(long)]
    force: bool,
}

impl Ca {
    /// Makes the CA, writes its files, and prints the next steps.
    ///
    /// # Errors
    /// Where a file is there already, or cannot be written. Then neither file is new.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let (certificate, key) = self.paths()?;
        if certificate == key {
            bail!("the certificate and its key need a file each, and both are {}", key.display());
        }
        if !self.force {
            for path in [&certificate, &key] {
                // Broken links count as well.
                if path.symlink_metadata().is_ok() {
                    return Err(there_already(path));
                }
            }
        }
        let (certificate_text, key_text) = Authority::make()?;
        write(&key, &key_text, OWNER_ONLY, self.force)?;
        if let Err(error) = write(&certificate, &certificate_text, FOR_ALL, self.force) {
            if !self.force {
                // A key without its certificate is of no use, and would be in the way next time.
                let _ = fs::remove_file(&key);
            }
            return Err(error);
        }
        say(&next_steps(&certificate, &key))?;
        Ok(ExitCode::SUCCESS)
    }

    /// Where the files go, in full: they are printed for a configuration that is read elsewhere.
    fn paths(&self) -> anyhow::Result<(PathBuf, PathBuf)> {
        let place = |given: &Option<PathBuf>, name: &str| {
            let path = given.clone().or_else(|| self.out.as_ref().map(|folder| folder.join(name)));
            let path = path.with_context(|| format!("there is no place for {name}: say --out DIR"))?;
            absolute(&path).with_context(|| format!("cannot use {}", path.display()))
        };
        Ok((place(&self.certificate, "local-ca.pem")?, place(&self.key, "local-ca.key")?))
    }
}

fn there_already(path: &Path) -> anyhow::Error {
    anyhow::anyhow!(
        "{} is there already, and was left alone: what trusts it would not trust a new CA. Say --force to replace it",
        path.display()
    )
}

/// Writes a new file that nobody has seen with other permissions than `mode`.
fn write(path: &Path, text: &str, mode: u32, force: bool) -> anyhow::Result<()> {
    let written = match force {
        false => create(path, text, mode),
        // A file that is there may be open, or readable by others. So it is replaced and not written to.
        true => {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}.new", std::process::id()));
            let fresh = path.with_file_name(name);
            create(&fresh, text, mode).and_then(|()| fs::rename(&fresh, path)).inspect_err(|_| {
                let _ = fs::remove_file(&fresh);
            })
        }
    };
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(there_already(path)),
        Err(error) => {
            let folder = path.parent().unwrap_or(path).display();
            let reason = match error.kind() {
                ErrorKind::NotFound => format!("there is no folder {folder}; make it with mkdir -p"),
                ErrorKind::PermissionDenied => format!("you may not write into {folder}"),
                _ => error.to_string(),
            };
            bail!("cannot write {}: {reason}", path.display())
        }
    }
}

fn create(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file = options.open(path)?;
    let finished = || -> io::Result<()> {
        file.write_all(text.as_bytes())?;
        // The umask may have taken away what the service needs.
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.sync_all()
    }();
    #[cfg(not(unix))]
    let _ = mode;
    finished.inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

fn next_steps(certificate: &Path, key: &Path) -> String {
    let bundle = certificate.with_file_name("local-ca-bundle.pem");
    let store = certificate.with_file_name("local-ca.p12");
    let (certificate, key) = (certificate.display(), key.display());
    let (bundle, store) = (bundle.display(), store.display());
    format!(
        "\
Made a local CA that is valid for two years:

  {certificate}   the certificate, which may be read by all
  {key}   its key, which only you may read

The danger: whoever has the key can pose as any site to whatever trusts this CA,
so keep it out of images and version control, and make one CA for each place.
What TLS kept secret (passwords, tokens, payments) will be in tracecar's memory
in clear text, and laws or contracts may forbid that.

1. Add this to tracecar.yaml, with the names that are to be looked into, and
   make the key readable for the user that tracecar runs as:

outbound:
  proxy: 127.0.0.1:8081
  intercept:
    hosts: [api.example.com]
    ca_certificate: '{certificate}'
    ca_key: '{key}'

2. Make the service trust the CA, and nothing else on the machine. Node.js takes
   it in addition to the usual ones:

export NODE_EXTRA_CA_CERTS='{certificate}'

   The others take one file in place of the usual ones, so give them both:

cat /etc/ssl/certs/ca-certificates.crt '{certificate}' > '{bundle}'
export SSL_CERT_FILE='{bundle}'        # OpenSSL, Go, Ruby, Rust
export REQUESTS_CA_BUNDLE='{bundle}'   # Python requests
export CURL_CA_BUNDLE='{bundle}'       # curl
export PIP_CERT='{bundle}'             # pip
export npm_config_cafile='{bundle}'    # npm
export GIT_SSL_CAINFO='{bundle}'       # git

   Java wants a copy of its trust store with the CA in it:

cp \"$JAVA_HOME/lib/security/cacerts\" '{store}'
keytool -importcert -noprompt -alias tracecar -storepass changeit \\
  -file '{certificate}' -keystore '{store}'
export JAVA_TOOL_OPTIONS='-Djavax.net.ssl.trustStore={store} -Djavax.net.ssl.trustStorePassword=changeit'

3. Start tracecar and the service again, and ask `tracecar doctor`.
"
    )
}

/// Prints, and does not mind a reader that has seen enough.
pub fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
