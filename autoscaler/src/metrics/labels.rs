//! Labels: every value is one of an enum's.

use lull_contract::report::ReportError;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

use crate::purpose::Purpose;

/// Direction of a written scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Direction {
    /// From zero.
    Wake,
    /// More pods.
    Up,
    /// Fewer pods.
    Down,
    /// To zero.
    Sleep,
}

/// Whether a call did what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Done {
    /// It did.
    Yes,
    /// It was refused, met a newer object, or got no answer.
    No,
}

/// Who is asked for a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The queue-proxy of a workload's pod.
    Pod,
    /// An activator.
    Activator,
}

/// Why a report is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Longer than any honest one.
    TooLong,
    /// Not the format.
    Malformed,
    /// Another version.
    Version,
    /// A number that no process reaches.
    Absurd,
    /// What it tells of callers and wakes, alone.
    Callers,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ScaleLabels {
    pub(super) direction: Direction,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct CallLabels {
    verb: &'static str,
    resource: &'static str,
    done: Done,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DecisionLabels {
    pub(super) reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct AskedLabels {
    from: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RefusalLabels {
    from: &'static str,
    why: &'static str,
}

// === impl Direction ===

impl Direction {
    pub(super) const ALL: [Self; 4] = [Self::Wake, Self::Up, Self::Down, Self::Sleep];

    pub(super) fn of(from: u32, to: u32) -> Self {
        match (from, to) {
            (0, _) => Self::Wake,
            (_, 0) => Self::Sleep,
            (from, to) if to > from => Self::Up,
            _ => Self::Down,
        }
    }
}

// === impl Asked ===

impl Asked {
    pub(super) const ALL: [Self; 2] = [Self::Pod, Self::Activator];

    fn label(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Activator => "activator",
        }
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) const ALL: [Self; 5] = [
        Self::TooLong,
        Self::Malformed,
        Self::Version,
        Self::Absurd,
        Self::Callers,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::TooLong => "too-long",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Absurd => "absurd",
            Self::Callers => "callers",
        }
    }
}

impl From<&ReportError> for Refusal {
    fn from(error: &ReportError) -> Self {
        match error {
            ReportError::TooLong(..) => Self::TooLong,
            ReportError::Malformed(_) => Self::Malformed,
            ReportError::Version(_) => Self::Version,
            ReportError::Absurd(..) => Self::Absurd,
            ReportError::Callers(..) => Self::Callers,
        }
    }
}

// === impl CallLabels ===

impl CallLabels {
    pub(super) fn new(purpose: Purpose, done: Done) -> Self {
        Self {
            verb: purpose.verb(),
            resource: purpose.resource(),
            done,
        }
    }
}

// === impl AskedLabels ===

impl AskedLabels {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            from: asked.label(),
        }
    }
}

// === impl RefusalLabels ===

impl RefusalLabels {
    pub(super) fn new(asked: Asked, refusal: Refusal) -> Self {
        Self {
            from: asked.label(),
            why: refusal.label(),
        }
    }
}
