//! What the settings ask for beside metrics and pages, and what it was made from.

use std::time::Duration;

use anyhow::Context;

use super::access_log::AccessLog;
use super::console::Console;
use super::export::Exporter;
use super::lines::Lines;
use super::sentry::Sentry;
use crate::config::{self, Otlp, OtlpTls, Service};

/// Access logs that may still have something to write when another takes their place: each may hold some megabytes.
pub(super) const MAX_LEAVING: usize = 4;

/// What the settings ask for, and can ask for differently while it runs.
#[derive(Default)]
pub(super) struct Outputs {
    pub(super) console: Option<Console>,
    pub(super) mode: Option<config::Console>,
    pub(super) access_log: Option<AccessLog>,
    pub(super) log_has_file: bool,
    /// Access logs in files before this one, which still have lines to write.
    pub(super) leaving: Vec<AccessLog>,
    /// Lines that those before them have lost.
    pub(super) lines_lost: u64,
    /// Once there is one it stays, for the sake of what it has still to send.
    pub(super) exporter: Option<Exporter>,
    /// What it was told last; `None` where no spans are to be exported.
    pub(super) exports: Option<Exports>,
    pub(super) sentry: Option<Sentry>,
    /// What it was made from.
    pub(super) tells: Option<Tells>,
}

/// All that an exporter is made from, to see whether it has changed. Keys are among it, so nothing prints it.
#[derive(Clone, PartialEq)]
pub(super) struct Exports {
    pub(super) otlp: Otlp,
    pub(super) service: Service,
    /// What the files of `otlp.tls` hold.
    pub(super) files: Vec<Vec<u8>>,
}

/// All that a connection to Sentry is made from.
#[derive(Clone, PartialEq)]
pub(super) struct Tells {
    pub(super) sentry: config::Sentry,
    pub(super) service: Service,
    pub(super) certificate: Vec<u8>,
}

impl Outputs {
    /// Lets go of access logs that have written all they had, and of the oldest of more than `most` that have not.
    pub(super) fn let_go(&mut self, most: usize) {
        let mut surplus = self.leaving.iter().filter(|log| !log.is_idle()).count().saturating_sub(most);
        let lost = &mut self.lines_lost;
        self.leaving.retain(|log| {
            let mut stays = !log.is_idle();
            if stays && surplus > 0 {
                (stays, surplus) = (false, surplus - 1);
                log.finish(Duration::ZERO);
            }
            if !stays {
                *lost += log.dropped();
            }
            stays
        });
    }
}

impl Exports {
    pub(super) fn new(otlp: &Otlp, service: &Service) -> anyhow::Result<Self> {
        let OtlpTls { certificate, client } = &otlp.tls;
        let client = client.iter().flat_map(|(certificate, key)| [certificate, key]);
        let mut files = Vec::new();
        for path in certificate.iter().chain(client) {
            let content = config::read_bytes(path).with_context(|| format!("cannot read {}", path.display()));
            // Without TLS nobody needs them.
            let needed = otlp.endpoint.scheme_str() == Some("https");
            files.push(if needed { content? } else { content.unwrap_or_default() });
        }
        Ok(Self { otlp: otlp.clone(), service: service.clone(), files })
    }
}

impl Tells {
    pub(super) fn new(sentry: &config::Sentry, service: &Service) -> anyhow::Result<Self> {
        let certificate = match &sentry.certificate {
            Some(path) => {
                config::read_bytes(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => Vec::new(),
        };
        Ok(Self { sentry: sentry.clone(), service: service.clone(), certificate })
    }
}

pub(super) fn open(log: &config::AccessLog, stdout: &Lines) -> anyhow::Result<AccessLog> {
    let lines = match &log.path {
        Some(path) => {
            Lines::append(path).with_context(|| format!("cannot open the access log {}", path.display()))?
        }
        None => stdout.clone(),
    };
    Ok(AccessLog::new(log.format, lines))
}
