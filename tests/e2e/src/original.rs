//! What a workload and its Services were before Lull, and whether they are that again.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::{Workload, leftovers, slices};

/// The parts that Lull changes, as they were.
#[derive(Debug, Clone)]
pub struct Original {
    /// By name.
    services: Vec<(String, Value)>,
    template: Value,
    replicas: i64,
}

// === impl Original ===

impl Original {
    /// What `workload` is now.
    ///
    /// # Errors
    /// Where it or a Service of it can't be had.
    pub async fn of(workload: &Workload) -> anyhow::Result<Self> {
        let mut services = Vec::new();
        for name in workload.service_names() {
            let service = workload.service(&name).await?;
            services.push((name, service));
        }
        let object = workload.object_json().await?;
        Ok(Self {
            services,
            template: object["spec"]["template"].clone(),
            replicas: object["spec"]["replicas"].as_i64().context("no replicas")?,
        })
    }

    /// Whether one of the Services is another one now.
    ///
    /// # Errors
    /// Where one can't be had.
    pub async fn is_changed(&self, workload: &Workload) -> anyhow::Result<bool> {
        for (name, then) in &self.services {
            if workload.service(name).await?["spec"] != then["spec"] {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fails unless everything is as it was, with at least as many replicas, and nothing of Lull
    /// is left in the namespace.
    ///
    /// # Errors
    /// With what differs.
    pub async fn given_back(&self, workload: &Workload) -> anyhow::Result<()> {
        for (name, then) in &self.services {
            let now = workload.service(name).await?;
            ensure!(
                now["spec"] == then["spec"],
                "the spec of Service {name} is {}",
                now["spec"]
            );
            for part in ["labels", "annotations"] {
                let (now, then) = (&now["metadata"][part], &then["metadata"][part]);
                ensure!(
                    now == then,
                    "the {part} of Service {name} are {now}, were {then}"
                );
            }
        }
        let now = workload.object_json().await?;
        let (metadata, spec) = (&now["metadata"], &now["spec"]);
        ensure!(
            spec["template"] == self.template,
            "the template is {}",
            spec["template"]
        );
        let replicas = spec["replicas"].as_i64().context("no replicas")?;
        ensure!(
            replicas >= self.replicas,
            "{replicas} replicas, {} before",
            self.replicas
        );
        ensure!(
            !leftovers::has_traces(&json!({ "metadata": metadata })),
            "metadata is {metadata}"
        );
        let left = leftovers::leftovers(&workload.cluster, &workload.namespace).await?;
        ensure!(left.is_empty(), "left behind: {}", left.join(", "));
        let pods = usize::try_from(self.replicas).unwrap_or_default();
        slices::pods_only(workload, pods).await?;
        Ok(())
    }
}
