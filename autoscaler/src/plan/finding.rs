//! What stands in the way of a workload, or what its user should know.

use std::fmt;

/// Whether a finding stops enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The workload is not enrolled, or is kept awake where it is, until this has gone.
    Refuse,
    /// Said, nothing more.
    Warn,
}

/// Why, in one word: of conditions and Events, and the key of `docs/enrolment.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// An annotation is wrong; the webhook refuses these and can only have been away.
    BadAnnotation,
    /// There is no pod template to put the sidecar into.
    NoTemplate,
    /// No container declares a TCP port, and no annotation names one.
    NoPort,
    /// The pods share the node's ports.
    HostNetwork,
    /// The rollout is paused, so no pod would get the sidecar.
    Paused,
    /// No Service carries the workload's traffic.
    NoService,
    /// A Service is only a DNS name.
    ExternalName,
    /// A Service has no address of its own.
    Headless,
    /// A Service's traffic stays on the node.
    LocalTraffic,
    /// A Service sends traffic to pods that aren't ready.
    NotReadyAddresses,
    /// A Service has pods of another workload behind it.
    SharedService,
    /// A Service's port targets a port that Lull doesn't serve.
    UndeclaredPort,
    /// A Service's port targets a name that no container declares.
    UnknownTargetPort,
    /// Somebody else scales the workload.
    OtherScaler,
    /// A NetworkPolicy keeps Lull, or callers on Lull's ports, from the pods.
    PolicyBlocks,
    /// A NetworkPolicy lets fewer callers in than activators would let through.
    PolicyNarrower,
    /// A Service has ports that are not TCP.
    NotHeld,
    /// A Service keeps a client on one pod.
    SessionAffinity,
    /// The grace period is too short for a drain.
    ShortGrace,
    /// The grace period is shorter than the longest request.
    GraceBelowTimeout,
    /// A container has a preStop of its own.
    OwnPreStop,
    /// Pods get a new template only when somebody sees to it.
    ManualRollout,
    /// A PodDisruptionBudget keeps the last pod from being evicted.
    BudgetHoldsDrains,
}

/// One thing that stands in the way or should be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Why.
    pub reason: Reason,
    /// What it is about: kind and name, for instance `Service shop`.
    pub object: String,
    /// What is with the object and what to do, as the rest of a sentence that begins with it.
    pub message: String,
}

// === impl Reason ===

impl Reason {
    /// Every one.
    pub const ALL: [Self; 23] = [
        Self::BadAnnotation,
        Self::NoTemplate,
        Self::NoPort,
        Self::HostNetwork,
        Self::Paused,
        Self::NoService,
        Self::ExternalName,
        Self::Headless,
        Self::LocalTraffic,
        Self::NotReadyAddresses,
        Self::SharedService,
        Self::UndeclaredPort,
        Self::UnknownTargetPort,
        Self::OtherScaler,
        Self::PolicyBlocks,
        Self::PolicyNarrower,
        Self::NotHeld,
        Self::SessionAffinity,
        Self::ShortGrace,
        Self::GraceBelowTimeout,
        Self::OwnPreStop,
        Self::ManualRollout,
        Self::BudgetHoldsDrains,
    ];

    /// Whether it stops enrolment.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::NotHeld
            | Self::SessionAffinity
            | Self::ShortGrace
            | Self::GraceBelowTimeout
            | Self::OwnPreStop
            | Self::ManualRollout
            | Self::BudgetHoldsDrains => Severity::Warn,
            _ => Severity::Refuse,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

// === impl Finding ===

impl Finding {
    /// What is found about `object`, of which `message` says the rest.
    #[must_use]
    pub fn new(reason: Reason, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            reason,
            object: object.into(),
            message: message.into(),
        }
    }

    /// Whether it stops enrolment.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.reason.severity() == Severity::Refuse
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.message)
    }
}
