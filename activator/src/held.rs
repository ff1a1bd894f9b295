//! Counting what is held: how many, how many ever, and the integral over time.

use lull_contract::report::Load;

/// A [`Load`] that is kept up to date at each change.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeldLoad {
    load: Load,
    /// Microseconds at the last change.
    at: u64,
}

// === impl HeldLoad ===

impl HeldLoad {
    /// One more is held since `now_us`.
    pub fn enter(&mut self, now_us: u64) {
        self.advance(now_us);
        self.load.in_flight += 1;
        self.load.requests += 1;
    }

    /// One less is held since `now_us`.
    pub fn leave(&mut self, now_us: u64) {
        self.advance(now_us);
        self.load.in_flight = self.load.in_flight.saturating_sub(1);
    }

    /// The load as of `now_us`.
    #[must_use]
    pub fn at(mut self, now_us: u64) -> Load {
        self.advance(now_us);
        self.load
    }

    /// How many are held.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.load.in_flight
    }

    fn advance(&mut self, now_us: u64) {
        let elapsed = now_us.saturating_sub(self.at);
        self.load.in_flight_us += elapsed.saturating_mul(self.load.in_flight);
        self.at = self.at.max(now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_integral_is_exact() {
        let mut held = HeldLoad::default();
        held.enter(10);
        held.enter(20);
        held.leave(50);
        let load = held.at(100);
        assert_eq!((load.in_flight, load.requests), (1, 2));
        assert_eq!(load.in_flight_us, 10 + 2 * 30 + 50);
    }
}
