//! Where an endpoint is, as Istio writes it: `region/zone/subzone`.
//!
//! Of a pod Istio asks its node. Lull may read no nodes and needs none: Kubernetes writes a node's
//! region and zone on the pods that it binds there (by default since 1.35), and Istio's own label says
//! all three where somebody has put it on the pods.

use std::collections::BTreeMap;

use lull_contract::names::{REGION_LABEL, ZONE_LABEL};

/// Istio's labels of pods for a locality of their own, the newer one first; `.` may stand for `/`.
const OWN: [&str; 2] = ["topology.istio.io/locality", "istio-locality"];
/// Istio's label for the third part.
const SUBZONE_LABEL: &str = "topology.istio.io/subzone";

/// The locality of pods with these labels; `None` where nothing is known.
#[must_use]
pub fn locality(labels: &BTreeMap<String, String>) -> Option<String> {
    if let Some(own) = own_locality(labels) {
        return Some(own);
    }
    let parts = [REGION_LABEL, ZONE_LABEL, SUBZONE_LABEL];
    let parts = parts.map(|label| labels.get(label).map_or("", String::as_str));
    let locality = parts.join("/");
    let locality = locality.trim_end_matches('/');
    (!locality.is_empty()).then(|| locality.to_owned())
}

/// What Istio's own label says in the place of the node.
pub(super) fn own_locality(labels: &BTreeMap<String, String>) -> Option<String> {
    let own = OWN.iter().find_map(|label| labels.get(*label))?;
    let locality = match own.contains('/') {
        true => own.clone(),
        false => own.replace('.', "/"),
    };
    (!locality.is_empty()).then_some(locality)
}

/// Whether a rule for the locality `rule` is about `locality`, as Istio compares them: region, zone and
/// subzone, of which `*`, or nothing for the last two, is any.
#[must_use]
pub fn is_about(rule: &str, locality: &str) -> bool {
    let part = |text: &str, index: usize| text.split('/').nth(index).unwrap_or_default().to_owned();
    (0..3).all(|index| {
        let wanted = part(rule, index);
        let is_any = wanted == "*" || (index > 0 && wanted.is_empty());
        is_any || wanted == part(locality, index)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Labels = &'static [(&'static str, &'static str)];

    #[test]
    fn region_and_zone_are_what_kubernetes_has_written_on_the_pod() {
        let rows: [(Labels, Option<&str>); 8] = [
            (&[], None),
            (&[("app", "activator")], None),
            (
                &[(REGION_LABEL, "eu"), (ZONE_LABEL, "eu-1")],
                Some("eu/eu-1"),
            ),
            (&[(REGION_LABEL, "eu")], Some("eu")),
            (&[(ZONE_LABEL, "eu-1")], Some("/eu-1")),
            (
                &[
                    (REGION_LABEL, "eu"),
                    (ZONE_LABEL, "eu-1"),
                    (SUBZONE_LABEL, "rack"),
                ],
                Some("eu/eu-1/rack"),
            ),
            // Istio's own label goes before; in a label's value there can be no slash.
            (
                &[(REGION_LABEL, "eu"), (OWN[1], "us.us-1")],
                Some("us/us-1"),
            ),
            (
                &[(OWN[1], "us.us-1"), (OWN[0], "asia.a.b")],
                Some("asia/a/b"),
            ),
        ];
        for (labels, expected) in rows {
            let labels = labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let labels: BTreeMap<String, String> = labels.collect();
            assert_eq!(locality(&labels).as_deref(), expected, "{labels:?}");
        }
    }

    #[test]
    fn localities_are_compared_as_istio_compares_them() {
        let rows = [
            ("eu/eu-1/*", "eu/eu-1", true),
            ("eu/eu-1", "eu/eu-1/rack", true),
            ("eu/*", "eu/eu-2", true),
            ("eu", "eu/eu-2", true),
            ("*", "eu/eu-1", true),
            ("*", "", true),
            ("eu/eu-1", "eu/eu-2", false),
            ("eu/eu-1/rack", "eu/eu-1", false),
            ("eu", "", false),
            ("us", "eu", false),
        ];
        for (rule, locality, expected) in rows {
            assert_eq!(is_about(rule, locality), expected, "{rule} {locality}");
        }
    }
}
