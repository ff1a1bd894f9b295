//! Activators that end, in good order and without, that are lost or replaced, and none at all.
//!
//! Nothing else can run beside it: it disturbs every workload that is reached by way of them, and wakes all. Its
//! own tests take turns; what they need is deployed and put to sleep side by side.

use tokio::sync::Mutex;

mod ends;
mod lost;

/// Held by the test that disturbs the activators.
static TURN: Mutex<()> = Mutex::const_new(());
