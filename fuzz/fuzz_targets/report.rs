//! Reports: any bytes are answered, and what is taken comes back as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use lull_contract::report::{ActivatorReport, QueueProxyReport, VERSION};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(report) = QueueProxyReport::parse(bytes) {
        assert_eq!(report.v, VERSION);
        let again = serde_json::to_vec(&report).expect("a report is JSON");
        assert_eq!(QueueProxyReport::parse(&again).expect("ours"), report);
    }
    if let Ok(report) = ActivatorReport::parse(bytes) {
        assert_eq!(report.v, VERSION);
        let again = serde_json::to_vec(&report).expect("a report is JSON");
        assert_eq!(ActivatorReport::parse(&again).expect("ours"), report);
    }
});
