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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sets_pods_apart_is_in_their_template_alone() {
        let app = App::plain("cache").label_pods("istio.io/rev", "default");
        let app = app.run("redis:1", &["--port", "6379"]).beside("other", 9);
        let spec = app.deployment().unwrap().spec.unwrap();
        let labels = spec.template.metadata.unwrap().labels.unwrap();
        assert_eq!((labels.len(), labels["app"].as_str()), (2, "cache"));
        assert_eq!(spec.selector.match_labels.unwrap().len(), 1);
        let containers = spec.template.spec.unwrap().containers;
        let images = containers.iter().map(|one| one.image.as_deref());
        assert_eq!(
            images.collect::<Vec<_>>(),
            [Some("redis:1"), Some(&*image())]
        );
        let probe = containers[0].readiness_probe.as_ref().unwrap();
        assert!(probe.tcp_socket.is_some() && probe.http_get.is_none());
    }
}
