//! Traffic over time, and the workload that gets it.

use lull_contract::Settings;

/// Requests per second at a second of the run.
pub type Rate = fn(f64) -> f64;

/// A run's input.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// For the table and the file of the plot.
    pub name: &'static str,
    /// In a few words.
    pub what: &'static str,
    /// Seconds of virtual time.
    pub seconds: u32,
    /// Requests per second over time.
    pub rate: Rate,
    /// Mean seconds that a pod works on a request (exponentially distributed).
    pub service: f64,
    /// Shortest and longest seconds from a pod's creation to its first answer.
    pub start: (f64, f64),
    /// The workload's settings.
    pub settings: Settings,
}

/// Every scenario, in the order of the table.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let usual = Scenario {
        name: "",
        what: "",
        seconds: 600,
        rate: |_| 0.0,
        service: 0.5,
        start: (0.6, 3.0),
        settings: Settings::default(),
    };
    vec![
        Scenario {
            name: "step",
            what: "200 requests/s out of nothing for 5 minutes",
            rate: |t| {
                if (60.0..360.0).contains(&t) {
                    200.0
                } else {
                    0.0
                }
            },
            ..usual.clone()
        },
        Scenario {
            name: "ramp",
            what: "up to 1,000 requests/s within 5 minutes, and down again",
            seconds: 900,
            rate: |t| (1_000.0 - (t - 330.0).abs() / 0.3).max(0.0),
            ..usual.clone()
        },
        Scenario {
            name: "spike",
            what: "50 requests/s, twenty times as many for 30 s",
            seconds: 700,
            rate: |t| match t {
                t if (300.0..330.0).contains(&t) => 1_000.0,
                t if t < 540.0 => 50.0,
                _ => 0.0,
            },
            ..usual.clone()
        },
        Scenario {
            name: "diurnal",
            what: "two days of 15 minutes, up to 400 requests/s, nights without any",
            seconds: 1_800,
            rate: |t| (400.0 * (t * std::f64::consts::TAU / 900.0).sin()).max(0.0),
            ..usual.clone()
        },
        Scenario {
            name: "sparse",
            what: "a request every two minutes",
            seconds: 3_600,
            rate: |_| 1.0 / 120.0,
            ..usual.clone()
        },
        Scenario {
            name: "cc1",
            what: "16 requests/s, one at a time in each pod",
            rate: |t| {
                if (60.0..360.0).contains(&t) {
                    16.0
                } else {
                    0.0
                }
            },
            settings: Settings {
                container_concurrency: 1,
                target_burst_capacity: 10,
                queue_depth: 10,
                ..Settings::default()
            },
            ..usual.clone()
        },
        Scenario {
            name: "streams",
            what: "a stream every 5 s, each open for 5 minutes in the mean",
            seconds: 3_600,
            rate: |t| if t < 900.0 { 0.2 } else { 0.0 },
            service: 300.0,
            settings: Settings {
                target: 20.0,
                ..Settings::default()
            },
            ..usual
        },
    ]
}
