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
    /// The pods are for nodes with Windows.
    Windows,
    /// The app listens where the queue-proxy doesn't call it.
    LoopbackOnly,
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
    /// A Service says that a port speaks no HTTP, and Lull would read it so.
    NotHttp,
    /// Somebody else's object has the name of one that Lull would write.
    NameTaken,
    /// Somebody else scales the workload.
    OtherScaler,
    /// A NetworkPolicy keeps Lull, or callers on Lull's ports, from the pods.
    PolicyBlocks,
    /// A NetworkPolicy lets fewer callers in than activators would let through.
    PolicyNarrower,
    /// A ResourceQuota wants every container to say what the sidecar doesn't.
    QuotaDemands,
    /// A ResourceQuota has room for no pod with the sidecar.
    QuotaTooSmall,
    /// The sidecar is out of what a LimitRange lets containers have.
    OutOfLimitRange,
    /// Istio's mutual TLS is set for a port to which traffic no longer comes, or never while asleep.
    MtlsByPort,
    /// An Istio policy has rules for a port to which traffic no longer comes.
    PolicyByPort,
    /// An Istio policy has rules on addresses, which are activators' for a time.
    PolicyByAddress,
    /// Istio's listeners are named, and the sidecar's ports are not among them.
    SidecarIngress,
    /// Istiod lets Services select no activators.
    EntriesIgnored,
    /// No activator has an address of a Service's family.
    FamilyNotHeld,
    /// A Service has ports that are not TCP.
    NotHeld,
    /// Nodes lead callers to the app's ports, past every Service.
    HostPort,
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
    /// A ResourceQuota has room for fewer pods than Lull starts.
    QuotaShort,
    /// Pods are Guaranteed without the sidecar, and not with it.
    QosClass,
    /// Callers in the mesh speak TLS of their own with the app.
    OwnTls,
    /// Callers in the mesh expect an identity that the pods don't have.
    OtherIdentity,
    /// Callers in the mesh leave an endpoint out after failures.
    OutlierDetection,
    /// Callers in the mesh are sent to localities in which no activator is.
    NoActivatorThere,
    /// Callers in the mesh let few others wait.
    ConnectionLimits,
    /// Callers in the mesh wait for a connection for less than a wake takes.
    ShortConnectTimeout,
    /// Callers in the mesh give up before activators do.
    LongHold,
    /// Wakes took longer lately than one try of callers in the mesh to connect.
    LongWakes,
    /// Activators are to stand by behind pods, and callers in the mesh don't tell the two apart.
    NoStandby,
    /// A route lets a request take less time than a wake.
    ShortRouteTimeout,
    /// Callers' Envoys don't know the Service.
    HiddenHost,
    /// Istiod looks at some namespaces only.
    DiscoverySelectors,
    /// The mesh may have callers in other clusters.
    OtherClusters,
    /// Istio's container ends with the app's, and the template was made for one that ends last.
    ClassicProxy,
    /// There is no activator at all, so the workload is kept awake.
    NoActivator,
}

/// One thing that stands in the way or should be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Why.
    pub reason: Reason,
    /// What it is about: kind and name, for instance `Service shop`; where it is of another namespace
    /// than the workload, `VirtualService edge/shop`.
    pub object: String,
    /// What is with the object and what to do, as the rest of a sentence that begins with it.
    pub message: String,
}

// === impl Reason ===

impl Reason {
    /// Every one.
    pub const ALL: [Self; 54] = [
        Self::BadAnnotation,
        Self::NoTemplate,
        Self::NoPort,
        Self::HostNetwork,
        Self::Windows,
        Self::LoopbackOnly,
        Self::Paused,
        Self::NoService,
        Self::ExternalName,
        Self::Headless,
        Self::LocalTraffic,
        Self::NotReadyAddresses,
        Self::SharedService,
        Self::UndeclaredPort,
        Self::UnknownTargetPort,
        Self::NotHttp,
        Self::NameTaken,
        Self::OtherScaler,
        Self::PolicyBlocks,
        Self::PolicyNarrower,
        Self::QuotaDemands,
        Self::QuotaTooSmall,
        Self::OutOfLimitRange,
        Self::MtlsByPort,
        Self::PolicyByPort,
        Self::PolicyByAddress,
        Self::SidecarIngress,
        Self::EntriesIgnored,
        Self::FamilyNotHeld,
        Self::NotHeld,
        Self::HostPort,
        Self::SessionAffinity,
        Self::ShortGrace,
        Self::GraceBelowTimeout,
        Self::OwnPreStop,
        Self::ManualRollout,
        Self::BudgetHoldsDrains,
        Self::QuotaShort,
        Self::QosClass,
        Self::OwnTls,
        Self::OtherIdentity,
        Self::OutlierDetection,
        Self::NoActivatorThere,
        Self::ConnectionLimits,
        Self::ShortConnectTimeout,
        Self::LongHold,
        Self::LongWakes,
        Self::NoStandby,
        Self::ShortRouteTimeout,
        Self::HiddenHost,
        Self::DiscoverySelectors,
        Self::OtherClusters,
        Self::ClassicProxy,
        Self::NoActivator,
    ];

    /// Whether it stops enrolment.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::NotHeld
            | Self::HostPort
            | Self::SessionAffinity
            | Self::ShortGrace
            | Self::GraceBelowTimeout
            | Self::OwnPreStop
            | Self::ManualRollout
            | Self::BudgetHoldsDrains
            | Self::QuotaShort
            | Self::QosClass
            | Self::OwnTls
            | Self::OtherIdentity
            | Self::OutlierDetection
            | Self::NoActivatorThere
            | Self::ConnectionLimits
            | Self::ShortConnectTimeout
            | Self::LongHold
            | Self::LongWakes
            | Self::NoStandby
            | Self::ShortRouteTimeout
            | Self::HiddenHost
            | Self::DiscoverySelectors
            | Self::OtherClusters
            | Self::ClassicProxy
            | Self::NoActivator => Severity::Warn,
            _ => Severity::Refuse,
        }
    }

    /// Whether Kubernetes makes no pod as long as it is so: whoever is asleep would be woken in vain.
    #[must_use]
    pub fn stops_pods(self) -> bool {
        matches!(
            self,
            Self::QuotaDemands | Self::QuotaTooSmall | Self::OutOfLimitRange
        )
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
