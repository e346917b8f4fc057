//! Longer texts for users, beside the README.

#[doc = include_str!("additions.md")]
pub mod additions {}

#[doc = include_str!("protocols.md")]
pub mod protocols {}

#[doc = include_str!("endings.md")]
pub mod endings {}

#[doc = include_str!("spans.md")]
pub mod spans {}

#[doc = include_str!("identity.md")]
pub mod identity {}

#[doc = include_str!("grpc.md")]
pub mod grpc {}

#[doc = include_str!("lineage.md")]
pub mod lineage {}

#[doc = include_str!("errors.md")]
pub mod errors {}

#[doc = include_str!("sentry.md")]
pub mod sentry {}

#[doc = include_str!("export.md")]
pub mod export {}

#[doc = include_str!("egress.md")]
pub mod egress {}

#[doc = include_str!("tls.md")]
pub mod tls {}

#[doc = include_str!("config.md")]
pub mod config {}

#[doc = include_str!("reload.md")]
pub mod reload {}

#[doc = include_str!("limits.md")]
pub mod limits {}

#[doc = include_str!("operation.md")]
pub mod operation {}

#[doc = include_str!("conformance.md")]
pub mod conformance {}
