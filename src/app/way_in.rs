//! What the inbound listeners need that all workers share, built from the settings and exchanged with them.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tracing::warn;

use crate::config::{Inbound, Tls, ToTls, UpstreamProtocol};
use crate::net::arrival::Entrance;
use crate::net::connector::Connector;
use crate::net::pem_files::PemFiles;
use crate::net::termination::Termination;
use crate::net::tls::ServiceTls;

/// How requests come in by one listener, and how they go on to its service.
#[derive(Clone)]
pub(super) struct WayIn {
    pub(super) entrance: Arc<Entrance>,
    pub(super) connector: Arc<Connector>,
    tls: Option<(Made<Tls>, Arc<Termination>)>,
    to_tls: Option<Made<ToTls>>,
}

/// What something was made from: settings, and what the files that they name hold.
#[derive(Clone, PartialEq)]
struct Made<S> {
    from: S,
    files: PemFiles,
}

impl<S: Clone> Made<S> {
    fn new<'a>(from: &S, files: impl IntoIterator<Item = &'a Path>) -> anyhow::Result<Self> {
        Ok(Self { from: from.clone(), files: PemFiles::read(files)? })
    }
}

/// The ways in of these listeners. What has not changed since `before` stays the same, down to the sessions that callers resume
/// and the connections to services; `plain` connects to services about which nothing special is said.
///
/// # Errors
/// Names the listener, and the file that cannot be used.
pub(super) fn prepare(
    inbound: &[Inbound],
    plain: &Arc<Connector>,
    before: &[WayIn],
) -> anyhow::Result<Vec<WayIn>> {
    let one = |(index, inbound): (usize, &Inbound)| {
        let tls = inbound.tls.as_ref().map(|tls| termination(tls, before)).transpose();
        let tls = tls.with_context(|| format!("cannot use inbound[{index}].tls"))?;
        let (to_tls, connector) = connector(inbound, plain, before)
            .with_context(|| format!("cannot use inbound[{index}].to_tls"))?;
        let entrance = Entrance {
            proxies: inbound.proxy_protocol.clone(),
            tls: tls.as_ref().map(|(_, termination)| termination.clone()),
        };
        Ok(WayIn { entrance: Arc::new(entrance), connector, tls, to_tls })
    };
    inbound.iter().enumerate().map(one).collect()
}

fn termination(tls: &Tls, before: &[WayIn]) -> anyhow::Result<(Made<Tls>, Arc<Termination>)> {
    let made = Made::new(tls, tls.files())?;
    let mut known = before.iter().filter_map(|way| way.tls.as_ref());
    if let Some(same) = known.find(|(known, _)| *known == made) {
        return Ok(same.clone());
    }
    let termination = Termination::new(tls, &made.files)?;
    Ok((made, Arc::new(termination)))
}

fn connector(
    inbound: &Inbound,
    plain: &Arc<Connector>,
    before: &[WayIn],
) -> anyhow::Result<(Option<Made<ToTls>>, Arc<Connector>)> {
    let to_tls = &inbound.to_tls;
    if inbound.to.protocol != UpstreamProtocol::Https || *to_tls == ToTls::default() {
        return Ok((None, plain.clone()));
    }
    let made = Some(Made::new(to_tls, to_tls.files())?);
    if let Some(same) = before.iter().find(|way| way.to_tls == made) {
        return Ok((made, same.connector.clone()));
    }
    let files = made.as_ref().map(|made| made.files.clone()).unwrap_or_default();
    let tls = Arc::new(ServiceTls::to(to_tls, &files)?);
    Ok((made, Arc::new(Connector { tls, ..Connector::clone(plain) })))
}

/// What works in `ways`, but hardly as meant.
pub(super) fn remarks(ways: &[WayIn]) -> Vec<String> {
    ways.iter().flat_map(|way| &way.tls).flat_map(|(_, tls)| tls.remarks()).cloned().collect()
}

/// Says what works in `ways`, but hardly as meant, where that is news.
pub(super) fn warn_of(ways: &[WayIn], before: &[WayIn]) {
    let known = remarks(before);
    remarks(ways).iter().filter(|remark| !known.contains(remark)).for_each(|remark| warn!("{remark}"));
}
