//! Whether the cluster knows ScaledWorkloads, and as this program does.

use serde_json::Value;

use super::{Area, Finding, Seen};
use crate::words::some_of;

/// Fields that are named at most.
const MAX_NAMED: usize = 5;

/// Findings about the CustomResourceDefinition.
pub(super) fn find(seen: &Seen, findings: &mut Vec<Finding>) {
    findings.push(match &seen.workloads {
        Ok(Some(_)) => Area::Install.good("the cluster knows ScaledWorkloads"),
        Ok(None) => Area::Install.problem(
            "the cluster doesn't know ScaledWorkloads: Lull is not installed",
            format!(
                "helm install lull charts/lull --namespace {} --create-namespace",
                seen.namespace
            ),
        ),
        Err(why) => Area::Install.unknown("ScaledWorkloads", why),
    });
    match &seen.unknown_fields {
        Ok(Some(fields)) if !fields.is_empty() => findings.push(older(fields)),
        // Where there is none that has been said.
        Ok(_) => {}
        Err(why) => findings.push(Area::Install.unknown("the definition of ScaledWorkloads", why)),
    }
}

fn older(fields: &[String]) -> Finding {
    Area::Install.warning(
        format!(
            "the cluster's ScaledWorkloads lack {}: their CustomResourceDefinition is older \
             than this kubectl lull, and what an autoscaler of its version writes there is lost",
            some_of(fields, MAX_NAMED)
        ),
        "helm upgrade, which takes the definition along; by GitOps, don't leave CRDs out; where Lull \
         itself is older, take its kubectl lull",
    )
}

/// What the definition `there` lacks of `wanted`: fields, and values of those that have few.
pub(super) fn lacking(there: &Value, wanted: &Value) -> Vec<String> {
    let Some(wanted) = wanted["spec"]["versions"].get(0) else {
        return Vec::new();
    };
    let versions = there["spec"]["versions"].as_array().into_iter().flatten();
    let mut same = versions.filter(|version| version["name"] == wanted["name"]);
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    let Some(there) = same.next() else {
        return vec![format!("version {}", wanted["name"])];
    };
    let mut found = Vec::new();
    compare("", &schema(there), &schema(wanted), &mut found);
    found
}

fn compare(path: &str, there: &Value, wanted: &Value, found: &mut Vec<String>) {
    let fields = wanted["properties"].as_object().into_iter().flatten();
    for (name, wanted) in fields {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match there["properties"].get(name) {
            Some(there) => compare(&path, there, wanted, found),
            None => found.push(path),
        }
    }
    if let (Some(there), Some(wanted)) = (there.get("items"), wanted.get("items")) {
        compare(path, there, wanted, found);
    }
    if let (Some(there), Some(wanted)) = (there["enum"].as_array(), wanted["enum"].as_array()) {
        let values = wanted.iter().filter(|value| !there.contains(value));
        found.extend(values.map(|value| format!("{path} = {value}")));
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::scaled_workload;

    use super::*;

    #[test]
    fn a_definition_of_this_version_lacks_nothing() {
        let own = scaled_workload::crd().unwrap();
        assert_eq!(lacking(&own, &own), [""; 0]);
    }

    #[test]
    fn fields_and_values_that_an_older_definition_lacks_are_named() {
        let own = scaled_workload::crd().unwrap();
        let mut older = own.clone();
        let schema = &mut older["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let status = &mut schema["properties"]["status"]["properties"];
        let removed = status.as_object_mut().unwrap().remove("savedPodSeconds");
        assert!(removed.is_some(), "{status}");
        let wake = &mut status["wakes"]["items"]["properties"];
        assert!(wake.as_object_mut().unwrap().remove("waitedMs").is_some());
        let states = status["state"]["enum"].as_array_mut().unwrap();
        states.retain(|state| state != "Planned");
        let mut lacking = lacking(&older, &own);
        lacking.sort();
        let expected = [
            "status.savedPodSeconds",
            "status.state = \"Planned\"",
            "status.wakes.waitedMs",
        ];
        assert_eq!(lacking, expected);
        let finding = super::older(&lacking);
        assert!(
            finding.message.contains("status.savedPodSeconds"),
            "{finding:?}"
        );
    }

    #[test]
    fn another_version_of_the_api_is_all_that_is_named() {
        let own = scaled_workload::crd().unwrap();
        let mut other = own.clone();
        other["spec"]["versions"][0]["name"] = "v1alpha0".into();
        assert_eq!(lacking(&other, &own), ["version \"v1alpha1\""]);
    }

    #[test]
    fn of_many_fields_some_are_named() {
        let fields: Vec<String> = (0..7).map(|number| format!("status.f{number}")).collect();
        let finding = older(&fields);
        assert!(
            finding.message.contains("status.f4 and 2 more"),
            "{finding:?}"
        );
    }
}
