//! The autoscaler: enrols workloads, pulls reports, decides, and writes `/scale`, Services,
//! EndpointSlices, WorkloadEntries and ScaledWorkloads.
//!
//! One task for each workload ([`workload`]) reads the watch caches ([`stores`]) and what was
//! reported ([`demand`]), asks the pure parts ([`policy`] with [`kpa`], [`machine`], [`plan`]) what to do and does
//! it. Only the leader ([`lease`]) writes, but any replica may wake a sleeping workload.

pub mod allocate;
pub mod app;
pub mod cache;
pub mod config;
pub mod context;
pub mod demand;
pub mod kpa;
pub mod lease;
pub mod machine;
pub mod mesh;
pub mod metrics;
pub mod objects;
pub mod plan;
pub mod policy;
pub mod pull;
pub mod stores;
pub mod uninstall;
pub mod workload;
