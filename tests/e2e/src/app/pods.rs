//! What sets an app's pods apart from those of the sample app.

use serde_json::{Value, json};

use super::{App, image, security_context};

// === impl App ===

impl App {
    /// Adds a label to the pods' template.
    #[must_use]
    pub fn label_pods(mut self, key: &str, value: &str) -> Self {
        self.pod_labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Runs `image` with these arguments in place of the sample app. It is ready when its first port takes
    /// connections.
    #[must_use]
    pub fn run(mut self, image: &str, args: &[&str]) -> Self {
        self.image = Some(image.to_owned());
        self.args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    /// Adds a container called `name` behind the app's, which listens on `port` and does nothing.
    #[must_use]
    pub fn beside(mut self, name: &'static str, port: u16) -> Self {
        self.beside.push((name, port));
        self
    }
}

/// A container that an app does not need.
pub(super) fn idle((name, port): (&str, u16)) -> Value {
    json!({
        "name": name,
        "image": image(),
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve", format!("--port={port}")],
        "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
        "securityContext": security_context(),
    })
}
