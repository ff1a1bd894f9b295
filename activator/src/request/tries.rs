//! How often a request whose pod has failed is sent to a pod anew: pure.

/// So often at most where a pod has not begun it, or where a connection broke that others share.
const MOST: u32 = 5;

/// How a try has come to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The pod says that it has not begun the request.
    NotBegun,
    /// A kept connection broke, on which nothing else was under way: it had ended before.
    Idle,
    /// One that others share broke. It may have been for this very request, and theirs break with it
    /// each time.
    Shared,
    /// One broke that had just been made.
    Fresh,
}

/// What has become of one request so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// Tries that were [`Ended::NotBegun`] or [`Ended::Shared`].
    counted: u32,
    /// One was [`Ended::Fresh`].
    is_repeated: bool,
}

// === impl Ended ===

impl Ended {
    /// A connection broke; `is_reused` where the request has not been the first on it.
    pub(super) fn broken(is_reused: bool, is_http2: bool) -> Self {
        match (is_reused, is_http2) {
            (false, _) => Self::Fresh,
            (true, true) => Self::Shared,
            (true, false) => Self::Idle,
        }
    }
}

// === impl Tries ===

impl Tries {
    /// Whether the request may be sent anew after it has `ended` so. Where a pod that had just been reached
    /// may have begun it, that is once.
    pub(super) fn goes_again(&mut self, ended: Ended) -> bool {
        match ended {
            Ended::NotBegun | Ended::Shared => {
                self.counted += 1;
                self.counted <= MOST
            }
            // Each of these is one connection less that is kept.
            Ended::Idle => true,
            Ended::Fresh => !std::mem::replace(&mut self.is_repeated, true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many times in a row a request goes on that always ends so.
    fn times(ended: Ended) -> usize {
        let mut tries = Tries::default();
        (0..1_000).take_while(|_| tries.goes_again(ended)).count()
    }

    #[test]
    fn only_as_many_times_as_it_can_do_harm_is_a_request_sent_anew() {
        let most = MOST as usize;
        for (ended, expected) in [
            (Ended::NotBegun, most),
            (Ended::Shared, most),
            (Ended::Idle, 1_000),
            (Ended::Fresh, 1),
        ] {
            assert_eq!(times(ended), expected, "{ended:?}");
        }
    }

    #[test]
    fn a_reused_connection_is_shared_in_http2_and_was_idle_in_http1() {
        assert_eq!(Ended::broken(false, false), Ended::Fresh);
        assert_eq!(Ended::broken(false, true), Ended::Fresh);
        assert_eq!(Ended::broken(true, false), Ended::Idle);
        assert_eq!(Ended::broken(true, true), Ended::Shared);
    }
}
