//! A timer that always ends soon.
//!
//! A timer that ends before all others wakes the thread that sleeps in epoll, so that it sleeps less:
//! a call of the kernel, and a turn of that thread for nothing. Each short connection has a few
//! timers (for its first bytes, for the connect, for its rest), none of which ever ends, and mostly
//! one of them is the first of all. With one that ends before any of these could, none is.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::hub::Hub;

/// Half of the shortest timer of a connection.
const BUSY: Duration = Duration::from_millis(100);
/// While nobody comes.
const QUIET: Duration = Duration::from_secs(1);

/// Does not end.
pub(crate) async fn beat(hub: Arc<Hub>) {
    loop {
        let is_busy = hub.quiet_for() < QUIET;
        sleep(if is_busy { BUSY } else { QUIET }).await;
    }
}
