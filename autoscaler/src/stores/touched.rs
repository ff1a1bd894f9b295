//! Whom a change is about: from the watches to whoever wakes tasks.

use std::{
    collections::{BTreeSet, HashSet},
    future::Future,
    mem,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};

/// Which object changed, as far as its workload is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Touched {
    /// The workload of this namespace and name.
    Workload(String, String),
    /// The workload of this namespace whose [`POD_LABEL`](lull_contract::names::POD_LABEL) value is
    /// this.
    Label(String, String),
    /// The workload that the Service of this namespace and name leads to.
    Service(String, String),
    /// Any workload of this namespace.
    Namespace(String),
    /// Any workload of these namespaces.
    Namespaces(BTreeSet<String>),
    /// Any workload that is looked after.
    Workloads,
    /// An activator: any workload.
    Activators,
    /// A replica of the autoscaler: no workload.
    Autoscalers,
    /// A list is complete, and what it no longer holds is gone: any workload, known or not.
    Everything,
    /// No object: the vital task of this name is gone, and what it has told is out of date.
    Ended(String),
}

/// Told about each change; must not block.
pub type OnTouched = Arc<dyn Fn(Touched) + Send + Sync>;

/// What has been touched and not been taken yet. Each of it is there once, however often it was
/// touched: so a burst is no longer than the list of what there is, and nothing of it is lost.
#[derive(Debug, Default)]
pub struct Changes {
    untaken: Mutex<HashSet<Touched>>,
    added: Notify,
}

/// Whom a vital task, most of all a watch, tells of changes, and what it is called. When this is
/// dropped, the task has ended, and that is told as well: whatever it has told of is out of date from
/// then on.
pub(crate) struct Teller {
    pub(crate) name: String,
    pub(crate) on_touched: OnTouched,
}

// === impl Touched ===

impl Touched {
    /// Name of the vital task that is gone.
    pub(crate) fn ended(&self) -> Option<&str> {
        match self {
            Self::Ended(name) => Some(name),
            _ => None,
        }
    }

    /// Whether activators may have come or gone.
    pub(crate) fn is_of_activators(&self) -> bool {
        matches!(self, Self::Activators | Self::Everything)
    }
}

// === impl Changes ===

impl Changes {
    /// Adds one.
    pub fn add(&self, touched: Touched) {
        self.untaken.lock().insert(touched);
        self.added.notify_one();
    }

    /// Takes all that there are; waits for the first one.
    ///
    /// # Cancel safety
    /// Safe: what is not returned is there for the next call.
    pub async fn take(&self) -> HashSet<Touched> {
        loop {
            let touched = mem::take(&mut *self.untaken.lock());
            if !touched.is_empty() {
                return touched;
            }
            // One that was added since then is not missed: it has left a permit.
            self.added.notified().await;
        }
    }
}

// === impl Teller ===

impl Teller {
    /// Of the task called `name`, as `/ready` and logs name it.
    pub(crate) fn new(name: &str, on_touched: &OnTouched) -> Self {
        Self {
            name: name.to_owned(),
            on_touched: Arc::clone(on_touched),
        }
    }

    /// Starts `task`, without which nothing can be decided. The process ends with it
    /// ([`Touched::Ended`]), unless it is about to end anyway.
    pub(crate) fn spawn(self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(async move {
            let _told_of_its_end = self;
            task.await;
        })
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        (self.on_touched)(Touched::Ended(mem::take(&mut self.name)));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    async fn panic_at_once() {
        panic!("as the test wants it")
    }

    #[tokio::test]
    async fn a_burst_of_changes_is_told_whole_and_each_of_them_once() {
        let changes = Changes::default();
        assert!(changes.take().now_or_never().is_none());
        for _ in 0..3 {
            for name in 0..10_000 {
                changes.add(Touched::Label("shop".to_owned(), format!("web-{name}")));
            }
            changes.add(Touched::Activators);
        }
        let told = changes.take().now_or_never().unwrap();
        assert_eq!(told.len(), 10_001);
        assert!(told.contains(&Touched::Activators));
        assert!(changes.take().now_or_never().is_none(), "it has been taken");
        changes.add(Touched::Activators);
        let told = changes.take().now_or_never().unwrap();
        assert_eq!(told, HashSet::from([Touched::Activators]));
    }

    #[tokio::test]
    async fn who_waits_for_a_change_hears_of_it_also_where_somebody_gave_up_waiting() {
        let changes = Changes::default();
        let mut gives_up = Box::pin(changes.take());
        assert!((&mut gives_up).now_or_never().is_none());
        changes.add(Touched::Everything);
        drop(gives_up);
        let told = changes.take().now_or_never().unwrap();
        assert_eq!(told, HashSet::from([Touched::Everything]));
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_is_told_whether_it_returns_or_panics() {
        let changes = Arc::new(Changes::default());
        let added = Arc::clone(&changes);
        let on_touched: OnTouched = Arc::new(move |touched| added.add(touched));
        let ended = |name: &str| HashSet::from([Touched::Ended(name.to_owned())]);
        let returns = Teller::new("returns", &on_touched).spawn(async {});
        returns.await.unwrap();
        assert_eq!(changes.take().await, ended("returns"));
        let panics = Teller::new("panics", &on_touched).spawn(panic_at_once());
        assert!(panics.await.unwrap_err().is_panic());
        assert_eq!(changes.take().await, ended("panics"));
        let goes_on = Teller::new("goes-on", &on_touched).spawn(std::future::pending());
        assert!(changes.take().now_or_never().is_none());
        goes_on.abort();
    }
}
