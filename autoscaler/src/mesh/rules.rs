//! The users' own Istio objects that say something about a workload's traffic, once the cluster
//! knows their kinds: what of them a [`plan`](crate::plan) is made from, and nothing more.
//!
//! They are read as JSON, field by field: one that is odd in a field must not end the watch of all.

mod destination_rule;
mod istiods;
mod listed;
mod policies;
mod sidecar;
mod virtual_service;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kube::{Api, Client, ResourceExt, core::ApiResource, core::DynamicObject};
use lull_contract::HumanDuration;
use lull_process::readiness::Readiness;
use serde_json::Value;

pub use self::{
    destination_rule::{DestinationRule, Distribution, Ours},
    istiods::{
        ISTIOD, Istiod, MESH_CONFIG, MeshConfig, NATIVE_SIDECARS, SELECT_ENTRIES, ignores_entries,
    },
    listed::RuleKind,
    policies::{AuthorizationPolicy, PeerAuthentication},
    sidecar::Sidecar,
    virtual_service::{TimedRoute, VirtualService},
};
use super::{Host, MeshMode, kinds::until_served};
use crate::{
    cache::{Cache, Keys, Writer},
    stores::{OnTouched, Teller, Touched, Watch},
};

type Labels = BTreeMap<String, String>;

/// What is watched of a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshOptions {
    /// Whether there is one.
    pub mode: MeshMode,
    /// The namespace whose policies hold in all others.
    pub root_namespace: String,
}

/// The users' Istio objects; none as long as the cluster doesn't know their kinds.
#[derive(Debug, Clone)]
pub struct Rules {
    root_namespace: String,
    /// By the namespace of the Services that they are about.
    destination_rules: Cache<DestinationRule>,
    /// In the same way.
    virtual_services: Cache<VirtualService>,
    peer_authentications: Cache<PeerAuthentication>,
    authorization_policies: Cache<AuthorizationPolicy>,
    sidecars: Cache<Sidecar>,
    istiods: Cache<Istiod>,
    configs: Cache<MeshConfig>,
}

/// Those that may be about a namespace's workloads and Services.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// Of any namespace, for hosts in this one.
    pub destination_rules: Vec<Arc<DestinationRule>>,
    /// Of any namespace, with timeouts on the way to hosts in this one.
    pub virtual_services: Vec<Arc<VirtualService>>,
    /// Of the namespace and the root namespace.
    pub peer_authentications: Vec<Arc<PeerAuthentication>>,
    /// Of the namespace and the root namespace.
    pub authorization_policies: Vec<Arc<AuthorizationPolicy>>,
    /// Of the namespace and the root namespace.
    pub sidecars: Vec<Arc<Sidecar>>,
    /// Of the root namespace, as far as they are known.
    pub istiods: Vec<Arc<Istiod>>,
    /// The mesh's configuration, where it is known.
    pub configs: Vec<Arc<MeshConfig>>,
    /// Namespace whose policies hold in all others.
    pub root_namespace: String,
}

/// How one kind is watched.
struct Kind<K> {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    keys: Keys<K>,
    touched: fn(&K) -> Touched,
    kept: fn(&DynamicObject) -> K,
}

/// What every watch is started with.
struct Start<'a> {
    client: &'a Client,
    mode: MeshMode,
    readiness: &'a Readiness,
    on_touched: &'a OnTouched,
}

// === impl Rules ===

impl Rules {
    /// Starts to look for each kind, and to watch it once it is there; `readiness` waits until it is
    /// certain that there is none, or the first list is complete.
    #[must_use]
    pub fn start(
        client: &Client,
        options: &MeshOptions,
        (readiness, on_touched): (&Readiness, &OnTouched),
    ) -> Self {
        let start = Start {
            client,
            mode: options.mode,
            readiness,
            on_touched,
        };
        let root = options.root_namespace.as_str();
        Self {
            root_namespace: root.to_owned(),
            destination_rules: DestinationRule::KIND.watch(&start),
            virtual_services: VirtualService::KIND.watch(&start),
            peer_authentications: PeerAuthentication::KIND.watch(&start),
            authorization_policies: AuthorizationPolicy::KIND.watch(&start),
            sidecars: Sidecar::KIND.watch(&start),
            istiods: Istiod::watch(&start, root),
            configs: MeshConfig::watch(&start, root),
        }
    }

    /// The version of what is [`around`](Self::around) `namespace` ([`Cache::version`]); that of rules
    /// which are found by where they lead is the same for all namespaces. Rules that Lull has written
    /// are not among it: no plan is made from them.
    #[must_use]
    pub fn version(&self, namespace: &str) -> u64 {
        let root = self.root_namespace.as_str();
        let versions = [
            self.destination_rules.version(OF_USERS),
            self.virtual_services.version(OF_USERS),
            self.peer_authentications.version(namespace),
            self.peer_authentications.version(root),
            self.authorization_policies.version(namespace),
            self.authorization_policies.version(root),
            self.sidecars.version(namespace),
            self.sidecars.version(root),
            self.istiods.version(root),
            self.configs.version(root),
        ];
        versions.into_iter().sum()
    }

    /// How long before `now` an istiod came back, as its Deployment tells, where it was the one that did so last.
    /// Nothing is known of one that stands outside of the mesh's root namespace.
    #[must_use]
    pub fn istiod_back_for(&self, now: Timestamp) -> Option<Duration> {
        let istiods = self.istiods.all();
        let last = istiods
            .iter()
            .filter_map(|istiod| istiod.available_since)
            .max()?;
        // A clock that is ahead of ours has just said so.
        Some(Duration::try_from(now.duration_since(last)).unwrap_or_default())
    }

    /// The version of the rules in `namespace` that Lull has written ([`Cache::version`]).
    #[must_use]
    pub fn version_of_ours(&self, namespace: &str) -> u64 {
        self.destination_rules.version(namespace)
    }

    /// The DestinationRule of this name.
    #[must_use]
    pub fn destination_rule(&self, namespace: &str, name: &str) -> Option<Arc<DestinationRule>> {
        self.destination_rules
            .get("", &format!("{namespace}/{name}"))
    }

    /// The DestinationRules of `namespace` that Lull has written for the workload whose name has this
    /// label value.
    #[must_use]
    pub fn ours(&self, namespace: &str, label: &str) -> Vec<Arc<DestinationRule>> {
        let mut rules = about(&self.destination_rules, namespace);
        rules.retain(|rule| rule.namespace == namespace && rule.is_for_workload(label));
        rules
    }

    /// Those that may be about workloads of `namespace` and its Services.
    #[must_use]
    pub fn around(&self, namespace: &str) -> Around {
        let root = &self.root_namespace;
        Around {
            destination_rules: about(&self.destination_rules, namespace),
            virtual_services: about(&self.virtual_services, namespace),
            peer_authentications: of(&self.peer_authentications, namespace, root),
            authorization_policies: of(&self.authorization_policies, namespace, root),
            sidecars: of(&self.sidecars, namespace, root),
            istiods: self.istiods.all(),
            configs: self.configs.all(),
            root_namespace: root.clone(),
        }
    }
}

/// Objects, kept by what they are about, that are about `namespace` or more than one.
fn about<K>(cache: &Cache<K>, namespace: &str) -> Vec<Arc<K>> {
    let mut found = cache.in_group("", namespace);
    found.extend(cache.in_group("", EVERYWHERE));
    found
}

/// Objects of `namespace` and of `root`.
fn of<K>(cache: &Cache<K>, namespace: &str, root: &str) -> Vec<Arc<K>> {
    let mut found = cache.in_namespace(namespace);
    if namespace != root {
        found.extend(cache.in_namespace(root));
    }
    found
}

/// In the place of a namespace: more than one.
const EVERYWHERE: &str = "";
/// In the place of a namespace: the part of all rules that are found by where they lead, but for
/// Lull's own.
const OF_USERS: &str = "";

/// Who is told of an object of the namespace `own` that is about the Services of `hosts`.
fn touched_about<'a>(hosts: impl Iterator<Item = &'a Host>, own: &str) -> Touched {
    let namespaces: BTreeSet<String> = hosts
        .filter_map(Host::namespace)
        .map(str::to_owned)
        .collect();
    if namespaces.contains(EVERYWHERE) {
        return Touched::Workloads;
    }
    if namespaces.is_empty() {
        // What is about no Service of the cluster touches nobody; so it is said where it is cheap.
        return Touched::Namespace(own.to_owned());
    }
    Touched::Namespaces(namespaces)
}

// === impl Kind ===

impl<K: Send + Sync + 'static> Kind<K> {
    fn watch(self, start: &Start<'_>) -> Cache<K> {
        let writer = Writer::new(self.keys);
        let cache = writer.cache();
        if start.mode == MeshMode::None {
            return cache;
        }
        let pending = start.readiness.expect(self.plural);
        let (client, mode) = (start.client.clone(), start.mode);
        let teller = Teller::new(self.plural, start.on_touched);
        tokio::spawn(async move {
            let resource = self.resource();
            let kind = (resource.api_version.as_str(), self.plural);
            let pending = until_served(&client, kind, mode, pending).await;
            let watch = Watch {
                teller,
                pending,
                touched: self.touched,
                is_vital: true,
                unplanned: Some(|_| None),
            };
            let api = Api::<DynamicObject>::all_with(client, &resource);
            let what = (api, lull_kubernetes::watched());
            let kept = |object: DynamicObject| (self.kept)(&object);
            watch.run(what, writer, kept, || {}).await;
        });
        cache
    }

    fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.group.to_owned(),
            version: "v1".to_owned(),
            api_version: format!("{}/v1", self.group),
            kind: self.kind.to_owned(),
            plural: self.plural.to_owned(),
        }
    }
}

/// Namespace and name of `object`.
fn place_of(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The entries of a list; none where there is no list.
fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The texts of a list.
fn texts(list: &Value) -> Vec<String> {
    let texts = items(list).iter().filter_map(Value::as_str);
    texts.map(ToOwned::to_owned).collect()
}

/// Labels that pods must have; `None`: any pods.
fn labels(labels: &Value) -> Option<Labels> {
    let labels = labels.as_object()?;
    let labels: Labels = labels
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    (!labels.is_empty()).then_some(labels)
}

/// Whether pods with the labels `of` are meant.
fn selects(selector: Option<&Labels>, of: &Labels) -> bool {
    let mut wanted = selector.into_iter().flatten();
    wanted.all(|(key, value)| of.get(key) == Some(value))
}

/// As Istio writes them: `10s`, `1m30s`, `0.5s`.
fn duration(text: &Value) -> Option<Duration> {
    let text = text.as_str()?;
    let whole = text.parse::<HumanDuration>().ok();
    whole.map(|duration| duration.0).or_else(|| {
        let seconds = text.strip_suffix('s')?.parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    /// `object` as the API server would send it.
    pub(crate) fn object(object: &Value) -> DynamicObject {
        serde_json::from_value(object.clone()).unwrap()
    }

    /// Where nobody has written any.
    fn none() -> Rules {
        Rules {
            root_namespace: "root".to_owned(),
            destination_rules: Writer::new(DestinationRule::KIND.keys).cache(),
            virtual_services: Writer::new(VirtualService::KIND.keys).cache(),
            peer_authentications: Writer::new(PeerAuthentication::KIND.keys).cache(),
            authorization_policies: Writer::new(AuthorizationPolicy::KIND.keys).cache(),
            sidecars: Writer::new(Sidecar::KIND.keys).cache(),
            istiods: Writer::new(Istiod::KEYS).cache(),
            configs: Writer::new(MeshConfig::KEYS).cache(),
        }
    }

    #[test]
    fn durations_are_read_with_fractions() {
        let rows = [
            (json!("10s"), Some(10_000)),
            (json!("1m30s"), Some(90_000)),
            (json!("0.25s"), Some(250)),
            (json!("250ms"), Some(250)),
            (json!("x"), None),
            (json!("-1s"), None),
            (Value::Null, None),
        ];
        for (text, expected) in rows {
            assert_eq!(
                duration(&text),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    #[test]
    fn a_change_around_a_namespace_is_another_version_whatever_its_kind() {
        let of = |namespace: &str| {
            object(&json!({ "metadata": { "name": "one", "namespace": namespace }, "spec": {} }))
        };
        let mut destinations = Writer::new(DestinationRule::KIND.keys);
        let mut routes = Writer::new(VirtualService::KIND.keys);
        let mut peers = Writer::new(PeerAuthentication::KIND.keys);
        let mut policies = Writer::new(AuthorizationPolicy::KIND.keys);
        let mut sidecars = Writer::new(Sidecar::KIND.keys);
        let rules = Rules {
            destination_rules: destinations.cache(),
            virtual_services: routes.cache(),
            peer_authentications: peers.cache(),
            authorization_policies: policies.cache(),
            sidecars: sidecars.cache(),
            ..none()
        };
        let mut before = rules.version("team");
        let mut is_another = || {
            let now = rules.version("team");
            std::mem::replace(&mut before, now) != now
        };
        destinations.take(Event::Apply(DestinationRule::from_object(&of("edge"))));
        assert!(is_another());
        routes.take(Event::Apply(VirtualService::from_object(&of("edge"))));
        assert!(is_another());
        for (namespace, expected) in [("team", true), ("root", true), ("other", false)] {
            let object = of(namespace);
            peers.take(Event::Apply(PeerAuthentication::from_object(&object)));
            assert_eq!(is_another(), expected, "{namespace}");
            policies.take(Event::Apply(AuthorizationPolicy::from_object(&object)));
            assert_eq!(is_another(), expected, "{namespace}");
            sidecars.take(Event::Apply(Sidecar::from_object(&object)));
            assert_eq!(is_another(), expected, "{namespace}");
        }
    }

    #[test]
    fn another_istiod_is_another_version_for_all_namespaces_and_its_rollout_is_none() {
        let metadata = json!({ "name": "one", "namespace": "root" });
        let istiod = |status: &Value| -> Istiod {
            let istiod = json!({ "metadata": metadata, "status": status });
            serde_json::from_value::<Deployment>(istiod).unwrap().into()
        };
        let config = |labels: &Value| -> MeshConfig {
            let mesh = json!({ "discoverySelectors": [{ "matchLabels": labels }] }).to_string();
            let config = json!({ "metadata": metadata, "data": { "mesh": mesh } });
            serde_json::from_value::<ConfigMap>(config).unwrap().into()
        };
        let mut istiods = Writer::new(Istiod::KEYS);
        let mut configs = Writer::new(MeshConfig::KEYS);
        let rules = Rules {
            istiods: istiods.cache(),
            configs: configs.cache(),
            ..none()
        };
        let mut before = rules.version("team");
        let mut is_another = || {
            let now = rules.version("team");
            std::mem::replace(&mut before, now) != now
        };
        istiods.take(Event::Apply(istiod(&json!({}))));
        assert!(is_another());
        istiods.take(Event::Apply(istiod(&json!({ "readyReplicas": 1 }))));
        assert!(!is_another());
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(rules.istiod_back_for(at("2026-01-01T00:00:10Z")), None);
        for (status, expected) in [("True", Some(10)), ("False", None)] {
            let condition = json!({
                "type": "Available", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z",
            });
            istiods.take(Event::Apply(istiod(&json!({ "conditions": [condition] }))));
            assert!(!is_another());
            let back_for = rules.istiod_back_for(at("2026-01-01T00:00:10Z"));
            assert_eq!(back_for, expected.map(Duration::from_secs), "{status}");
        }
        configs.take(Event::Apply(config(&json!({ "mesh": "a" }))));
        assert!(is_another());
        configs.take(Event::Apply(config(&json!({ "mesh": "b" }))));
        assert!(is_another());
    }

    #[test]
    fn a_rule_of_ours_is_no_other_version_for_plans_and_touches_its_workload_alone() {
        let rule = |is_ours: bool| {
            let labels = if is_ours {
                json!({ "lull.dev/workload": "shop" })
            } else {
                json!({})
            };
            let metadata = json!({ "name": "web-lull", "namespace": "team", "labels": labels });
            let rule = json!({ "metadata": metadata, "spec": { "host": "web" } });
            DestinationRule::from_object(&object(&rule))
        };
        let mut writer = Writer::new(DestinationRule::KIND.keys);
        let rules = Rules {
            destination_rules: writer.cache(),
            ..none()
        };
        let versions = || {
            let ours = ["team", "other"].map(|namespace| rules.version_of_ours(namespace));
            [rules.version("team"), ours[0], ours[1]]
        };
        let mut before = versions();
        let mut changed = |event: Event<DestinationRule>| {
            writer.take(event);
            let now = versions();
            let before = std::mem::replace(&mut before, now);
            [0, 1, 2].map(|of| before[of] != now[of])
        };
        let ours_alone = [false, true, false];
        assert_eq!(changed(Event::Apply(rule(true))), ours_alone);
        // Its user makes it his own, and gives it back.
        assert_eq!(changed(Event::Apply(rule(false))), [true, true, false]);
        assert_eq!(changed(Event::Apply(rule(true))), [true, true, false]);
        assert_eq!(changed(Event::Delete(rule(true))), ours_alone);
        let touched = [true, false].map(|is_ours| (DestinationRule::KIND.touched)(&rule(is_ours)));
        let shop = Touched::Label("team".into(), "shop".into());
        let team = Touched::Namespaces(BTreeSet::from(["team".into()]));
        assert_eq!(touched, [shop, team]);
    }

    #[test]
    fn pods_are_selected_by_all_labels_and_without_a_selector_all_are() {
        let shop = labels(&json!({ "app": "shop", "tier": "web" })).unwrap();
        let wanted = labels(&json!({ "app": "shop" }));
        assert!(selects(wanted.as_ref(), &shop));
        assert!(selects(None, &shop));
        assert!(!selects(Some(&shop), &wanted.unwrap()));
        assert_eq!(labels(&json!({})), None);
    }

    #[test]
    fn who_is_touched_is_in_the_namespaces_of_the_hosts() {
        let touched = |hosts: &[Host]| touched_about(hosts.iter(), "own");
        let namespaces = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned());
            Touched::Namespaces(names.collect())
        };
        let shop = Host::Service("team".into(), "shop".into());
        let bank = Host::Service("team".into(), "bank".into());
        let edge = Host::Namespace("edge".into());
        let own = Touched::Namespace("own".into());
        assert_eq!(touched(&[]), own);
        assert_eq!(touched(&[Host::Foreign]), own);
        assert_eq!(touched(&[shop.clone(), bank]), namespaces(&["team"]));
        let two = [shop.clone(), Host::Foreign, edge];
        assert_eq!(touched(&two), namespaces(&["edge", "team"]));
        assert_eq!(touched(&[shop, Host::Every]), Touched::Workloads);
    }
}
