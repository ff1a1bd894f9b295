//! The autoscaler: enrols workloads, pulls reports, decides, and writes `/scale`, Services,
//! EndpointSlices, WorkloadEntries and ScaledWorkloads.
//!
//! One task for each workload ([`workload`]) reads the watch caches ([`stores`]) and what was
//! reported ([`demand`]), asks the pure parts ([`policy`] with [`kpa`], [`machine`], [`plan`]) what to do and does
//! it; [`why`] says why, [`journal`] keeps what happened lately, [`callers`] finds out who called, [`page`] shows it. Workloads are
//! divided into shards ([`shards`]): only the leader of a workload's shard ([`lease`]) writes, but any
//! replica may wake a sleeping workload. Writes that nobody waits for take [`turns`].

pub mod absence;
pub mod allocate;
mod amounts;
pub mod app;
pub mod cache;
pub mod callers;
pub mod canary;
mod cluster_settings;
pub mod config;
pub mod context;
pub mod crash;
pub mod demand;
mod discovery;
mod events;
mod injected;
pub mod journal;
mod kept_awake;
pub mod kpa;
pub mod lease;
pub mod machine;
mod memo;
pub mod mesh;
pub mod metrics;
pub mod namespaces;
pub mod objects;
mod pace;
pub mod page;
mod panics;
pub mod plan;
pub mod pod;
pub mod policy;
mod pressure;
pub mod pull;
pub mod purpose;
mod refusal;
pub mod restore;
pub mod shards;
mod silence;
pub mod stores;
pub mod target;
pub mod turns;
pub mod uninstall;
pub mod unwritten;
pub mod why;
pub mod words;
pub mod workload;
