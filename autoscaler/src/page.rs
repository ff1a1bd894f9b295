//! The status page, read-only: for people, and as JSON for `kubectl lull`.
//!
//! ```text
//! ScaledWorkloads (every replica), journals (the leader's) --views--> JSON, page
//!                                          once a second   --events--> who looks on
//! ```
//!
//! Nothing here changes anything. The page is three files that are part of the binary; it loads
//! nothing from outside, and its links are relative, so it also works behind the API server's proxy.

mod events;
mod hosts;
mod views;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use jiff::Timestamp;
use kube::ResourceExt as _;
use lull_contract::{
    scaled_workload::ScaledWorkload,
    view::{EVENTS_PATH, LIST_PATH, WorkloadDetail},
};
use lull_process::server::{self, Answer, Peer};
use tokio::{
    sync::{Semaphore, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use self::{
    events::{Board, Follower},
    hosts::Hosts,
    views::Live,
};
use crate::{
    config::Args,
    context::{Context, Key},
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
const FILES: [(&str, &str, &str); 3] = [
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
    let replica = args.pod_name.as_str();
    let page = Arc::new(Page {
        ctx: Arc::clone(ctx),
        replica: replica.to_owned(),
        hosts: Hosts::new(&args.namespace, replica, &args.page_hosts),
        board: watch::channel(Arc::default()).0,
        followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
    });
    tokio::spawn(Arc::clone(&page).keep_board(stop.clone()));
    let answer = move |request: Request<Incoming>| {
        let page = Arc::clone(&page);
        async move { page.answer(&request) }
    };
    let serving = server::serve_at_most(MAX_CONNECTIONS, listener, stop.clone(), answer);
    tokio::spawn(serving);
    Ok(())
}

// === impl Page ===

impl Page {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
        let answer = match (request.method(), path) {
            _ if !self.hosts.admit(request, peer) => {
                let text = "asked for by a name that is not this page's: ask by its address, as \
                            localhost, or as its Service; others go into AUTOSCALER_PAGE_HOSTS\n";
                whole(server::text(StatusCode::MISDIRECTED_REQUEST, text))
            }
            (&Method::GET, EVENTS_PATH) => self.events(),
            (&Method::GET | &Method::HEAD, _) => whole(self.page(path)),
            _ => {
                let text = "this port only answers GET\n";
                whole(server::text(StatusCode::METHOD_NOT_ALLOWED, text))
            }
        };
        guarded(answer)
    }

    fn page(&self, path: &str) -> Answer {
        if let Some(&(_, kind, text)) = FILES.iter().find(|(file, ..)| *file == path) {
            let mut answer = server::text(StatusCode::OK, text);
            set(&mut answer, header::CONTENT_TYPE, kind);
            return answer;
        }
        if path == LIST_PATH {
            return server::json(&self.build().into_list(&self.replica));
        }
        let workload = path.strip_prefix(LIST_PATH).and_then(|rest| {
            let (namespace, name) = rest.strip_prefix('/')?.split_once('/')?;
            self.ctx.stores.workloads.get(namespace, name)
        });
        match workload {
            Some(workload) => server::json(&self.detail(&workload)),
            None => {
                let text =
                    "no such page or workload: / /workloads /workloads/NAMESPACE/NAME /events\n";
                server::text(StatusCode::NOT_FOUND, text)
            }
        }
    }

    /// A stream of what changes.
    fn events(&self) -> Response<Body> {
        let Ok(permit) = Arc::clone(&self.followers).try_acquire_owned() else {
            let text = format!("{MAX_FOLLOWERS} look on already\n");
            let mut answer = whole(server::text(StatusCode::SERVICE_UNAVAILABLE, text));
            set(&mut answer, header::RETRY_AFTER, COME_AGAIN);
            return answer;
        };
        let follower = Follower::new(self.board.subscribe(), Arc::new(self.build()), permit);
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
                self.board.send_replace(Arc::new(self.build()));
            }
        }
    }

    fn build(&self) -> Board {
        let workloads = self.ctx.stores.workloads.all();
        let views = workloads.iter().map(|workload| {
            let live = self.live(workload);
            views::workload(workload, live)
        });
        let board: Board = views.collect();
        board.with_silent(self.ctx.silent_activators())
    }

    fn detail(&self, workload: &ScaledWorkload) -> WorkloadDetail {
        let live = self.live(workload);
        let mut detail = WorkloadDetail {
            replica: self.replica.clone(),
            workload: views::workload(workload, live),
            wakes: views::written_wakes(workload),
            ..WorkloadDetail::default()
        };
        let (namespace, name) = place(workload);
        let Some(mailbox) = self.ctx.mailboxes().get(&namespace, &name) else {
            return detail;
        };
        let callers = {
            let demand = mailbox.demand.lock();
            detail.pods = demand.pod_shares();
            demand.callers()
        };
        detail.callers = views::callers(&callers, &self.ctx.stores);
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

fn place(workload: &ScaledWorkload) -> (String, String) {
    (
        workload.namespace().unwrap_or_default(),
        workload.name_any(),
    )
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
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_nothing_from_outside_and_runs_nothing_inline() {
        for (path, _, text) in FILES {
            for address in ["http://", "https://", "//cdn", "@import"] {
                let text = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(address), "{path} has {address}");
            }
        }
        let (_, _, html) = FILES[0];
        for inline in ["<style", "style=", "onclick", "onload", "javascript:"] {
            assert!(!html.contains(inline), "{inline}");
        }
        assert_eq!(html.matches("<script").count(), 1);
        assert!(html.contains(r#"<script src="app.js" defer></script>"#));
    }

    #[test]
    fn the_script_never_makes_markup_of_what_the_cluster_says() {
        let (_, _, script) = FILES[1];
        for dangerous in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            assert!(!script.contains(dangerous), "{dangerous}");
        }
    }

    #[test]
    fn a_link_to_the_page_can_not_make_it_ask_for_another_path() {
        // `#../events` would open one stream after the other until nobody else is let in.
        let (_, _, script) = FILES[1];
        let names = r"/^[a-z0-9][^/]*\/[a-z0-9][^/]*$/.test(key)";
        assert_eq!(script.matches(".test(key)").count(), 1);
        assert!(script.contains(names));
    }

    #[test]
    fn the_page_takes_a_connection_for_dead_on_which_nothing_is_said() {
        let (_, _, script) = FILES[1];
        for part in ["addEventListener('alive'", "SILENT_AFTER = 40000;"] {
            assert!(script.contains(part), "{part}");
        }
        let alive = events::SIGN_OF_LIFE;
        assert!(alive.starts_with("event: alive\ndata: "), "{alive:?}");
        assert!(events::KEEP_ALIVE * 2 < Duration::from_millis(40_000));
    }

    #[test]
    fn what_changes_each_second_is_not_read_aloud() {
        let (_, _, html) = FILES[0];
        assert!(html.contains(r#"<p id="totals">"#));
        assert!(html.contains(r#"<p id="link" role="status""#));
        assert!(html.contains(r#"<p id="notice" role="alert" hidden>"#));
    }

    #[test]
    fn every_answer_carries_the_policy() {
        let answer = guarded(whole(server::text(StatusCode::OK, "ok\n")));
        let policy = answer
            .headers()
            .get(header::CONTENT_SECURITY_POLICY)
            .unwrap();
        let policy = policy.to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{policy}"
        );
        assert!(
            !policy.contains("unsafe") && !policy.contains("  "),
            "{policy}"
        );
    }
}
