//! The autoscaler: enrols workloads, pulls reports, decides, and writes `/scale`, Services and
//! EndpointSlices.

pub mod allocate;
pub mod demand;
pub mod kpa;
pub mod machine;
