//! Durations and log filters: what is read is written so that it is read as the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lull_contract::HumanDuration;
use lull_process::logging::LogFilter;

fuzz_target!(|text: &str| {
    if let Ok(duration) = text.parse::<HumanDuration>() {
        assert_eq!(duration.to_string().parse(), Ok(duration));
    }
    if let Ok(filter) = text.parse::<LogFilter>() {
        assert!(filter.to_string().parse::<LogFilter>() == Ok(filter));
    }
});
