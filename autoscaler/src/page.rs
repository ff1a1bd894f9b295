//! The status page, read-only: for people, and as JSON for `kubectl lull`.
//!
//! ```text
//! ScaledWorkloads (every replica), journals (the leader's) --views--> JSON, page
//! other leaders' JSON                                      --peers--> JSON, page
//!                                          once a second   --events--> who looks on
//! ```
//!
//! Nothing here changes anything. The page is four files that are part of the binary; it loads
//! nothing from outside, and its links are relative, so it also works behind the API server's proxy.

mod events;
mod hosts;
mod peers;
mod views;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use jiff::Timestamp;
use lull_contract::{
    scaled_workload::ScaledWorkload,
    view::{EVENTS_PATH, LED_QUERY, LIST_PATH, WorkloadDetail},
};
use lull_process::server::{self, Answer, Peer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    events::{Board, Follower},
    hosts::Hosts,
    peers::Peers,
    views::Live,
};
use crate::{
    config::Args,
    context::{Context, Key},
    kept_awake,
    stores::place,
};

/// How often those who look on are told what has changed.
const EVERY: Duration = Duration::from_secs(1);
/// Those who look on at one time: more are told to come later.
const MAX_FOLLOWERS: usize = 16;
/// Connections at one time, those who look on among them: an answer for thousands of workloads is a few
/// megabytes, and lies in memory until it is read.
const MAX_CONNECTIONS: usize = 64;
/// When to come again where there are too many, seconds.
const COME_AGAIN: &str = "5";

/// What a browser lets the page do: load what this server has, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The files of the page: path, type, text.
const FILES: [(&str, &str, &str); 4] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/index.html"),
    ),
    (
        "/app.js",
        "text/javascript; charset=utf-8",
        include_str!("page/app.js"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_str!("page/style.css"),
    ),
    // Without one a browser asks the API server for it where it shows the page by way of its proxy.
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// An answer, or a stream of events.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Everything that is shown.
#[derive(Debug)]
struct Page {
    ctx: Arc<Context>,
    /// Name of this replica.
    replica: String,
    hosts: Hosts,
    peers: Peers,
    /// Built for those who look on, once for all of them.
    board: watch::Sender<Arc<Board>>,
    followers: Arc<Semaphore>,
}

/// Serves the page as `args` has it until `stop`; on port 0 not at all.
///
/// # Errors
/// Where the port is taken.
pub async fn spawn(ctx: &Arc<Context>, args: &Args, stop: &CancellationToken) -> io::Result<()> {
    if args.page_port == 0 {
        return Ok(());
    }
    let listener = server::bind(args.page_port).await?;
    serve(Page::new(ctx, args), listener, stop);
    Ok(())
}

/// Serves `page` on `listener` until `stop`.
fn serve(page: Page, listener: TcpListener, stop: &CancellationToken) {
    let page = Arc::new(page);
    tokio::spawn(Arc::clone(&page).keep_board(stop.clone()));
    let answer = move |request: Request<Incoming>| {
        let page = Arc::clone(&page);
        async move { page.answer(&request).await }
    };
    let serving = server::serve_at_most(MAX_CONNECTIONS, listener, stop.clone(), answer);
    tokio::spawn(serving);
}

// === impl Page ===

impl Page {
    fn new(ctx: &Arc<Context>, args: &Args) -> Self {
        let replica = args.pod_name.as_str();
        Self {
            ctx: Arc::clone(ctx),
            replica: replica.to_owned(),
            hosts: Hosts::new(&args.namespace, replica, &args.page_hosts),
            // All replicas have the same port.
            peers: Peers::new(Arc::clone(ctx), replica, args.page_port),
            board: watch::channel(Arc::default()).0,
            followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let uri = request.uri();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
        let answer = match (request.method(), uri.path()) {
            _ if !self.hosts.admit(request, peer) => {
                let text = "asked for by a name that is not this page's: ask by its address, as \
                            localhost, or as its Service; others go into AUTOSCALER_PAGE_HOSTS\n";
                whole(server::text(StatusCode::MISDIRECTED_REQUEST, text))
            }
            (&Method::GET, EVENTS_PATH) => self.events().await,
            (&Method::GET | &Method::HEAD, _) => whole(self.page(uri).await),
            _ => {
                let text = "this port only answers GET\n";
                whole(server::text(StatusCode::METHOD_NOT_ALLOWED, text))
            }
        };
        guarded(answer)
    }

    async fn page(&self, uri: &Uri) -> Answer {
        let path = uri.path();
        if let Some(&(_, kind, text)) = FILES.iter().find(|(file, ..)| *file == path) {
            let mut answer = server::text(StatusCode::OK, text);
            set(&mut answer, header::CONTENT_TYPE, kind);
            return answer;
        }
        // Another replica asks.
        let is_of_led = uri.query() == Some(LED_QUERY);
        if path == LIST_PATH {
            let board = if is_of_led {
                self.build(|live| live.is_led)
            } else {
                self.build_with_peers().await
            };
            return server::json(&board.into_list(&self.replica));
        }
        match self.detail_at(path, is_of_led).await {
            Some(detail) => server::json(&detail),
            None => {
                let text =
                    "no such page or workload: / /workloads /workloads/NAMESPACE/NAME /events\n";
                server::text(StatusCode::NOT_FOUND, text)
            }
        }
    }

    /// A stream of what changes.
    async fn events(&self) -> Response<Body> {
        let Ok(permit) = Arc::clone(&self.followers).try_acquire_owned() else {
            let text = format!("{MAX_FOLLOWERS} look on already\n");
            let mut answer = whole(server::text(StatusCode::SERVICE_UNAVAILABLE, text));
            set(&mut answer, header::RETRY_AFTER, COME_AGAIN);
            return answer;
        };
        // In this order: what changes from now on is told after what there is.
        let boards = self.board.subscribe();
        let first = Arc::new(self.build_with_peers().await);
        let follower = Follower::new(boards, first, permit);
        let mut answer = Response::new(StreamBody::new(follower.frames()).boxed_unsync());
        set(&mut answer, header::CONTENT_TYPE, "text/event-stream");
        answer
    }

    /// Builds the board anew, while somebody looks on.
    async fn keep_board(self: Arc<Self>, stop: CancellationToken) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if self.board.receiver_count() > 0 {
                let board = self.build_with_peers().await;
                self.board.send_replace(Arc::new(board));
            }
        }
    }

    /// Every workload, as far as anybody who answers knows it.
    async fn build_with_peers(&self) -> Board {
        let led = self.peers.led().await;
        self.build(|_| true).with_led(&led)
    }

    /// What this replica has itself of the workloads that are meant.
    fn build(&self, is_meant: impl Fn(&Live) -> bool) -> Board {
        let workloads = self.ctx.stores.workloads.all();
        let views = workloads.iter().filter_map(|workload| {
            let live = self.live(workload);
            is_meant(&live).then(|| views::workload(workload, live))
        });
        let board: Board = views.collect();
        board.with_silent(self.ctx.silent_activators())
    }

    /// The workload of this path, where there is one; where `is_of_led`, only one that this replica leads.
    async fn detail_at(&self, path: &str, is_of_led: bool) -> Option<WorkloadDetail> {
        let (namespace, name) = path
            .strip_prefix(LIST_PATH)?
            .strip_prefix('/')?
            .split_once('/')?;
        let workload = self.ctx.stores.workloads.get(namespace, name)?;
        if !is_of_led {
            return Some(self.detail_with_peers(&workload).await);
        }
        let detail = self.detail_with_names(&workload).await;
        detail.workload.is_live.then_some(detail)
    }

    /// The workload as its leader has it, where that answers.
    async fn detail_with_peers(&self, workload: &ScaledWorkload) -> WorkloadDetail {
        if !self.live(workload).is_led {
            let (namespace, name) = place(workload);
            if let Some(detail) = self.peers.detail(&namespace, &name).await {
                return detail;
            }
        }
        self.detail_with_names(workload).await
    }

    /// What this replica has itself of the workload, with who is behind callers' addresses as far as that
    /// is found out soon.
    async fn detail_with_names(&self, workload: &ScaledWorkload) -> WorkloadDetail {
        let (namespace, name) = place(workload);
        if let Some(mailbox) = self.ctx.mailboxes().get(&namespace, &name) {
            kept_awake::learn(&self.ctx, &mailbox).await;
        }
        self.detail(workload)
    }

    /// What this replica has itself of the workload.
    fn detail(&self, workload: &ScaledWorkload) -> WorkloadDetail {
        let live = self.live(workload);
        let mut detail = WorkloadDetail {
            replica: self.replica.clone(),
            workload: views::workload(workload, live),
            wakes: views::written_wakes(workload),
            kept_awake: views::written_kept_awake(workload),
            ..WorkloadDetail::default()
        };
        let (namespace, name) = place(workload);
        let Some(mailbox) = self.ctx.mailboxes().get(&namespace, &name) else {
            return detail;
        };
        let callers = {
            let demand = mailbox.demand.lock();
            detail.pods = demand.pod_shares();
            detail.ways = demand.ways();
            demand.callers()
        };
        detail.callers = views::callers(&callers, &self.ctx);
        if let Some(kept) = kept_awake::of(&self.ctx, &mailbox.demand).filter(|_| live.is_led) {
            detail.kept_awake = kept;
        }
        let journal = mailbox.journal.lock();
        if live.is_led {
            detail.wakes = journal.wakes().to_vec();
        }
        detail.history = journal.changes();
        detail.line = journal.line(self.ctx.now());
        detail
    }

    /// What this replica knows of it beside the ScaledWorkload.
    fn live(&self, workload: &ScaledWorkload) -> Live {
        let (namespace, name) = place(workload);
        let mailbox = self.ctx.mailboxes().get(&namespace, &name);
        let key = Key { namespace, name };
        Live {
            is_led: self.ctx.leadership.term(&key).is_some(),
            numbers: mailbox.and_then(|mailbox| mailbox.journal.lock().seen()),
            at: Timestamp::now(),
        }
    }
}

fn whole(answer: Answer) -> Response<Body> {
    answer.map(http_body_util::BodyExt::boxed_unsync)
}

/// What every answer says to a browser.
fn guarded(mut answer: Response<Body>) -> Response<Body> {
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        set(&mut answer, name, value);
    }
    answer
}

fn set<B>(answer: &mut Response<B>, name: header::HeaderName, value: &'static str) {
    let value = HeaderValue::from_static(value);
    answer.headers_mut().insert(name, value);
}

#[cfg(test)]
mod tests;
