//! Whether the webhook is asked, reached and trusted.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhook;
use kube::ResourceExt;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Area, Finding, Level, Seen, ready_addresses};

/// The webhook renews its authority long before; one that is as old as this has not been renewed.
const MARGIN: SignedDuration = SignedDuration::from_hours(24 * 14);

/// On the configuration where cert-manager writes the `caBundle`s (docs/chart.md).
const INJECT_CA_FROM: &str = "cert-manager.io/inject-ca-from";

/// Findings about the webhook and its certificates.
pub(super) fn find(seen: &Seen, findings: &mut Vec<Finding>) {
    let logs = format!("kubectl -n {} logs deployment/lull-webhook", seen.namespace);
    match &seen.webhook {
        Ok(Some(configuration)) => {
            findings.push(Area::Webhook.good("the API server asks the webhook"));
            let is_cert_managers = configuration.annotations().contains_key(INJECT_CA_FROM);
            for webhook in configuration.webhooks.iter().flatten() {
                let finding = trust(webhook, seen.now, &logs);
                findings.push(if is_cert_managers && finding.level != Level::Good {
                    of_cert_manager(finding, &seen.namespace)
                } else {
                    finding
                });
            }
        }
        Ok(None) => findings.push(Area::Webhook.problem(
            "there is no MutatingWebhookConfiguration lull-webhook: nothing is enrolled",
            "helm upgrade with the same version and values",
        )),
        Err(why) => findings.push(Area::Webhook.unknown("the webhook's configuration", why)),
    }
    endpoints(seen, findings);
    answers(seen, &logs, findings);
}

fn endpoints(seen: &Seen, findings: &mut Vec<Finding>) {
    findings.push(match &seen.webhook_slices {
        Ok(slices) if ready_addresses(slices).is_empty() => Area::Webhook.problem(
            "Service lull-webhook has no ready endpoint: changes go on without being enrolled",
            format!(
                "kubectl -n {} get pods -l app.kubernetes.io/component=webhook",
                seen.namespace
            ),
        ),
        Ok(slices) => {
            let count = ready_addresses(slices).len();
            Area::Webhook.good(format!("its Service has ready endpoints ({count})"))
        }
        Err(why) => Area::Webhook.unknown("endpoints of Service lull-webhook", why),
    });
}

fn answers(seen: &Seen, logs: &str, findings: &mut Vec<Finding>) {
    findings.push(match &seen.is_injected {
        Ok(true) => Area::Webhook.good("a Deployment that asks for it gets the sidecar (dry run)"),
        Ok(false) => Area::Webhook.problem(
            "a Deployment that asks for it doesn't get the sidecar (dry run): the API server does \
             not reach the webhook, or its certificate is not good any more",
            format!(
                "let the API server reach port 9443 of the webhook's pods (NetworkPolicies, \
                 firewalls); where it does: kubectl -n {} rollout restart deployment lull-webhook; {logs}",
                seen.namespace
            ),
        ),
        Err(why) => Area::Webhook.unknown("whether a Deployment gets the sidecar", why),
    });
}

/// Whether the API server trusts the certificate of `webhook`.
fn trust(webhook: &MutatingWebhook, now: Timestamp, logs: &str) -> Finding {
    let name = &webhook.name;
    let Some(bundle) = &webhook.client_config.ca_bundle else {
        let text = format!("{name} has no caBundle: the API server can't trust the webhook");
        return Area::Certificates.problem(text, format!("the webhook writes it; {logs}"));
    };
    match last_end(&bundle.0) {
        None => Area::Certificates.problem(
            format!("the caBundle of {name} can't be read"),
            format!("the webhook puts it right when it starts; {logs}"),
        ),
        Some(end) if end <= now => Area::Certificates.problem(
            format!("every certificate in the caBundle of {name} has ended, the last one at {end}"),
            format!("restart the webhook, which makes a new one; {logs}"),
        ),
        Some(end) if end.duration_since(now) < MARGIN => Area::Certificates.warning(
            format!("the caBundle of {name} ends at {end} and was not renewed"),
            logs,
        ),
        Some(end) => Area::Certificates.good(format!("{name} is trusted until {end}")),
    }
}

/// The same finding where the webhook itself has no say in its certificate.
fn of_cert_manager(finding: Finding, namespace: &str) -> Finding {
    let look = format!("kubectl -n {namespace} describe certificate lull-webhook");
    Finding {
        fix: format!("cert-manager writes it, by its CA injector; {look}"),
        ..finding
    }
}

/// When the last certificate of a PEM bundle ends; `None` where there is none.
fn last_end(bundle: &[u8]) -> Option<Timestamp> {
    let certificates = CertificateDer::pem_slice_iter(bundle);
    let ends = certificates.filter_map(|certificate| {
        let certificate = certificate.ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()
    });
    ends.max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A webhook with a caBundle of one certificate that ends on this day of March 2026.
    fn webhook(day: u8) -> MutatingWebhook {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["lull".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2026, 3, day);
        let pem = params.self_signed(&key).unwrap().pem();
        let mut webhook: MutatingWebhook = serde_json::from_value(json!({
            "name": "workloads.lull.dev", "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": {},
        }))
        .unwrap();
        webhook.client_config.ca_bundle = Some(k8s_openapi::ByteString(pem.into_bytes()));
        webhook
    }

    #[test]
    fn a_certificate_is_looked_at_before_it_ends() {
        let now = "2026-03-10T00:00:00Z".parse().unwrap();
        let rows = [
            (31, Level::Good, "trusted until 2026-03-31"),
            (15, Level::Warning, "was not renewed"),
            (9, Level::Problem, "has ended"),
        ];
        for (day, level, part) in rows {
            let finding = trust(&webhook(day), now, "look at the logs");
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.message.contains(part), "{finding:?}");
        }
    }

    #[test]
    fn who_writes_the_bundle_is_who_is_asked() {
        let now = "2026-03-10T00:00:00Z".parse().unwrap();
        let finding = of_cert_manager(trust(&webhook(9), now, "look at the logs"), "lull-system");
        assert_eq!(finding.level, Level::Problem);
        assert!(
            finding.fix.ends_with("describe certificate lull-webhook"),
            "{finding:?}"
        );
    }
}
