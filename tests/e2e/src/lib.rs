//! Harness of Lull's end-to-end suite: everything a test needs on a real cluster.
//!
//! A test asks for a [`namespace`] of its own, deploys an [`app`] and an [`agent`] into it, and
//! drives load through the agent by way of the API server's pod proxy; so the suite runs wherever
//! a kubeconfig reaches, with no route into the cluster's network. [`workload`] waits for the steps
//! of a workload's life, [`slices`] says who answers for a Service, [`mesh`] what Istio is told,
//! [`istiod`] stops it, counts what it sends and asks whom it knows, [`containers`] when those of a pod
//! began and ended,
//! [`families`] where a Service is called over IPv4 and IPv6, [`routes`] what else users tell it, [`original`] whether everything is as it was before Lull,
//! [`leftovers`] what Lull left behind, [`plain`] takes a template's sidecar, [`timeline`] when each step of a cold start was seen,
//! [`coldstarts`] how long they took, [`wake_parts`] where the time of wakes went and [`processors`] what was busy then, and [`knative`] how long its own,
//! [`two_pods`] carry a load that nothing may move, [`writes`] every state of one object, [`course`] what Lull says of a workload under load; [`hey`] reads
//! what that load generator prints, and [`performance`] writes it down; [`release`] is changed by Helm; [`gitops`] applies manifests again and again, [`races`]
//! does everything at once, [`prometheus`] scrapes everything, [`browser`] looks at the status page as a person does, by a [`page_proxy`]
//! or with a [`crowd`] on it, [`book`] reads the documentation, and a
//! [`reader`] types its commands.

pub mod activators;
pub mod agent;
pub mod app;
pub mod autoscalers;
pub mod background;
pub mod book;
pub mod browser;
pub mod chance;
pub mod cluster;
pub mod coldstarts;
pub mod command;
pub mod components;
pub mod containers;
pub mod counters;
pub mod course;
pub mod crashes;
pub mod crowd;
pub mod dashboard;
pub mod diagnostics;
pub mod families;
pub mod fleet;
pub mod gitops;
pub mod hey;
pub mod histogram;
pub mod history;
pub mod istiod;
pub mod kind;
pub mod knative;
pub mod leftovers;
pub mod mesh;
pub mod metrics_api;
pub mod namespace;
pub mod original;
pub mod page_proxy;
pub mod performance;
pub mod plain;
pub mod process;
pub mod processors;
#[cfg(test)]
mod programs;
pub mod prometheus;
pub mod races;
pub mod reader;
pub mod release;
pub mod rollouts;
pub mod rounds;
pub mod routes;
pub mod say;
pub mod sleepers;
pub mod slices;
pub mod spread;
mod states;
#[cfg(test)]
mod tickets;
pub mod timeline;
pub mod two_pods;
pub mod wait;
pub mod wake_parts;
pub mod watches;
pub mod workload;
pub mod writes;

pub use agent::{Agent, all_answered};
pub use app::App;
pub use cluster::Cluster;
pub use kind::Kind;
pub use metrics_api::MetricsApi;
pub use namespace::{Namespace, in_mesh, in_mesh_for, in_namespace, in_namespace_for, in_revision};
pub use original::Original;
pub use say::say;
pub use wait::eventually;
pub use workload::{Workload, evict};
