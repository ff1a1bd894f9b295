//! Annotations, one `key=value` a line, the prefix left out: whatever users write is taken whole or
//! refused with reasons.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use lull_contract::annotations::{self, PREFIX};

fuzz_target!(|text: &str| {
    let annotations: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (format!("{PREFIX}{key}"), value.to_owned()))
        .collect();
    match annotations::parse(&annotations) {
        Ok(wanted) => {
            let settings = &wanted.settings;
            assert!(settings.target_per_pod() > 0.0 && settings.total_per_pod().is_finite());
            assert!(settings.panic_window() <= settings.window.0);
            assert!(settings.max_scale == 0 || settings.min_scale <= settings.max_scale);
            assert!(wanted.ports.is_none_or(|ports| !ports.is_empty()));
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            assert!(
                errors
                    .iter()
                    .all(|error| annotations.contains_key(&error.key))
            );
        }
    }
    let _ = (
        annotations::leave(&annotations),
        annotations::opted_in(&annotations),
    );
});
