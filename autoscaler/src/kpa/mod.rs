//! Knative's pod autoscaler algorithm: pure functions of what was measured and `now`.

mod decide;
mod window;

pub use decide::{Decider, Decision, Observed, Reason};
pub use window::Window;
