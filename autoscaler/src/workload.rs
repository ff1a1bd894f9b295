//! One task for each workload: looks, asks the pure parts what to do, does it.
//!
//! A task never makes two evaluations at once, so each object has one write of ours in flight.

mod act;
mod again;
mod bare;
mod delete;
mod enrol;
mod follow;
mod haste;
mod leave;
mod look;
mod mesh;
mod native;
mod planning;
mod slices;
mod standby;
mod status;
mod waking;

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use lull_contract::{
    Settings,
    annotations::{self, AnnotationError, Defaults, Leave, ScaleMode},
    names::fnv1a,
    scaled_workload::{ScaledWorkload, ScaledWorkloadStatus, State},
};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

pub use self::status::tells_no_activator;
pub(crate) use self::waking::waking_reason;
use self::{
    again::Refusals, enrol::PrivateOf, follow::Patience, look::Look, mesh::RulesKept,
    planning::Inputs, standby::StandingBy, status::PutOff, waking::Untold,
};
use crate::{
    cache::Found,
    context::{Context, Key, Mailbox, WriteError},
    journal::Journal,
    machine::{self, Action, Step},
    memo::{Memo, Same},
    metrics::Series,
    plan::{Finding, Plan, PlannedService},
    policy::Policy,
    purpose::Purpose,
    target::Target,
    turns::Turn,
};

/// Between two pulls of a workload's pods, and two evaluations when nothing else happens.
const TICK: Duration = Duration::from_secs(1);
/// Fewest ticks between two evaluations of a workload that is asleep, or that another replica leads:
/// all that matters then comes as a change, so thousands of them are no load. Up to as many more, so
/// that they drift apart.
const REST: u32 = 15;
/// Moments within a tick at which workloads are pulled, so that a process that has just started doesn't
/// pull all of them in the same one.
const PHASES: u32 = 1_000;

/// A Service that is applied a moment after its Deployment is no obstacle.
const OBSTACLE_PATIENCE: Duration = Duration::from_secs(5);

/// What has to be done for a workload now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It is ours: run it.
    Run,
    /// It wants to be ours, but its template has no sidecar: the webhook was not there. It may have been
    /// ours before.
    NotInjected,
    /// It wants to be told what would be done, and nothing of ours is there.
    Plan,
    /// Give everything back.
    Leave,
    /// Its object is gone.
    Gone,
    /// Its kind is not watched, so nobody can say whether its object is there.
    Unknown,
    /// Its ScaledWorkload can't be read, and nothing is known of it.
    Unread,
    /// Nothing, ever.
    Done,
}

/// Uid and version of the object, and the cluster-wide defaults.
type SettingsOf = (String, String, Same<Defaults>);

/// The memory of one workload's task.
#[derive(Debug)]
struct Task {
    ctx: Arc<Context>,
    key: Key,
    mailbox: Arc<Mailbox>,
    series: Series,
    /// The term in which this replica leads; between two of them another one may have.
    term: Option<u64>,
    /// Version of the objects that plans are made from, before any of them was read for this look.
    objects: u64,
    /// The plan, and what it was made from.
    planned: Memo<Inputs, Plan>,
    /// The settings, and what they were read from.
    settings: Memo<SettingsOf, Result<Settings, Vec<AnnotationError>>>,
    /// Whether nothing is to be done about the private Service, and what that was told by.
    private_settled: Memo<PrivateOf, bool>,
    /// Names of the Services that select the pods, by the version of the objects.
    selecting: Memo<u64, Vec<String>>,
    /// What was made of the plan's rules for callers.
    rules: RulesKept,
    /// What is known of activators that stand by, in this term.
    standing_by: StandingBy,
    /// As the leader knows it; `None` until read from the ScaledWorkload.
    state: Option<State>,
    state_since: Instant,
    arrivals_at_state: u64,
    policy: Policy,
    /// Since when a wake has brought no pod.
    podless_since: Option<Instant>,
    /// Since when Kubernetes' own slices have led callers to ready pods, in this term.
    native_since: Option<Instant>,
    /// Since when no pod without the sidecar has been ready in them, in this term.
    without_plain_since: Option<Instant>,
    /// What we wrote to `/scale`, and where there was before, which the watch may still show.
    written_replicas: Option<Written>,
    /// Since when the Services have been their user's, as far as is known in this state.
    restored_at: Option<Instant>,
    status_written: Option<(ScaledWorkloadStatus, Instant)>,
    /// Something new to inform of, which was put off.
    status_owed: Option<PutOff>,
    injection_asked: Option<Instant>,
    /// What Events have told and still is so.
    told: Vec<Finding>,
    /// Writes that are refused, as far as Events have told.
    refusals: Refusals,
    /// The Event of the current wake has been written.
    woken_told: bool,
    /// Or one that it takes long.
    unanswered_told: bool,
    /// A wake for somebody who was held of which no Event has told yet.
    untold: Option<Untold>,
    /// With the leader, where that is another replica.
    patience: Patience,
    pull: Option<JoinHandle<()>>,
    /// Ticks until the next look at a workload that rests.
    rest: u32,
}

/// A count that we wrote.
#[derive(Debug, Clone, Copy)]
struct Written {
    from: u32,
    to: u32,
    at: Instant,
}

/// Looks after the workload `key` until it is neither ours nor wants to be.
pub async fn run(ctx: Arc<Context>, key: Key, mailbox: Arc<Mailbox>) {
    let now = ctx.now();
    let series = ctx.metrics.workload(&key);
    let mut task = Task {
        ctx,
        key,
        series,
        mailbox: Arc::clone(&mailbox),
        term: None,
        objects: 0,
        planned: Memo::default(),
        settings: Memo::default(),
        private_settled: Memo::default(),
        selecting: Memo::default(),
        rules: RulesKept::default(),
        standing_by: StandingBy::default(),
        state: None,
        state_since: Instant::now(),
        arrivals_at_state: 0,
        policy: Policy::new(true, now),
        podless_since: None,
        native_since: None,
        without_plain_since: None,
        written_replicas: None,
        restored_at: None,
        status_written: None,
        status_owed: None,
        injection_asked: None,
        told: Vec::new(),
        refusals: Refusals::default(),
        woken_told: false,
        unanswered_told: false,
        untold: None,
        patience: Patience::default(),
        pull: None,
        rest: 0,
    };
    // At once, and then at a moment of its own.
    if !task.start_pull() {
        mailbox.changed.notify_one();
    }
    let first = tokio::time::Instant::now() + phase_of(&task.key);
    let mut tick = tokio::time::interval_at(first, TICK);
    // A delay of the whole process, as of its start, would bring all workloads into step.
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut failures = 0;
    loop {
        tokio::select! {
            () = mailbox.changed.notified() => {}
            // Pulled pods lead to an evaluation when they have answered.
            _ = tick.tick() => if task.start_pull() || task.rests() { continue },
        }
        task.rest = 0;
        match task.evaluate().await {
            Ok(true) => (task.rest, failures) = (rest_of(&task.key), 0),
            Ok(false) => break,
            Err(error) => {
                task.tell_failed(&error, failures);
                again::pause(&mailbox, failures).await;
                mailbox.changed.notify_one();
                failures = failures.saturating_add(1);
            }
        }
    }
    task.ctx.ports.keep_only(&task.key, &[], task.ctx.now());
    // First: the next task of this name shows its own.
    drop(task.series);
    task.ctx.mailboxes().close(&task.key);
    tracing::info!(workload = %task.key, "not ours any more");
}

/// Whether a task is needed for this workload.
#[must_use]
pub fn is_relevant(ctx: &Context, key: &Key) -> bool {
    let (target, workload) = cached(ctx, key);
    stage(ctx, target.as_deref(), &workload) != Stage::Done
}

/// Whether a workload can do without an evaluation for a while, `state` being what its leader knows.
/// One that another replica leads needs this one for its wake alone.
fn may_rest(leads: bool, state: Option<State>, held: u64) -> bool {
    if leads {
        state == Some(State::Asleep)
    } else {
        held == 0
    }
}

/// Ticks between two evaluations while it rests.
fn rest_of(key: &Key) -> u32 {
    REST + own_share(key, REST)
}

/// Where in each tick the workload is pulled; less than a [`TICK`].
fn phase_of(key: &Key) -> Duration {
    TICK * own_share(key, PHASES) / PHASES
}

/// A number below `count`, always the same one for a workload, by which workloads are spread.
fn own_share(key: &Key, count: u32) -> u32 {
    let own = fnv1a(key.to_string().as_bytes()) % u64::from(count);
    u32::try_from(own).unwrap_or(0)
}

fn cached(ctx: &Context, key: &Key) -> (Option<Arc<Target>>, Found<ScaledWorkload>) {
    let Key { namespace, name } = key;
    (
        ctx.stores.targets.get(namespace, name),
        ctx.stores.workloads.look_up(namespace, name),
    )
}

fn stage(ctx: &Context, target: Option<&Target>, workload: &Found<ScaledWorkload>) -> Stage {
    match workload {
        Found::Known(workload) => {
            let knows_kind = ctx.stores.targets.knows_kind_of(&workload.spec.target);
            stage_of(target, Some(workload.as_ref()), knows_kind)
        }
        // It may be anything's, so nothing is made anew, taken back or put to sleep.
        Found::Unread => Stage::Unread,
        Found::Nothing => stage_of(target, None, true),
    }
}

/// Whether a workload that is run again begins anew from this state: it was leaving, or only planned.
fn starts_over(state: State) -> bool {
    matches!(state, State::Leaving | State::Planned)
}

/// `knows_kind`: all objects of the kind that `workload` names are known.
fn stage_of(target: Option<&Target>, workload: Option<&ScaledWorkload>, knows_kind: bool) -> Stage {
    let Some(target) = target.filter(|target| !target.is_deleted) else {
        return match workload {
            Some(_) if knows_kind => Stage::Gone,
            Some(_) => Stage::Unknown,
            None => Stage::Done,
        };
    };
    let is_plan = workload.is_none_or(|workload| workload.spec.is_dry_run());
    let mode = annotations::mode(&target.annotations);
    // Also one that never was ours is told that it has left.
    let leave = annotations::leave(&target.annotations);
    match (mode, target.is_injected(), workload) {
        (ScaleMode::On, true, _) => Stage::Run,
        (ScaleMode::On, false, _) => Stage::NotInjected,
        // One that has been ours leaves first.
        (ScaleMode::DryRun, false, _) if is_plan => Stage::Plan,
        (ScaleMode::Off, false, None) if leave != Some(Leave::Requested) => Stage::Done,
        (ScaleMode::DryRun | ScaleMode::Off, _, _) => Stage::Leave,
    }
}

// === impl Task ===

impl Task {
    /// Whether there is more to do, ever.
    async fn evaluate(&mut self) -> Result<bool, WriteError> {
        self.note_objects();
        let (target, workload) = cached(&self.ctx, &self.key);
        let stage = stage(&self.ctx, target.as_deref(), &workload);
        let workload = workload.known();
        let term = self.ctx.leadership.term(&self.key);
        if self.term != term {
            // What another leader has done is in the ScaledWorkload.
            (self.term, self.state) = (term, None);
            (self.status_written, self.status_owed) = (None, None);
            (self.podless_since, self.native_since) = (None, None);
            self.without_plain_since = None;
            self.standing_by = StandingBy::default();
            // What was told in another term is in the journal.
            (self.woken_told, self.unanswered_told) = (false, false);
            self.begin_to_pull();
        }
        if term.is_none() {
            self.series.hide();
            self.mailbox.journal.lock().hide();
            self.forget_the_gone();
            self.keep_woken(workload.as_deref());
            // Whoever leads hears of its end, or that there is none.
            self.untold = None;
            let is_woken_here = matches!(stage, Stage::Run | Stage::NotInjected);
            if let (true, Some(target), Some(workload)) = (is_woken_here, target, workload) {
                self.wake_as_follower(&target, &workload.spec.settings)
                    .await?;
            }
            return Ok(stage != Stage::Done);
        }
        match (stage, target, workload) {
            (Stage::Run, Some(target), workload) => {
                self.lead_or_wake(&target, workload).await?;
            }
            (Stage::NotInjected, Some(target), workload) => {
                self.without_sidecar(&target, workload.as_deref()).await?;
            }
            (Stage::Plan, Some(target), workload) => self.show_plan(&target, workload).await?,
            (Stage::Leave, Some(target), workload) => {
                self.leave(&target, workload.as_deref()).await?;
            }
            (Stage::Gone, _, Some(workload)) => {
                // What comes under the same name is another one.
                self.state = None;
                *self.mailbox.journal.lock() = Journal::default();
                self.gone(&workload).await?;
            }
            (Stage::Unknown, _, Some(workload)) => self.say_unknown(&workload).await?,
            (Stage::Unread, Some(target), _) => self.wake_unread(&target).await?,
            _ => return Ok(stage != Stage::Done),
        }
        Ok(true)
    }

    /// Whether this tick passes without an evaluation.
    fn rests(&mut self) -> bool {
        let term = self.ctx.leadership.term(&self.key);
        let held = self.mailbox.demand.lock().held();
        let is_due = self.rest == 0 || self.term != term;
        let owes = self.untold.is_some() || self.owes_status();
        if is_due || owes || !may_rest(term.is_some(), self.state, held) {
            return false;
        }
        self.rest -= 1;
        true
    }

    async fn lead(
        &mut self,
        target: &Target,
        workload: Option<Arc<ScaledWorkload>>,
    ) -> Result<(), WriteError> {
        let Some(workload) = self.ensure_workload(target, workload, false).await? else {
            return Ok(());
        };
        self.take_over(&workload);
        let plan = self.plan(target, &workload);
        let services = self.services_of(&plan);
        self.keep_services(target, &workload, services).await?;
        let look = self.look(target, &workload, &plan);
        let state = self.state.unwrap_or_default();
        self.show(&look, state);
        self.note_others_wake(state, &look.facts);
        let step = machine::step(state, &look.facts, &self.ctx.delays);
        self.act(target, &workload, services, &step).await?;
        self.tell_woken(target, look.facts.want);
        self.tell_unanswered(target, &look.facts);
        if look.verdict.overruled {
            self.tell_overruled(target, look.facts.replicas);
        }
        let refusals: Vec<String> = plan.refusals().map(ToString::to_string).collect();
        let reason = match &step.reason {
            _ if !refusals.is_empty() => refusals.join("; "),
            Some(reason) => reason.clone(),
            None => look.reason(step.state),
        };
        if step.state != state {
            tracing::info!(
                workload = %self.key, from = %state, to = %step.state, reason, facts = ?look.facts,
                "state"
            );
            self.keep_ready(state, &look.facts);
            self.enter(step.state);
        }
        self.tell_untold(target, step.state != State::Waking);
        self.tell_in_time(target, &plan);
        self.write_status(&workload, &look, (step.state, &*plan, reason))
            .await?;
        // Last: Istio's own admission may be away, and nothing else waits for this.
        self.keep_rules(&workload, &plan).await;
        Ok(())
    }

    /// Goes on where the last leader, or nobody, has left the workload.
    fn take_over(&mut self, workload: &ScaledWorkload) {
        if !self.state.is_none_or(starts_over) {
            return;
        }
        let there = workload.status.as_ref();
        let wakes = there.map(|status| status.wakes.as_slice());
        self.mailbox
            .journal
            .lock()
            .resume(wakes.unwrap_or_default());
        let state = there.map(|status| status.state);
        let state = state.filter(|state| !starts_over(*state));
        let state = state.unwrap_or(State::Enrolling);
        self.policy = Policy::new(state != State::Enrolling, self.ctx.now());
        self.enter(state);
    }

    /// Runs a step's actions in order; the first failure leaves the state as it was.
    async fn act(
        &mut self,
        target: &Target,
        workload: &ScaledWorkload,
        services: &[PlannedService],
        step: &Step,
    ) -> Result<(), WriteError> {
        for action in &step.actions {
            match *action {
                Action::AddActivators => self.add_activators(workload, services).await?,
                Action::RemoveActivators => self.remove_activators(services).await?,
                Action::RemoveSlices => self.remove_slices_behind(services).await?,
                Action::StandBy => self.stand_by(workload, services).await,
                Action::HoldSelector => self.hold_selector(workload, services).await?,
                Action::RestoreSelector => self.restore_selector(services).await?,
                Action::Scale { from, to } => {
                    if to == 0 {
                        self.istiod_hears(workload, services).await?;
                    }
                    self.scale(target, from, to).await?;
                }
                Action::AskAgain { from } => self.ask_again(target, from).await?,
            }
        }
        Ok(())
    }

    /// Awaits an API call of the leader, which takes its turn among all others unless somebody is
    /// held.
    async fn call<T>(
        &self,
        what: Purpose,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let _turn = self.turn().await;
        let call = self.ctx.call(what, call);
        let answer = self.ctx.leadership.write(&self.key, call).await;
        let answer = answer.unwrap_or(Err(WriteError::NotLeader { what }));
        answer.inspect(|_| self.ctx.crash.wrote(&self.key, &what))
    }

    /// As [`Self::call`], for what any replica may do: wake, on condition of the version read.
    async fn call_as_any<T>(
        &self,
        what: Purpose,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let turn = self.turn().await;
        self.call_in_turn(turn, what, call).await
    }

    /// The same where its `turn` has come.
    async fn call_in_turn<T>(
        &self,
        turn: Turn,
        what: Purpose,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, WriteError> {
        let _turn = turn;
        let answer = self.ctx.call(what, call).await;
        answer.inspect(|_| self.ctx.crash.wrote(&self.key, &what))
    }

    /// One of the few calls at a time: where somebody is held, of those that are urgent, also where
    /// that begins while this task waits for its turn.
    async fn turn(&self) -> Turn {
        match self.ordinary_turn().await {
            Some(turn) => turn,
            None => self.ctx.urgent.take(Duration::ZERO).await,
        }
    }

    /// A turn, sooner where the workload was called lately; `None` where somebody is held.
    async fn ordinary_turn(&self) -> Option<Turn> {
        let mut turn = pin!(self.ctx.turns.take(self.unused()));
        let mut is_changed = false;
        let turn = loop {
            if self.mailbox.demand.lock().held() > 0 {
                break None;
            }
            tokio::select! {
                turn = &mut turn => break Some(turn),
                () = self.mailbox.changed.notified() => is_changed = true,
            }
        };
        if is_changed {
            self.mailbox.changed.notify_one();
        }
        turn
    }

    /// Puts what was seen and decided into the metrics.
    fn show(&self, look: &Look, state: State) {
        let numbers = look.numbers(state);
        self.series.observe(numbers);
        self.mailbox.journal.lock().observe(self.ctx.now(), numbers);
        if look.verdict.decided {
            let oldest = look.measured.oldest;
            self.ctx.metrics.decided(look.why(), oldest);
        }
    }

    fn enter(&mut self, state: State) {
        self.series.enter(state);
        let is_told = state != State::Waking;
        self.woken_told &= is_told;
        self.unanswered_told &= is_told;
        self.state = Some(state);
        self.state_since = Instant::now();
        // Of an earlier time: another replica may have led since.
        self.restored_at = None;
        // The same: it may have lost its sidecar since it was enrolled first.
        self.without_plain_since = None;
        self.arrivals_at_state = self.mailbox.demand.lock().arrivals();
    }
}

// === impl Key ===

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use lull_contract::{AppProtocol, names::INJECTED_ANNOTATION, scaled_workload::WorkloadPort};
    use serde_json::{Value, json};

    use super::*;
    use crate::target::tests::{resource, target};

    fn deployment(annotations: &Value, injected: bool) -> Target {
        let template = if injected {
            json!({ INJECTED_ANNOTATION: "{}" })
        } else {
            json!({})
        };
        let object = json!({
            "metadata": { "name": "shop", "annotations": annotations },
            "spec": { "selector": {}, "template": { "metadata": { "annotations": template } } },
        });
        target(&resource("apps", "Deployment"), &object)
    }

    fn scaled() -> ScaledWorkload {
        let spec = json!({
            "target": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": "u" },
            "podSelector": {}, "ports": [], "settings": lull_contract::Settings::default(),
            "originalReplicas": 1,
        });
        ScaledWorkload::new("shop", serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn the_stage_follows_from_the_objects_alone() {
        let on = json!({ "lull.dev/scale": "true" });
        let leaving = json!({ "lull.dev/scale": "true", "lull.dev/leave": "requested" });
        let rows = [
            (on.clone(), true, Stage::Run),
            (on, false, Stage::NotInjected),
            (
                json!({ "lull.dev/scale": "true", "lull.dev/leave": "requested" }),
                false,
                Stage::Leave,
            ),
            (
                json!({ "lull.dev/scale": "true", "lull.dev/leave": "uninject" }),
                false,
                Stage::Done,
            ),
            (json!({}), true, Stage::Leave),
            (json!({}), false, Stage::Done),
            (leaving, true, Stage::Leave),
            (json!({ "lull.dev/scale": "false" }), true, Stage::Leave),
            (json!({ "lull.dev/scale": "dry-run" }), false, Stage::Plan),
            (json!({ "lull.dev/scale": "dry-run" }), true, Stage::Leave),
        ];
        for (annotations, injected, expected) in rows {
            let deployment = deployment(&annotations, injected);
            assert_eq!(
                stage_of(Some(&deployment), None, true),
                expected,
                "{annotations} {injected}"
            );
        }
        assert_eq!(stage_of(None, None, true), Stage::Done);
    }

    #[test]
    fn a_workload_that_was_run_leaves_before_its_plan_is_shown() {
        let dry_run = deployment(&json!({ "lull.dev/scale": "dry-run" }), false);
        let plan = scaled();
        let mut run = scaled();
        run.spec.ports.push(WorkloadPort {
            app_port: 8080,
            protocol: AppProtocol::Http,
            activator_port: 10_000,
        });
        assert_eq!(stage_of(Some(&dry_run), Some(&plan), true), Stage::Plan);
        assert_eq!(stage_of(Some(&dry_run), Some(&run), true), Stage::Leave);
        let off = deployment(&json!({}), false);
        assert_eq!(stage_of(Some(&off), Some(&plan), true), Stage::Leave);
    }

    #[test]
    fn what_sleeps_rests_and_what_another_leads_as_long_as_nobody_is_held() {
        let (led, followed) = (true, false);
        let rows = [
            (led, Some(State::Asleep), 0, true),
            // Its reports are changes.
            (led, Some(State::Asleep), 1, true),
            (led, Some(State::Awake), 0, false),
            (led, None, 0, false),
            // It is not known to who doesn't lead.
            (followed, None, 0, true),
            // The leader may not be there.
            (followed, None, 1, false),
        ];
        for (leads, state, held, expected) in rows {
            let rests = may_rest(leads, state, held);
            assert_eq!(rests, expected, "{leads} {state:?} {held}");
        }
    }

    #[test]
    fn workloads_are_pulled_at_moments_spread_over_the_whole_tick() {
        let key = |index: u32| Key {
            namespace: format!("team-{}", index % 20),
            name: format!("app-{index}"),
        };
        let mut tenths = [0; 10];
        for index in 0..1_000 {
            let phase = phase_of(&key(index));
            assert!(phase < TICK, "{phase:?}");
            assert_eq!(phase, phase_of(&key(index)), "the same after a restart");
            let tenth = phase.as_millis() * 10 / TICK.as_millis();
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        let evenly = 80..=120;
        assert!(
            tenths.iter().all(|count| evenly.contains(count)),
            "{tenths:?}"
        );
    }

    #[test]
    fn an_object_of_a_kind_that_is_not_watched_is_not_taken_for_deleted() {
        assert_eq!(stage_of(None, Some(&scaled()), true), Stage::Gone);
        assert_eq!(stage_of(None, Some(&scaled()), false), Stage::Unknown);
    }
}
