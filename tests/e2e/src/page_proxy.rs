//! The status page at an address of this machine, by way of the API server.

use lull_contract::ports;
use tokio::process::Command;

use crate::{
    Cluster,
    background::{Program, Scratch, program},
};

/// A running `kubectl proxy`. Dropping it kills it.
#[derive(Debug)]
pub struct PageProxy {
    kubectl: Program,
    url: String,
    // Last: a folder goes when nobody writes to it any more.
    _scratch: Scratch,
}

// === impl PageProxy ===

impl PageProxy {
    /// Starts one; `E2E_KUBECTL` names kubectl.
    ///
    /// # Errors
    /// Where it is missing or doesn't start.
    pub async fn start(cluster: &Cluster) -> anyhow::Result<Self> {
        let scratch = Scratch::try_new("page-proxy")?;
        let mut command = Command::new(program("E2E_KUBECTL")?);
        command.args(["proxy", "--port=0"]);
        let mut kubectl = Program::start("kubectl-proxy", command, &scratch)?;
        let address = kubectl.address(&["Starting to serve on "]).await?;
        let (namespace, port) = (&cluster.lull_namespace, ports::STATUS_PAGE);
        // Of whichever replica: each shows all workloads live.
        let service = format!("/api/v1/namespaces/{namespace}/services/lull-autoscaler:{port}");
        Ok(Self {
            kubectl,
            url: format!("http://{address}{service}/proxy/"),
            _scratch: scratch,
        })
    }

    /// Where the page is.
    #[must_use]
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where it has ended by itself, or doesn't end.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.kubectl.stop().await
    }
}
