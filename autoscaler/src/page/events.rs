//! What has changed, for those who look on: server-sent events.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use hyper::body::Frame;
use lull_contract::view::{Change, WorkloadList, WorkloadView};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, timeout_at},
};

/// So long nothing is said at most: a proxy in between would take the connection for dead, and who
/// has gone without a word is found out by what can't be sent to it.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After so long it ends, and a browser comes again by itself: who never reads has a place for so long
/// at most, also where what is told has room in buffers on the way.
const MAX_AGE: Duration = Duration::from_secs(600);
/// The end: come again in a second.
const COME_AGAIN: &[u8] = b"retry: 1000\n\n";
/// An event that says nothing new. It is no comment, so that the page hears it, too: a connection may
/// be dead without a word, and what is shown would then be taken for what is.
pub(super) const SIGN_OF_LIFE: &str = "event: alive\ndata: {}\n\n";

/// Every workload at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Board {
    /// By namespace and name.
    workloads: BTreeMap<String, WorkloadView>,
    /// Activators that are not heard.
    silent: Vec<String>,
}

/// One who looks on.
#[derive(Debug)]
pub(super) struct Follower {
    boards: watch::Receiver<Arc<Board>>,
    /// What is told first.
    first: Option<Arc<Board>>,
    /// What has been told.
    told: Arc<Board>,
    ends: Instant,
    _permit: OwnedSemaphorePermit,
}

// === impl Board ===

impl FromIterator<WorkloadView> for Board {
    fn from_iter<I: IntoIterator<Item = WorkloadView>>(views: I) -> Self {
        let workloads = views.into_iter().map(|view| (view.key(), view));
        Self {
            workloads: workloads.collect(),
            silent: Vec::new(),
        }
    }
}

impl Board {
    /// The same where these activators are not heard.
    pub(super) fn with_silent(self, silent: Vec<String>) -> Self {
        Self { silent, ..self }
    }

    /// The same with what other replicas have told that they lead. What this one leads it knows best, and
    /// what it does not know is new or gone: it hears of that itself.
    pub(super) fn with_led(mut self, told: &[WorkloadList]) -> Self {
        let led = told.iter().flat_map(|list| &list.workloads);
        for view in led.filter(|view| view.is_live) {
            let known = self.workloads.get_mut(&view.key());
            if let Some(known) = known.filter(|known| !known.is_live) {
                *known = view.clone();
            }
        }
        let silent = told.iter().flat_map(|list| &list.silent_activators);
        let silent: BTreeSet<String> = silent.chain(&self.silent).cloned().collect();
        self.with_silent(silent.into_iter().collect())
    }

    /// As `replica` tells it to who asks once.
    pub(super) fn into_list(self, replica: &str) -> WorkloadList {
        WorkloadList {
            replica: replica.to_owned(),
            workloads: self.workloads.into_values().collect(),
            silent_activators: self.silent,
        }
    }

    /// What is other than it was at `before`; `None` where nothing is.
    fn since(&self, before: &Self) -> Option<Change> {
        let changed = self.workloads.iter();
        let changed = changed.filter(|(key, view)| before.workloads.get(*key) != Some(*view));
        let gone = before.workloads.keys();
        let change = Change {
            changed: changed.map(|(_, view)| view.clone()).collect(),
            gone: gone
                .filter(|key| !self.workloads.contains_key(*key))
                .cloned()
                .collect(),
            silent_activators: self.silent.clone(),
        };
        let is_other = !change.changed.is_empty() || !change.gone.is_empty();
        (is_other || self.silent != before.silent).then_some(change)
    }
}

// === impl Follower ===

impl Follower {
    /// Is told `first`, and then what is other on each of `boards`.
    pub(super) fn new(
        boards: watch::Receiver<Arc<Board>>,
        first: Arc<Board>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            boards,
            first: Some(first),
            told: Arc::default(),
            ends: Instant::now() + MAX_AGE,
            _permit: permit,
        }
    }

    /// Events for as long as there are boards, and 10 minutes at most. A slow reader is told less
    /// often, and then all at once: nothing waits for it.
    pub(super) fn frames(self) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
        futures::stream::unfold(self, |mut follower| async move {
            let text = follower.next().await?;
            Some((Ok(Frame::data(text)), follower))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            let change = first.since(&self.told).unwrap_or_default();
            self.told = first;
            return Some(event(&change));
        }
        let now = Instant::now();
        if now >= self.ends {
            return None;
        }
        // For all boards together: one comes each second, mostly with nothing new.
        let silent_until = (now + KEEP_ALIVE).min(self.ends);
        loop {
            let changed = timeout_at(silent_until, self.boards.changed()).await;
            let board = match changed {
                Ok(Ok(())) => Arc::clone(&self.boards.borrow_and_update()),
                Ok(Err(_)) => return None,
                Err(_) if silent_until == self.ends => return Some(Bytes::from_static(COME_AGAIN)),
                Err(_) => return Some(Bytes::from_static(SIGN_OF_LIFE.as_bytes())),
            };
            let change = board.since(&self.told);
            self.told = board;
            if let Some(change) = change {
                return Some(event(&change));
            }
        }
    }
}

/// As the stream carries it: JSON has no line breaks of its own.
fn event(change: &Change) -> Bytes {
    match serde_json::to_string(change) {
        Ok(json) => format!("data: {json}\n\n").into(),
        // Texts and numbers always can be written.
        Err(_) => Bytes::from_static(SIGN_OF_LIFE.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    fn view(name: &str, ready: u32) -> WorkloadView {
        WorkloadView {
            namespace: "ns".to_owned(),
            name: name.to_owned(),
            ready,
            reason: "two\nlines".to_owned(),
            ..WorkloadView::default()
        }
    }

    fn board(views: &[(&str, u32)]) -> Arc<Board> {
        Arc::new(
            views
                .iter()
                .map(|(name, ready)| view(name, *ready))
                .collect(),
        )
    }

    fn told(text: &[u8]) -> (Vec<String>, Vec<String>) {
        let text = std::str::from_utf8(text).unwrap();
        let json = text.strip_prefix("data: ").unwrap().trim_end();
        assert!(!json.contains('\n'), "{json}");
        let change: Change = serde_json::from_str(json).unwrap();
        let names = change.changed.iter().map(WorkloadView::key);
        (names.collect(), change.gone)
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_is_told_everything_once_and_then_what_changes() {
        let (boards_tx, boards) = watch::channel(Arc::default());
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
        let follower = Follower::new(boards, board(&[("a", 0), ("b", 0)]), permit);
        let mut frames = pin!(follower.frames());
        let mut next = async || {
            frames
                .next()
                .await
                .map(|frame| frame.unwrap().into_data().unwrap())
        };
        let all = next().await.unwrap();
        assert_eq!(
            told(&all),
            (vec!["ns/a".to_owned(), "ns/b".to_owned()], vec![])
        );
        boards_tx.send_replace(board(&[("a", 0), ("b", 0)]));
        assert_eq!(
            next().await.unwrap(),
            SIGN_OF_LIFE,
            "the clock ran to the next sign of life"
        );
        boards_tx.send_replace(board(&[("a", 1), ("c", 0)]));
        let change = next().await.unwrap();
        let changed = vec!["ns/a".to_owned(), "ns/c".to_owned()];
        assert_eq!(told(&change), (changed, vec!["ns/b".to_owned()]));
        drop(boards_tx);
        assert!(next().await.is_none());
    }

    #[test]
    fn what_others_lead_is_shown_as_they_tell_it_where_this_replica_does_not_know_better() {
        let told = |name, ready, is_live| WorkloadView {
            is_live,
            ..view(name, ready)
        };
        let (status, live) = (told("a", 1, false), told("a", 1, true));
        // What this replica has, what others tell, and then how many pods are ready, and whether that is live.
        let rows = [
            (&status, vec![], (1, false)),
            (&status, vec![told("a", 2, true)], (2, true)),
            (&status, vec![told("a", 2, false)], (1, false)),
            (&live, vec![told("a", 2, true)], (1, true)),
            (&status, vec![told("b", 2, true)], (1, false)),
            (
                &status,
                vec![told("a", 2, true), told("a", 3, true)],
                (2, true),
            ),
        ];
        for (own, others, expected) in rows {
            let lists = others.into_iter().map(|other| WorkloadList {
                workloads: vec![other],
                ..WorkloadList::default()
            });
            let lists: Vec<WorkloadList> = lists.collect();
            let board = Board::from_iter([own.clone()]).with_led(&lists);
            let shown = board.workloads.values();
            let shown: Vec<_> = shown.map(|view| (view.ready, view.is_live)).collect();
            assert_eq!(shown, [expected], "{lists:?}");
        }
    }

    #[test]
    fn an_activator_that_any_replica_does_not_hear_is_shown_once() {
        let list = |names: &[&str]| WorkloadList {
            silent_activators: names.iter().map(|name| (*name).to_owned()).collect(),
            ..WorkloadList::default()
        };
        let own = Board::default().with_silent(vec!["b".to_owned()]);
        let board = own.with_led(&[list(&["b", "c"]), list(&[]), list(&["a"])]);
        assert_eq!(board.silent, ["a", "b", "c"]);
    }

    #[test]
    fn an_activator_that_falls_silent_is_news_and_so_is_one_that_speaks_again() {
        let board = |silent: &[&str]| {
            let silent = silent.iter().map(|name| (*name).to_owned());
            Board::from_iter([view("a", 1)]).with_silent(silent.collect())
        };
        let (all_heard, one_silent) = (board(&[]), board(&["activator-1"]));
        let change = one_silent.since(&all_heard).expect("it is news");
        assert_eq!(change.silent_activators, ["activator-1"]);
        assert!(change.changed.is_empty() && change.gone.is_empty());
        let change = all_heard.since(&one_silent).expect("it is news");
        assert!(change.silent_activators.is_empty());
        assert_eq!(one_silent.since(&board(&["activator-1"])), None);
        let list = one_silent.into_list("autoscaler-1");
        assert_eq!(list.silent_activators, ["activator-1"]);
        assert_eq!(list.workloads.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_stays_for_long_is_asked_to_come_again() {
        let (_boards_tx, boards) = watch::channel(Arc::default());
        let permits = Arc::new(Semaphore::new(1));
        let permit = Arc::clone(&permits).try_acquire_owned().unwrap();
        let begun = Instant::now();
        let frames = Follower::new(boards, board(&[("a", 0)]), permit).frames();
        let told: Vec<Bytes> = frames
            .map(|frame| frame.unwrap().into_data().unwrap())
            .collect()
            .await;
        assert_eq!(told.last().unwrap(), COME_AGAIN);
        assert_eq!(begun.elapsed().as_secs(), MAX_AGE.as_secs());
        assert_eq!(permits.available_permits(), 1, "its place is free");
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_hears_of_a_time_in_which_nothing_changes() {
        let (boards_tx, boards) = watch::channel(Arc::default());
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let follower = Follower::new(boards, board(&[("a", 0)]), permit);
        let mut frames = pin!(follower.frames());
        frames.next().await.expect("everything first").unwrap();
        let same_boards = async {
            for _ in 0..2 * KEEP_ALIVE.as_secs() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                boards_tx.send_replace(board(&[("a", 0)]));
            }
        };
        tokio::select! {
            frame = frames.next() => {
                let frame = frame.expect("a sign of life").unwrap();
                assert_eq!(frame.into_data().unwrap(), SIGN_OF_LIFE);
            }
            () = same_boards => panic!("nothing was said"),
        }
    }
}
