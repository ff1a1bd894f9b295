//! What users apply their manifests with.

use anyhow::Context as _;
use serde_json::{Value, json};

use super::Manifests;
use crate::{Namespace, background::Scratch, command};

/// A program that applies manifests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `kubectl apply`, which keeps what it applied last in an annotation.
    Apply,
    /// `kubectl apply --server-side`, with every field taken.
    ServerSide,
    /// `helm upgrade --install` of a chart that is nothing but the manifests.
    Helm,
}

/// Applies one set of manifests by a tool.
#[derive(Debug)]
pub struct Applier {
    tool: Tool,
    namespace: String,
    scratch: Scratch,
}

// === impl Tool ===

impl Tool {
    /// Every tool.
    pub const ALL: [Self; 3] = [Self::Apply, Self::ServerSide, Self::Helm];

    /// A name for what it applies, and of the release where there is one.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Apply => "by-apply",
            Self::ServerSide => "by-server-side",
            Self::Helm => "by-helm",
        }
    }
}

// === impl Applier ===

impl Applier {
    /// One for manifests of `namespace`.
    ///
    /// # Errors
    /// Where it can't have a folder.
    pub fn try_new(tool: Tool, namespace: &Namespace) -> anyhow::Result<Self> {
        Ok(Self {
            tool,
            namespace: namespace.name.clone(),
            scratch: Scratch::try_new(tool.name())?,
        })
    }

    /// Applies `manifests` once.
    ///
    /// # Errors
    /// Where the tool fails, with what it said.
    pub async fn apply(&self, manifests: &Manifests) -> anyhow::Result<()> {
        match self.tool {
            Tool::Apply => self.kubectl(manifests, &[]).await,
            Tool::ServerSide => {
                let taken = ["--server-side", "--force-conflicts"];
                self.kubectl(manifests, &taken).await
            }
            Tool::Helm => self.helm(manifests).await,
        }
    }

    async fn kubectl(&self, manifests: &Manifests, how: &[&str]) -> anyhow::Result<()> {
        let file = self.write("manifests.json", &list(manifests))?;
        let what = ["-n", self.namespace.as_str(), "apply", "-f", file.as_str()];
        command::kubectl(&[&what[..], how].concat()).await
    }

    async fn helm(&self, manifests: &Manifests) -> anyhow::Result<()> {
        let name = self.tool.name();
        self.write("Chart.yaml", &chart(name))?;
        self.write("templates/all.yaml", &documents(manifests))?;
        let folder = self.scratch.path().to_string_lossy().into_owned();
        let what = ["-n", self.namespace.as_str(), "upgrade", "--install", name];
        // Each of its releases is a Secret.
        let how = [folder.as_str(), "--history-max", "2"];
        command::helm(&[&what[..], &how].concat()).await
    }

    /// Writes a file of its folder; its path.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.scratch.path().join(name);
        let folder = path.parent().context("it has no folder")?;
        std::fs::create_dir_all(folder)?;
        std::fs::write(&path, text).with_context(|| format!("write {name}"))?;
        Ok(path.to_string_lossy().into_owned())
    }
}

fn objects(manifests: &Manifests) -> impl Iterator<Item = &Value> {
    manifests.iter().map(|(_, object)| object)
}

/// All of them as one object.
fn list(manifests: &Manifests) -> String {
    let items: Vec<&Value> = objects(manifests).collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string()
}

/// One after the other; JSON is YAML.
fn documents(manifests: &Manifests) -> String {
    let all: Vec<String> = objects(manifests).map(Value::to_string).collect();
    all.join("\n---\n")
}

fn chart(name: &str) -> String {
    json!({ "apiVersion": "v2", "name": name, "version": "1.0.0" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_gets_a_list_and_helm_documents_that_are_no_templates() {
        let manifests: Manifests = vec![
            ("services".to_owned(), json!({ "a": { "b": { "c": 1 } } })),
            ("deployments".to_owned(), json!({ "d": [{ "e": 2 }] })),
        ];
        let list: Value = serde_json::from_str(&list(&manifests)).unwrap();
        assert_eq!(list["items"][1]["d"][0]["e"], 2);
        let documents = documents(&manifests);
        assert_eq!(documents.split("\n---\n").count(), 2);
        // It would begin an action of a template.
        assert!(!documents.contains("{{"), "{documents}");
    }
}
