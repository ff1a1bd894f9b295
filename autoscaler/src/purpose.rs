//! What a call of the API server is for: one word for its errors and for its metric.

use std::fmt;

/// What a call of the API server is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The target's count, after a write of it met a newer object.
    ReadScale,
    /// The target's count: wakes, scales and puts to sleep.
    WriteScale,
    /// Activators into a Service's endpoints.
    WriteSlice,
    /// Activators out of a Service's endpoints.
    DeleteSlice,
    /// An activator as Istio is told of it.
    WriteEntry,
    /// Whether istiod still hears, before pods go: a dry run of an entry that is there.
    AskIstio,
    /// An activator of which Istio is told no more.
    DeleteEntry,
    /// How long callers in a mesh may try to connect.
    WriteRule,
    /// The same, where it is no longer wanted or somebody else has a rule.
    DeleteRule,
    /// The sentinel selector on a public Service.
    HoldSelector,
    /// The user's selector on a public Service.
    RestoreSelector,
    /// Named ports on a public Service.
    SwitchService,
    /// A public Service as it was before Lull.
    RestoreService,
    /// The private Service.
    WritePrivateService,
    /// The ScaledWorkload's settings and ports.
    WriteWorkload,
    /// The ScaledWorkload's status.
    WriteStatus,
    /// The ScaledWorkload, at the end.
    DeleteWorkload,
    /// The ScaledWorkload's finalizer, at the end.
    DropFinalizer,
    /// An annotation that the webhook looks at.
    Annotate,
    /// Which pod has a caller's address, for people.
    NameCaller,
}

// === impl Purpose ===

impl Purpose {
    /// Every one.
    pub(crate) const ALL: [Self; 20] = [
        Self::ReadScale,
        Self::WriteScale,
        Self::WriteSlice,
        Self::DeleteSlice,
        Self::WriteEntry,
        Self::AskIstio,
        Self::DeleteEntry,
        Self::WriteRule,
        Self::DeleteRule,
        Self::HoldSelector,
        Self::RestoreSelector,
        Self::SwitchService,
        Self::RestoreService,
        Self::WritePrivateService,
        Self::WriteWorkload,
        Self::WriteStatus,
        Self::DeleteWorkload,
        Self::DropFinalizer,
        Self::Annotate,
        Self::NameCaller,
    ];

    /// Kubernetes' name of what is called.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::ReadScale | Self::WriteScale => "targets/scale",
            Self::WriteSlice | Self::DeleteSlice => "endpointslices",
            Self::WriteEntry | Self::AskIstio | Self::DeleteEntry => "workloadentries",
            Self::WriteRule | Self::DeleteRule => "destinationrules",
            Self::HoldSelector
            | Self::RestoreSelector
            | Self::SwitchService
            | Self::RestoreService
            | Self::WritePrivateService => "services",
            Self::WriteWorkload | Self::DeleteWorkload | Self::DropFinalizer => "scaledworkloads",
            Self::WriteStatus => "scaledworkloads/status",
            Self::Annotate => "targets",
            Self::NameCaller => "pods",
        }
    }

    /// Kubernetes' name of what is done with it.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::ReadScale => "get",
            Self::NameCaller => "list",
            Self::DeleteSlice | Self::DeleteEntry | Self::DeleteRule | Self::DeleteWorkload => {
                "delete"
            }
            _ => "patch",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadScale => "reading /scale",
            Self::WriteScale => "writing /scale",
            Self::WriteSlice => "writing the activators' slice",
            Self::DeleteSlice => "deleting the activators' slice",
            Self::WriteEntry => "writing an activator's WorkloadEntry",
            Self::AskIstio => "asking whether istiod hears",
            Self::DeleteEntry => "deleting an activator's WorkloadEntry",
            Self::WriteRule => "writing the callers' DestinationRule",
            Self::DeleteRule => "deleting the callers' DestinationRule",
            Self::HoldSelector => "holding the selector",
            Self::RestoreSelector => "giving the selector back",
            Self::SwitchService => "switching to named ports",
            Self::RestoreService => "giving the Service back",
            Self::WritePrivateService => "writing the private Service",
            Self::WriteWorkload => "writing the ScaledWorkload",
            Self::WriteStatus => "writing the ScaledWorkload's status",
            Self::DeleteWorkload => "deleting the ScaledWorkload",
            Self::DropFinalizer => "letting the ScaledWorkload go",
            Self::Annotate => "annotating the workload",
            Self::NameCaller => "asking which pod calls",
        })
    }
}
