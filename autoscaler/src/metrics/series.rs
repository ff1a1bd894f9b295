//! Numbers of each workload, under its namespace and name.
//!
//! They are kept as they were seen together, once for all metrics, and are made into text when
//! somebody asks: a workload takes about 200 bytes for that, where a family of gauges for each
//! metric would take three times as much, and what a page shows of a workload is of one moment. A
//! page has about 600 bytes for each workload.

use std::{collections::BTreeMap, fmt, sync::Arc};

use lull_contract::scaled_workload::State;
use parking_lot::{Mutex, RwLock};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, metrics::MetricType};

use crate::context::Key;

/// What was seen last of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbers {
    /// Step of its life.
    pub state: State,
    /// Pods wanted.
    pub desired: u32,
    /// Pods that take traffic.
    pub ready: u32,
    /// In flight at pods plus held at activators.
    pub in_flight: u64,
    /// Held at activators.
    pub held: u64,
    /// The panic window rules: the count only grows.
    pub panicking: bool,
    /// Every ready pod and activator was heard lately.
    pub heard: bool,
}

/// The series of one workload; they are gone with it.
#[derive(Debug)]
pub struct Series {
    number: u64,
    cell: Arc<Cell>,
    workloads: Workloads,
}

/// Every workload's series. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Workloads {
    open: Arc<RwLock<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    /// By the number of each: in the order in which they were opened.
    cells: BTreeMap<u64, Arc<Cell>>,
    opened: u64,
}

#[derive(Debug)]
struct Cell {
    namespace: Box<str>,
    name: Box<str>,
    /// `None`: not decided for by this replica.
    numbers: Mutex<Option<Numbers>>,
}

/// Name and help of a gauge, and its value.
type Row = (&'static str, &'static str, fn(&Numbers) -> u64);

const GAUGES: [Row; 6] = [
    ("desired_pods", "Pods that the last decision wants.", |n| {
        n.desired.into()
    }),
    ("ready_pods", "Pods that take traffic.", |n| n.ready.into()),
    (
        "in_flight",
        "In flight at pods plus held at activators.",
        |n| n.in_flight,
    ),
    ("held", "Held at activators.", |n| n.held),
    (
        "panicking",
        "Whether the panic window rules: the count only grows.",
        |n| n.panicking.into(),
    ),
    (
        "heard",
        "Whether every ready pod and activator was heard lately: else nothing shrinks.",
        |n| n.heard.into(),
    ),
];

// === impl Series ===

impl Series {
    /// Shows `numbers` from now on.
    pub fn observe(&self, numbers: Numbers) {
        *self.cell.numbers.lock() = Some(numbers);
    }

    /// Shows another state, where anything is shown.
    pub fn enter(&self, state: State) {
        if let Some(numbers) = self.cell.numbers.lock().as_mut() {
            numbers.state = state;
        }
    }

    /// Shows nothing, until something is observed: another replica decides for the workload.
    pub fn hide(&self) {
        *self.cell.numbers.lock() = None;
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.workloads.open.write().cells.remove(&self.number);
    }
}

// === impl Workloads ===

impl Workloads {
    /// Series for the workload `key` that show nothing yet.
    pub(super) fn open(&self, key: &Key) -> Series {
        let cell = Arc::new(Cell {
            namespace: key.namespace.as_str().into(),
            name: key.name.as_str().into(),
            numbers: Mutex::new(None),
        });
        let mut open = self.open.write();
        open.opened += 1;
        let number = open.opened;
        open.cells.insert(number, Arc::clone(&cell));
        Series {
            number,
            cell,
            workloads: self.clone(),
        }
    }

    /// All that is shown now; no task waits while it is made into text.
    fn seen(&self) -> Vec<(Arc<Cell>, Numbers)> {
        let open = self.open.read();
        let cells = open.cells.values();
        cells
            .filter_map(|cell| Some((Arc::clone(cell), (*cell.numbers.lock())?)))
            .collect()
    }
}

impl Collector for Workloads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seen = self.seen();
        for (name, help, value) in GAUGES {
            let mut gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (cell, numbers) in &seen {
                let labels = cell.labels();
                gauge
                    .encode_family(&labels)?
                    .encode_gauge(&value(numbers))?;
            }
        }
        let help = "1 for the state that the workload is in, and for the mode that goes with it.";
        let mut gauge =
            encoder.encode_descriptor("workload_state", help, None, MetricType::Gauge)?;
        for (cell, numbers) in &seen {
            let state = numbers.state.to_string();
            let mode = numbers.state.mode().to_string();
            let [namespace, workload] = cell.labels();
            let labels = [
                namespace,
                workload,
                ("state", state.as_str()),
                ("mode", mode.as_str()),
            ];
            gauge.encode_family(&labels)?.encode_gauge(&1_u64)?;
        }
        Ok(())
    }
}

// === impl Cell ===

impl Cell {
    fn labels(&self) -> [(&str, &str); 2] {
        [("namespace", &*self.namespace), ("workload", &*self.name)]
    }
}
