//! Talking to the API server, by curl: enough for readiness and a handful of objects, and a Go
//! program that starts for each question would take longer than the cluster.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::exec::fed;
use crate::paths::Paths;

/// The API server of one cluster, as its administrator.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    server: String,
    ca: PathBuf,
    header: PathBuf,
}

/// A status code and a JSON body (null if it isn't JSON).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

// === impl Api ===

impl Api {
    pub(crate) fn new(ip: &str, paths: &Paths) -> Self {
        let (ca, header) = (paths.file("certs/ca.crt"), paths.file("admin.header"));
        Self {
            server: format!("https://{ip}:6443"),
            ca,
            header,
        }
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Asks for an object.
    ///
    /// # Errors
    /// When the server can't be reached within 3 s.
    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, b"")
    }

    /// Creates an object; one that is there already is fine.
    ///
    /// # Errors
    /// When the server can't be reached or refuses.
    pub(crate) fn create(&self, path: &str, object: &Value) -> Result<()> {
        let answer = self.send("POST", path, object.to_string().as_bytes())?;
        match answer.status {
            200..=299 | 409 => Ok(()),
            status => bail!("{path}: {status} {}", answer.body["message"]),
        }
    }

    /// True as soon as the server says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|answer| answer.status == 200)
    }

    /// Which of the nodes aren't there, not Ready or still tainted.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub(crate) fn unready_nodes(&self, nodes: usize) -> Result<Vec<String>> {
        let list = self.get("/api/v1/nodes")?.body;
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let is_usable = |name: &String| {
            items
                .iter()
                .any(|node| node["metadata"]["name"] == name.as_str() && usable(node))
        };
        let names = (0..nodes).map(crate::services::node_name);
        Ok(names.filter(|name| !is_usable(name)).collect())
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let mut curl = Command::new("curl");
        // The token comes from a file: command lines are visible to everybody.
        curl.args([
            "--silent",
            "--show-error",
            "--noproxy",
            "*",
            "--max-time",
            "3",
        ])
        .args(["--write-out", "\n%{http_code}", "--request", method])
        .args(["--header", "Content-Type: application/json"])
        .arg("--header")
        .arg(format!("@{}", self.header.display()))
        .arg("--cacert")
        .arg(&self.ca);
        if !body.is_empty() {
            curl.args(["--data-binary", "@-"]);
        }
        let output = fed(curl.arg(format!("{}{path}", self.server)), body)?;
        let (body, status) = output.rsplit_once('\n').context("curl gave no status")?;
        let status = status
            .parse()
            .with_context(|| format!("curl gave status {status:?}"))?;
        Ok(Answer {
            status,
            body: serde_json::from_str(body).unwrap_or_default(),
        })
    }
}

fn usable(node: &Value) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.is_some_and(|all| {
        all.iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
    });
    let tainted = node["spec"]["taints"]
        .as_array()
        .is_some_and(|taints| !taints.is_empty());
    ready && !tainted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_usable_when_ready_and_without_taints() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        assert!(usable(&ready));
        let mut tainted = ready;
        tainted["spec"] = json!({"taints": [{"key": "node.kubernetes.io/not-ready"}]});
        assert!(!usable(&tainted));
        assert!(!usable(&json!({"status": {}})));
    }
}
