//! The queue-proxy's environment, one `NAME=value` a line, `QP_` left out: what must be set is there
//! and may be overwritten.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use queue_proxy::Config;

fuzz_target!(|text: &str| {
    let given = text.lines().filter_map(|line| line.split_once('='));
    let vars: BTreeMap<String, String> = [
        ("PORTS", "8012=8080/http"),
        ("POD_IP", "10.0.0.7"),
        ("POD_NAME", "shop-1"),
        ("POD_NAMESPACE", "default"),
    ]
    .into_iter()
    .chain(given)
    .map(|(key, value)| (format!("QP_{key}"), value.to_owned()))
    .collect();
    match Config::read(&vars) {
        Ok(config) => {
            assert!(!config.ports.is_empty() && !config.app_probes.is_empty());
            assert!(config.ports.iter().all(|port| port.app != 0));
            assert!(!config.timeout.0.is_zero());
            serde_json::to_string(&config).expect("the admin page shows it");
        }
        Err(faults) => {
            assert!(!faults.0.is_empty());
            assert!(faults.0.iter().all(|fault| !fault.allowed.is_empty()));
        }
    }
});
