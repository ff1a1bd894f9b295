//! What queue-proxies and activators tell the autoscaler (`GET /report` on [`crate::ports::REPORT`]).
//!
//! Counters only grow while a process lives; the reader takes differences, so a missed pull loses
//! nothing. `boot` changes with each process, so a restart is never taken for a drop. Times are
//! microseconds on the reporter's own monotonic clock: two reports of one boot give an exact
//! average, whatever the clocks of the two machines say. Who has called lately ([`Lately`]) is for
//! people, and no counter.

mod lately;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::lately::{
    CallerRequests, Lately, MAX_CALLER_BYTES, MAX_CLASS_BYTES, MAX_CLASSES, MAX_LATELY,
};

/// Version of the format; a reader refuses others.
pub const VERSION: u32 = 1;
/// Largest report of one queue-proxy, bytes: its callers take up to 2,700 of it, the rest has a fixed
/// number of fields.
pub const MAX_QUEUE_PROXY_BYTES: usize = 4 << 10;
/// Largest report of one activator, bytes: 22,000 workloads of at most 1,500 bytes, of which
/// [`MAX_CALLERS`] and the last wake's caller take up to 700.
pub const MAX_ACTIVATOR_BYTES: usize = 32 << 20;
/// Most callers that an activator names for a workload.
pub const MAX_CALLERS: usize = 4;
/// Longest text of what a caller asked for, bytes; it is cut before it is sent.
pub const MAX_ASKED_BYTES: usize = 192;
/// Query parameter of the activator's long poll: the `edge` that the reader has seen.
pub const SEEN_PARAM: &str = "seen";
/// Query parameter of the activator's long poll: longest wait, milliseconds.
pub const WAIT_PARAM: &str = "wait_ms";

/// Query parameter of an activator's report: the `sequence` of the last report that the reader had
/// from this process; without it the report is complete.
pub const SINCE_PARAM: &str = "since";

/// Load since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Requests (or byte-stream connections) in flight now, waiting ones included.
    pub in_flight: u64,
    /// Integral of `in_flight` over time: request-microseconds.
    pub in_flight_us: u64,
    /// Requests that have arrived.
    pub requests: u64,
}

/// Report of the queue-proxy of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueProxyReport {
    /// [`VERSION`].
    pub v: u32,
    /// Name of the pod.
    pub pod: String,
    /// Random per process.
    pub boot: u64,
    /// Microseconds since the process started.
    pub now_us: u64,
    /// Load of everything that counts as traffic.
    #[serde(flatten)]
    pub load: Load,
    /// Of those in flight, how many wait for a slot.
    pub queued: u64,
    /// Hard limit; 0 = none.
    pub limit: u32,
    /// The app answers its readiness check.
    pub app_ready: bool,
    /// A drain has begun.
    pub draining: bool,
    /// Established connections on the app's ports that did not come through the queue-proxy.
    pub bypass: u64,
    /// Who has called lately.
    #[serde(default, skip_serializing_if = "Lately::is_empty")]
    pub lately: Lately,
    /// App ports that are listened on at loopback alone, where the app is not ready: the queue-proxy calls
    /// it at the pod's address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loopback_only: Vec<u16>,
}

/// Report of one activator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivatorReport {
    /// [`VERSION`].
    pub v: u32,
    /// Name of the pod.
    pub pod: String,
    /// Random per process.
    pub boot: u64,
    /// Microseconds since the process started.
    pub now_us: u64,
    /// Grows each time a workload goes from nothing to held requests.
    pub edge: u64,
    /// Grows with each report; 0 = this activator always tells everything.
    #[serde(default)]
    pub sequence: u64,
    /// Workloads about which nothing has changed since the report that the reader named are left
    /// out. Where any has come or gone since, the report is complete.
    #[serde(default)]
    pub partial: bool,
    /// One entry for each workload that this activator listens for.
    pub workloads: Vec<HeldWorkload>,
}

/// What one activator holds for one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldWorkload {
    /// Namespace of the ScaledWorkload.
    pub namespace: String,
    /// Name of the ScaledWorkload.
    pub name: String,
    /// Its uid, so that a deleted and recreated one is told apart.
    pub uid: String,
    /// Ports on which this activator accepts connections for it.
    pub ports: Vec<u16>,
    /// Requests and connections held: what is let through is counted at the pods.
    #[serde(flatten)]
    pub held: Load,
    /// Requests and connections let through that have not ended; not what neither wakes nor counts, nor
    /// spliced connections on which nothing moves, which their pods count.
    pub forwarding: u64,
    /// For how long somebody has been held without a pause, microseconds; 0 = nobody is held.
    #[serde(default)]
    pub held_for_us: u64,
    /// The last wake, for a while after its first answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub woken: Option<Woken>,
    /// Who was held most often since the process started, by address; at most [`MAX_CALLERS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<CallerCount>,
    /// How its callers have come; told with what else has changed.
    #[serde(default, skip_serializing_if = "Ways::are_none")]
    pub ways: Ways,
}

/// Connections that were taken in since the process started, by what they carry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ways {
    /// HTTP/1, held and passed on by request.
    pub http1: u64,
    /// HTTP/2 without TLS, by request.
    pub h2c: u64,
    /// TLS, held and passed on by connection.
    pub tls: u64,
    /// Bytes on a port declared TCP, by connection.
    pub tcp: u64,
}

/// A wake as one activator saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {
    /// Which one it is, of those that this process saw of this workload.
    pub number: u64,
    /// Phases in their order, each with the time from the first one held to it, microseconds.
    pub phases_us: Vec<(String, u64)>,
    /// The first one held, with whom it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<SeenCaller>,
}

/// A caller as an activator saw it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCaller {
    /// Its address, without the port: a proxy's where there is one in between.
    pub address: String,
    /// What it asked for: the server name of TLS, or method, host and path of a plain request
    /// (without its query); empty where neither is seen. At most [`MAX_ASKED_BYTES`].
    #[serde(default)]
    pub asked: String,
}

/// How often a caller was held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerCount {
    /// Its address, without the port.
    pub address: String,
    /// Requests and connections of it that were held; where there are more callers than places, an
    /// upper bound.
    pub holds: u64,
}

/// What every version has.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// A report that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Longer than any honest one.
    #[error("report of {0} bytes is longer than the {1} allowed")]
    TooLong(usize, usize),
    /// Not the format.
    #[error("report is not version {VERSION} JSON: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Another version.
    #[error("report has version {0}, this autoscaler reads {VERSION}")]
    Version(u32),
    /// A number that no process reaches.
    #[error("report says {0}={1}, which is beyond {2}")]
    Absurd(&'static str, u64, u64),
    /// What it tells people of callers and wakes is no honest reporter's; all else can be used.
    #[error("report tells of callers or a wake with {0}={1}, which is beyond {2}")]
    Callers(&'static str, u64, u64),
}

/// More phases than a wake has, in this version or a later one.
const MAX_PHASES: usize = 32;
/// Longest name of a phase, bytes: more than any has.
const MAX_PHASE_BYTES: usize = 64;
/// Longest text of an address, bytes: IPv6 with a zone has less.
const MAX_ADDRESS_BYTES: usize = 64;
/// What that bounds.
const ADDRESS: &str = "bytes of an address";
/// More requests in flight than one process can hold (its file descriptors end long before).
const MAX_IN_FLIGHT: u64 = 1 << 24;

// === impl QueueProxyReport ===

impl QueueProxyReport {
    /// Reads and checks a report. Callers that no queue-proxy names are left out: no decision follows from
    /// them.
    ///
    /// # Errors
    /// [`ReportError`] where it is too long, malformed, of another version or absurd.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        Self::parse_telling(bytes, |_| {})
    }

    /// The same; `left_out` is told why callers were left out.
    ///
    /// # Errors
    /// As of [`Self::parse`].
    pub fn parse_telling(
        bytes: &[u8],
        left_out: impl FnOnce(&ReportError),
    ) -> Result<Self, ReportError> {
        let mut report: Self = read(bytes, MAX_QUEUE_PROXY_BYTES)?;
        check(report.v, &report.load)?;
        if let Err(error) = report.lately.check() {
            report.lately = Lately::default();
            left_out(&error);
        }
        Ok(report)
    }
}

// === impl ActivatorReport ===

impl ActivatorReport {
    /// Reads and checks a report. A workload's callers and wake that no activator tells are left out: no
    /// decision follows from them.
    ///
    /// # Errors
    /// [`ReportError`] where it is too long, malformed, of another version or absurd.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        Self::parse_telling(bytes, |_| {})
    }

    /// The same; `left_out` is told why anything was left out, of the first workload where it was.
    ///
    /// # Errors
    /// As of [`Self::parse`].
    pub fn parse_telling(
        bytes: &[u8],
        left_out: impl FnOnce(&ReportError),
    ) -> Result<Self, ReportError> {
        let mut report: Self = read(bytes, MAX_ACTIVATOR_BYTES)?;
        if report.v != VERSION {
            return Err(ReportError::Version(report.v));
        }
        let mut first = None;
        for workload in &mut report.workloads {
            check(report.v, &workload.held)?;
            if let Err(error) = workload.leave_out() {
                first = first.or(Some(error));
            }
        }
        if let Some(error) = first {
            left_out(&error);
        }
        Ok(report)
    }
}

// === impl Ways ===

impl Ways {
    /// Whether nobody has come.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            http1: self.http1.saturating_add(other.http1),
            h2c: self.h2c.saturating_add(other.h2c),
            tls: self.tls.saturating_add(other.tls),
            tcp: self.tcp.saturating_add(other.tcp),
        }
    }
}

// === impl HeldWorkload ===

impl HeldWorkload {
    /// Leaves out what it tells people that is larger than any honest reporter makes it, and says what
    /// that is.
    fn leave_out(&mut self) -> Result<(), ReportError> {
        let woken = self.woken.as_ref().map_or(Ok(()), Woken::check);
        if woken.is_err() {
            self.woken = None;
        }
        let callers = self.check_callers();
        if callers.is_err() {
            self.callers.clear();
        }
        woken.and(callers)
    }

    fn check_callers(&self) -> Result<(), ReportError> {
        let addresses = self.callers.iter().map(|caller| caller.address.len());
        within([
            ("callers", self.callers.len(), MAX_CALLERS),
            (ADDRESS, addresses.max().unwrap_or(0), MAX_ADDRESS_BYTES),
        ])
    }
}

// === impl Woken ===

impl Woken {
    /// Nothing of it is larger than any honest reporter makes it.
    fn check(&self) -> Result<(), ReportError> {
        let names = self.phases_us.iter().map(|(name, _)| name.len());
        let by = self.by.as_ref();
        let (address, asked) = by.map_or((0, 0), |by| (by.address.len(), by.asked.len()));
        within([
            ("phases", self.phases_us.len(), MAX_PHASES),
            (
                "bytes of a phase's name",
                names.max().unwrap_or(0),
                MAX_PHASE_BYTES,
            ),
            (ADDRESS, address, MAX_ADDRESS_BYTES),
            ("bytes of what was asked for", asked, MAX_ASKED_BYTES),
        ])
    }
}

/// Each of `sizes`, by its name, is no larger than its bound.
fn within<const N: usize>(sizes: [(&'static str, usize, usize); N]) -> Result<(), ReportError> {
    match sizes.into_iter().find(|(_, got, most)| got > most) {
        Some((what, got, most)) => Err(ReportError::Callers(what, got as u64, most as u64)),
        None => Ok(()),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, ReportError> {
    if bytes.len() > max {
        return Err(ReportError::TooLong(bytes.len(), max));
    }
    serde_json::from_slice(bytes).map_err(|error| match serde_json::from_slice(bytes) {
        // Another version need not look like ours.
        Ok(Versioned { v }) if v != VERSION => ReportError::Version(v),
        _ => ReportError::Malformed(error),
    })
}

fn check(version: u32, load: &Load) -> Result<(), ReportError> {
    if version != VERSION {
        return Err(ReportError::Version(version));
    }
    if load.in_flight > MAX_IN_FLIGHT {
        return Err(ReportError::Absurd(
            "in_flight",
            load.in_flight,
            MAX_IN_FLIGHT,
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
