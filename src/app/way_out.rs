//! What the calls of the service need that all workers share, built from the settings and exchanged with them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;

use crate::config::{LiveHandle, Settings, Startup, read_bytes, read_file};
use crate::exchange::Lineage;
use crate::net::connector::Connector;
use crate::net::intercept::{Authority, Pinned};
use crate::net::process::Processes;
use crate::net::tls::ServiceTls;
use crate::proxy::Interception;
use crate::proxy::outbound::Rules;
use crate::stats::{Kind, Row};
use crate::wire::egress::EgressRules;

/// What all workers share for the calls of the service.
pub(super) struct WayOut {
    live: LiveHandle,
    /// Connects to the service.
    pub(super) inwards: Arc<Connector>,
    pub(super) lineage: Arc<Lineage>,
    pub(super) processes: Arc<Processes>,
    outwards: Mutex<Outwards>,
}

/// How the service's calls leave.
#[derive(Clone, Default)]
pub(super) struct Outwards {
    /// Connects to what the service calls.
    pub(super) connector: Arc<Connector>,
    pub(super) interception: Option<Arc<Interception>>,
    /// What it was made from: the rules, and what the PEM files hold.
    made_from: Option<(Arc<EgressRules>, Option<Vec<u8>>)>,
    authority: Option<(String, String)>,
}

impl WayOut {
    pub(super) fn new(live: LiveHandle) -> Self {
        Self {
            live,
            inwards: Arc::default(),
            lineage: Arc::default(),
            processes: Arc::default(),
            outwards: Mutex::default(),
        }
    }

    /// How calls are to leave by these settings. What has not changed stays the same, and keeps its connections; where the rules
    /// have changed none is kept, for they are asked when a connection is opened.
    ///
    /// # Errors
    /// Names a file that cannot be used.
    pub(super) fn prepare(&self, Settings { startup, live }: &Settings) -> anyhow::Result<Outwards> {
        let before = self.outwards().clone();
        let Startup { outbound, .. } = startup;
        let certificate = outbound.as_ref().and_then(|outbound| outbound.certificate.as_deref());
        let read = |path: &Path| read_bytes(path).with_context(|| format!("cannot read {}", path.display()));
        let made_from = Some((live.egress.clone(), certificate.map(read).transpose()?));
        let connector = match before.made_from == made_from {
            true => before.connector,
            false => Arc::new(Connector {
                tls: Arc::new(certificate.map(ServiceTls::trusting).transpose()?.unwrap_or_default()),
                permits: Some(Arc::new(Rules(self.live.clone()))),
                own: before.connector.own.clone(),
            }),
        };
        let files = outbound.as_ref().and_then(|outbound| outbound.authority.as_ref());
        let authority = files.map(read_authority).transpose()?;
        let interception = match (&authority, files) {
            _ if authority == before.authority => before.interception,
            (Some(authority), Some(files)) => Some(Arc::new(interception(authority, files)?)),
            _ => None,
        };
        Ok(Outwards { connector, interception, made_from, authority })
    }

    /// Calls leave that way from now on.
    pub(super) fn switch(&self, outwards: Outwards) {
        *self.outwards() = outwards;
    }

    /// How calls leave now.
    pub(super) fn outwards(&self) -> MutexGuard<'_, Outwards> {
        self.outwards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of how the causes of calls were found.
    pub(super) fn rows(&self) -> Vec<Row> {
        let row = |name, kind, help, label, value| Row { name, help, kind, label, value };
        let mut rows = Vec::new();
        if !self.live.load().way_out {
            return rows;
        }
        {
            let figures = self.lineage.figures();
            let help = "Inbound exchanges that a call may belong to.";
            let name = "tracecar_lineage_exchanges";
            let state = |state: &'static str| Some(("state", state.into()));
            rows.push(row(name, Kind::Gauge, help, state("open"), figures.open as u64));
            rows.push(row(name, Kind::Gauge, help, state("tail"), figures.tail as u64));
            let help = "Values of requests that are remembered, as hashes.";
            let name = "tracecar_lineage_values";
            rows.push(row(name, Kind::Gauge, help, None, figures.values as u64));
            let help = "Values that name no single request, and decide nothing.";
            let name = "tracecar_lineage_values_shared";
            rows.push(row(name, Kind::Gauge, help, None, figures.hot as u64));
            let help = "What there was no room to remember.";
            for (what, count) in [
                ("exchange", figures.exchanges_dropped),
                ("tail", figures.tails_cut_short),
                ("value", figures.values_dropped),
                ("call", figures.calls_not_kept),
            ] {
                let label = Some(("what", what.into()));
                rows.push(row("tracecar_lineage_dropped", Kind::Counter, help, label, count));
            }
            let help = "Calls that carried what their request had in this header: what the service forwards.";
            let forwarded = figures.forwarded.into_iter().map(|(name, count)| (name.to_string(), count));
            for (header, count) in
                [("correlation".to_owned(), figures.correlation_forwarded)].into_iter().chain(forwarded)
            {
                let label = Some(("header", header.into()));
                rows.push(row("tracecar_lineage_forwarded", Kind::Counter, help, label, count));
            }
        }
        {
            let lookups = self.processes.lookups();
            let help = "Looks into the process table, by how they ended.";
            for (result, count) in [
                ("found", lookups.found),
                ("not_found", lookups.not_found),
                ("shared", lookups.shared),
                ("over_budget", lookups.over_budget),
            ] {
                let label = Some(("result", result.into()));
                rows.push(row("tracecar_process_lookups", Kind::Counter, help, label, count));
            }
        }
        rows
    }
}

/// Certificate and key of the local CA, as text.
fn read_authority((certificate, key): &(PathBuf, PathBuf)) -> anyhow::Result<(String, String)> {
    let read = |path: &PathBuf| read_file(path).with_context(|| format!("cannot read {}", path.display()));
    Ok((read(certificate)?, read(key)?))
}

fn interception(
    (certificate, key): &(String, String),
    files: &(PathBuf, PathBuf),
) -> anyhow::Result<Interception> {
    let authority = Authority::load(certificate, key)
        .with_context(|| format!("cannot use {} and {}", files.0.display(), files.1.display()))?;
    Ok(Interception { authority, pinned: Pinned::default() })
}
