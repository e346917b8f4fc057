//! What the calls of the service need that all workers share, built from the settings.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use crate::config::{LiveHandle, Startup};
use crate::exchange::Lineage;
use crate::net::connector::Connector;
use crate::net::intercept::{Authority, Pinned};
use crate::net::process::Processes;
use crate::net::tls::ServiceTls;
use crate::proxy::inbound::Inbound;
use crate::proxy::outbound::{Fronts, Rules};
use crate::proxy::{Front, Interception, Proxy};
use crate::stats::{Kind, Row};

/// What all workers share for the calls of the service.
pub(super) struct WayOut {
    /// Connects to the service.
    inwards: Arc<Connector>,
    /// Connects to what the service calls.
    outwards: Arc<Connector>,
    pub(super) lineage: Option<Arc<Lineage>>,
    pub(super) processes: Option<Arc<Processes>>,
    interception: Option<Arc<Interception>>,
}

impl WayOut {
    /// # Errors
    /// Names a file that cannot be used.
    pub(super) fn new(startup: &Startup, live: &LiveHandle) -> anyhow::Result<Self> {
        let certificate = startup.outbound.as_ref().and_then(|outbound| outbound.certificate.as_deref());
        let authority = startup.outbound.as_ref().and_then(|outbound| outbound.authority.as_ref());
        let interception = authority.map(interception).transpose()?.map(Arc::new);
        let budget = live.load().process_budget;
        let outwards = Connector {
            tls: Arc::new(certificate.map(ServiceTls::trusting).transpose()?.unwrap_or_default()),
            permits: Some(Arc::new(Rules(live.clone()))),
            own: Arc::default(),
        };
        Ok(Self {
            inwards: Arc::default(),
            outwards: Arc::new(outwards),
            // Where no call is seen, nothing is searched for.
            lineage: startup.outbound.is_some().then(Arc::default),
            processes: (startup.outbound.is_some() && !budget.is_zero())
                .then(|| Arc::new(Processes::new(budget))),
            interception,
        })
    }

    /// What is known of how the causes of calls were found.
    pub(super) fn rows(&self) -> Vec<Row> {
        let row = |name, kind, help, label, value| Row { name, help, kind, label, value };
        let mut rows = Vec::new();
        if let Some(lineage) = &self.lineage {
            let figures = lineage.figures();
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
        if let Some(processes) = &self.processes {
            let lookups = processes.lookups();
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

    /// The fronts of one worker, in the order in which their listeners were bound.
    pub(super) fn fronts(&self, startup: &Startup, proxy: &Arc<Proxy>, live: &LiveHandle) -> Vec<Arc<Front>> {
        let inbound = startup.inbound.iter().map(|inbound| {
            Front::Inbound(Inbound::new(proxy.clone(), live.clone(), inbound, self.inwards.clone()))
        });
        let mut fronts: Vec<Front> = inbound.collect();
        if let Some(outbound) = &startup.outbound {
            let (connector, interception) = (self.outwards.clone(), self.interception.clone());
            let inwards = self.inwards.own.clone();
            let out = Fronts::new(proxy.clone(), live.clone(), connector, interception, inwards);
            fronts.extend(outbound.proxy.map(|_| Front::Outbound(out.proxy())));
            fronts.extend(outbound.mapped.iter().map(|one| Front::Outbound(out.mapped(one.clone()))));
            fronts.extend(outbound.transparent.map(|_| Front::Outbound(out.transparent())));
        }
        fronts.into_iter().map(Arc::new).collect()
    }
}

/// Reads the local CA.
fn interception((certificate, key): &(PathBuf, PathBuf)) -> anyhow::Result<Interception> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let authority = Authority::load(&read(certificate)?, &read(key)?)
        .with_context(|| format!("cannot use {} and {}", certificate.display(), key.display()))?;
    Ok(Interception { authority, pinned: Pinned::default() })
}
