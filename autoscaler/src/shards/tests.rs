use std::collections::BTreeMap;

use lull_contract::names::spread_hash;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn shards(count: u16) -> Shards {
    count.to_string().parse().unwrap()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A lease in its `version`, of which only the holder matters.
fn lease(name: &str, holder: &str, version: u64) -> Lease {
    let mut lease = unwritten(name.to_owned());
    lease.metadata.resource_version = Some(version.to_string());
    lease.spec = Some(LeaseSpec {
        holder_identity: (!holder.is_empty()).then(|| holder.to_owned()),
        ..LeaseSpec::default()
    });
    lease
}

fn plan(view: &mut View, now: Duration, replicas: &BTreeSet<String>) -> Vec<Step> {
    view.plan(&Moment {
        now,
        replicas,
        is_ready: true,
    })
}

#[test]
fn nobody_should_have_two_shards_more_than_another() {
    let all: Vec<String> = (0..9).map(|number| format!("lull-{number}")).collect();
    for count in [1, 2, 3, 7, 64] {
        for replicas in 1..=all.len() {
            let replicas: BTreeSet<&str> = all[..replicas].iter().map(String::as_str).collect();
            let preferred = preferred(shards(count), &replicas);
            let has = |name: &str| preferred.iter().filter(|one| **one == name).count();
            let has: Vec<usize> = replicas.iter().map(|name| has(name)).collect();
            assert_eq!(has.iter().sum::<usize>(), usize::from(count));
            let (least, most) = (has.iter().min().unwrap(), has.iter().max().unwrap());
            assert!(most - least <= 1, "{count} shards: {has:?}");
        }
    }
    assert!(preferred(shards(2), &BTreeSet::new()).is_empty());
}

#[test]
fn a_free_lease_is_taken_at_once_by_who_should_have_it_and_later_by_others() {
    let replicas = names(&["a", "b"]);
    let by_name: BTreeSet<&str> = replicas.iter().map(String::as_str).collect();
    for (shard, wished) in preferred(shards(2), &by_name).into_iter().enumerate() {
        let hold = Step::Hold(u16::try_from(shard).unwrap());
        for name in ["a", "b"] {
            let mut view = View::new(name.to_owned(), shards(2));
            assert_eq!(plan(&mut view, SECOND, &replicas), [], "nothing is known");
            view.see(Vec::new(), SECOND);
            let at_once = plan(&mut view, SECOND, &replicas);
            assert_eq!(
                at_once.contains(&hold),
                name == wished,
                "{name}: {at_once:?}"
            );
            let later = plan(&mut view, SECOND + GRACE, &replicas);
            assert!(later.contains(&hold), "{name}: {later:?}");
        }
    }
}

#[test]
fn a_lease_that_is_not_renewed_is_taken_by_anybody_and_one_that_is_by_nobody() {
    let replicas = names(&["a", "b"]);
    let mut view = View::new("a".to_owned(), shards(1));
    let held = |version| vec![lease("lull-autoscaler", "b", version)];
    view.see(held(1), SECOND);
    assert_eq!(plan(&mut view, SECOND + DURATION, &replicas), []);
    view.see(held(2), SECOND + DURATION);
    let end = SECOND + DURATION * 2;
    assert_eq!(plan(&mut view, end, &replicas), [], "it was renewed");
    view.see(held(2), end);
    let over = end + view.pause(end, end);
    assert_eq!(over, end + Duration::from_millis(1));
    assert_eq!(plan(&mut view, over, &replicas), [Step::Hold(0)]);
    let moment = Moment {
        now: over,
        replicas: &replicas,
        is_ready: false,
    };
    assert_eq!(view.plan(&moment), [], "one that isn't ready takes nothing");
}

#[test]
fn a_shard_has_a_holder_from_when_its_lease_is_seen_until_that_is_over() {
    let mut view = View::new("a".to_owned(), shards(2));
    let listed = [("-0-of-2", "b"), ("-1-of-2", ""), ("", "old")];
    let listed = listed.map(|(of, holder)| lease(&format!("lull-autoscaler{of}"), holder, 1));
    view.see(listed.into(), SECOND);
    let over = SECOND + DURATION;
    let rows: [(Duration, &[&str]); 3] = [
        (SECOND, &["b", "old"]),
        (over, &["b", "old"]),
        (over + Duration::from_millis(1), &[]),
    ];
    for (now, expected) in rows {
        let holders = view.holders(now);
        assert_eq!(Vec::from_iter(holders.names()), expected, "{now:?}");
    }
}

#[test]
fn a_shard_is_handed_over_once_another_should_have_had_it_for_long_and_not_again_soon() {
    let (mut view, alone) = (View::new("a".to_owned(), shards(1)), names(&["a"]));
    // One that should have the shard as soon as it is there.
    let other = (0..)
        .map(|number| format!("b{number}"))
        .find(|name| preferred(shards(1), &["a", name.as_str()].into()) == [name.as_str()])
        .unwrap();
    let both = names(&["a", &other]);
    let hold = |view: &mut View, now: Duration, version| {
        view.wrote(Step::Hold(0), now, now);
        view.see(vec![lease("lull-autoscaler", "a", version)], now);
        assert_eq!(view.until(0), now + HOLDS);
    };
    view.see(Vec::new(), SECOND);
    assert_eq!(plan(&mut view, SECOND, &alone), [Step::Hold(0)]);
    hold(&mut view, SECOND, 1);
    assert_eq!(plan(&mut view, SECOND, &both), [Step::Hold(0)]);
    // One that goes and comes begins anew.
    assert_eq!(plan(&mut view, SECOND * 2, &alone), [Step::Hold(0)]);
    let joined = SECOND * 2;
    assert_eq!(plan(&mut view, joined, &both), [Step::Hold(0)]);
    let due = joined + SETTLED;
    hold(&mut view, due - SECOND, 2);
    assert_eq!(plan(&mut view, due - SECOND, &both), [Step::Hold(0)]);
    assert_eq!(plan(&mut view, due, &both), [Step::GiveUp(0)]);
    assert_eq!(view.until(0), Duration::ZERO, "it leads no more");
    view.wrote(Step::GiveUp(0), due, due);
    view.see(vec![lease("lull-autoscaler", "", 3)], due);
    assert_eq!(plan(&mut view, due, &both), []);
    // The other doesn't come for it.
    let back = due + GRACE;
    assert_eq!(plan(&mut view, back, &both), [Step::Hold(0)]);
    hold(&mut view, back, 4);
    assert_eq!(plan(&mut view, back + SETTLED, &both), [Step::Hold(0)]);
    assert_eq!(plan(&mut view, due + AGAIN, &both), [Step::GiveUp(0)]);
}

#[test]
fn no_shard_is_led_while_another_division_holds_one() {
    let (mut view, alone) = (View::new("a".to_owned(), shards(2)), names(&["a"]));
    let other = |holder: &str, version| lease("lull-autoscaler", holder, version);
    view.see(vec![other("old", 1)], SECOND);
    assert_eq!(plan(&mut view, SECOND + GRACE, &alone), []);
    // Free, then taken while we take ours.
    view.see(vec![other("", 2)], SECOND * 3);
    let both = [Step::Hold(0), Step::Hold(1)];
    assert_eq!(plan(&mut view, SECOND * 3, &alone), both);
    for step in both {
        view.wrote(step, SECOND * 3, SECOND * 3);
    }
    let ours = |shard| lease(&shards(2).lease(shard), "a", 4);
    view.see(vec![other("old", 3), ours(0), ours(1)], SECOND * 3);
    assert_eq!([view.until(0), view.until(1)], [Duration::ZERO; 2]);
    let given_up = [Step::GiveUp(0), Step::GiveUp(1)];
    assert_eq!(plan(&mut view, SECOND * 3, &alone), given_up);
}

#[test]
fn a_renewal_keeps_when_the_lease_was_acquired_and_a_take_over_counts() {
    let mut view = View::new("a".to_owned(), shards(1));
    let at = |second| Timestamp::from_second(second).unwrap();
    view.see(vec![lease("lull-autoscaler", "b", 1)], SECOND);
    let mut taken = view.lease(Step::Hold(0), at(1));
    assert_eq!(taken.resource_version().as_deref(), Some("1"));
    taken.metadata.resource_version = Some("2".to_owned());
    view.see(vec![taken.clone()], SECOND);
    let renewed = view.lease(Step::Hold(0), at(2)).spec.unwrap();
    let spec = taken.spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("a"));
    assert_eq!(
        (spec.lease_transitions, &spec.acquire_time),
        (Some(1), &Some(MicroTime(at(1))))
    );
    assert_eq!(renewed.acquire_time, spec.acquire_time);
    assert_eq!(
        (renewed.renew_time, renewed.lease_transitions),
        (Some(MicroTime(at(2))), Some(1))
    );
    let given_up = view.lease(Step::GiveUp(0), at(3)).spec.unwrap();
    assert_eq!(
        (given_up.holder_identity, given_up.lease_transitions),
        (None, Some(1))
    );
}

// Several replicas, in virtual time, that crash, come, and stand still.

/// A replica's loop, between two events of which time passes.
#[derive(Debug)]
enum Stage {
    /// Plans, and sends what is to be written.
    Plan,
    /// It reaches the API server.
    Writes(Vec<Step>),
    /// The answers are here.
    Written(Vec<Step>),
    /// The API server lists.
    List,
    /// The list is here.
    Listed(Vec<Lease>),
}

#[derive(Debug)]
struct Replica {
    view: View,
    stage: Stage,
    next: Duration,
    began: Duration,
}

/// The API server, and what the replicas know of each other.
#[derive(Debug, Default)]
struct World {
    now: Duration,
    leases: BTreeMap<String, Lease>,
    version: u64,
    replicas: BTreeMap<String, Replica>,
    /// Pods that look ready, and until when those that are gone do.
    ready: BTreeMap<String, Option<Duration>>,
    seed: u64,
    drawn: u64,
    /// Longest time from one event of a replica to the next; how often one in 1000 stands still.
    latency_ms: u64,
    stills: u64,
}

// === impl World ===

impl World {
    fn new(seed: u64, latency_ms: u64, stills: u64) -> Self {
        Self {
            seed,
            latency_ms,
            stills,
            ..Self::default()
        }
    }

    /// A number below `end`.
    fn draw(&mut self, end: u64) -> u64 {
        self.drawn += 1;
        spread_hash(format!("{}/{}", self.seed, self.drawn).as_bytes()) % end
    }

    fn join(&mut self, name: &str, shards: Shards) {
        let next = self.now;
        let replica = Replica {
            view: View::new(name.to_owned(), shards),
            // As lease.rs does: nothing is known, so the first plan is empty.
            stage: Stage::Plan,
            next,
            began: next,
        };
        self.replicas.insert(name.to_owned(), replica);
        self.ready.insert(name.to_owned(), None);
    }

    /// Without a word; the pod may look ready for long.
    fn crash(&mut self, name: &str) {
        self.replicas.remove(name);
        let seems_until = self.now + Duration::from_millis(self.draw(15_000));
        self.ready.insert(name.to_owned(), Some(seems_until));
    }

    /// In good order: its leases are given up.
    fn stop(&mut self, name: &str) {
        self.replicas.remove(name);
        self.ready.remove(name);
        for lease in self.leases.values_mut() {
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(name) {
                spec.holder_identity = None;
                self.version += 1;
                lease.metadata.resource_version = Some(self.version.to_string());
            }
        }
    }

    fn write(&mut self, mut lease: Lease) -> bool {
        let there = self.leases.get(&lease.name_any());
        let is_current = there.and_then(ResourceExt::resource_version) == lease.resource_version();
        if is_current {
            self.version += 1;
            lease.metadata.resource_version = Some(self.version.to_string());
            self.leases.insert(lease.name_any(), lease);
        }
        is_current
    }

    /// One millisecond: every replica whose time has come makes its next step.
    fn tick(&mut self) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        self.ready
            .retain(|_, until| until.is_none_or(|until| until > now));
        let due = self
            .replicas
            .iter()
            .filter(|(_, replica)| replica.next <= now);
        let due: Vec<String> = due.map(|(name, _)| name.clone()).collect();
        for name in due {
            if let Some(mut replica) = self.replicas.remove(&name) {
                self.advance(&mut replica);
                self.replicas.insert(name, replica);
            }
        }
    }

    fn advance(&mut self, replica: &mut Replica) {
        let now = self.now;
        let mut wait = Duration::from_millis(1 + self.draw(self.latency_ms));
        if self.draw(1_000) < self.stills {
            wait += Duration::from_millis(self.draw(4_000));
        }
        replica.stage = match std::mem::replace(&mut replica.stage, Stage::Plan) {
            Stage::Plan => {
                replica.began = now;
                let ready: BTreeSet<String> = self.ready.keys().cloned().collect();
                Stage::Writes(plan(&mut replica.view, now, &ready))
            }
            Stage::Writes(steps) => {
                let view = &replica.view;
                let done = steps
                    .into_iter()
                    .filter(|step| self.write(view.lease(*step, Timestamp::UNIX_EPOCH)));
                Stage::Written(done.collect())
            }
            Stage::Written(steps) => {
                for step in steps {
                    replica.view.wrote(step, replica.began, now);
                }
                Stage::List
            }
            Stage::List => Stage::Listed(self.leases.values().cloned().collect()),
            Stage::Listed(leases) => {
                replica.view.see(leases, now);
                wait = replica.view.pause(replica.began, now);
                Stage::Plan
            }
        };
        replica.next = now + wait;
    }

    /// Who leads each shard of each division; fails where two do, or two divisions are led.
    fn leaders(&self) -> BTreeMap<(u16, u16), &str> {
        let mut leaders = BTreeMap::new();
        for (name, replica) in &self.replicas {
            let shards = replica.view.shards;
            for shard in shards.all().filter(|s| replica.view.until(*s) > self.now) {
                let other = leaders.insert((shards.count(), shard), name.as_str());
                assert_eq!(other, None, "{name} too leads {shard}: {}", self.seed);
            }
        }
        let divisions: BTreeSet<u16> = leaders.keys().map(|(count, _)| *count).collect();
        assert!(divisions.len() <= 1, "{divisions:?}: seed {}", self.seed);
        leaders
    }
}

#[test]
fn two_never_lead_whatever_crashes_or_stands_still() {
    for seed in 0..20 {
        let (mut world, shards) = (World::new(seed, 150, 20), shards(3));
        for name in ["a", "b", "c"] {
            world.join(name, shards);
        }
        let mut led = 0;
        for _ in 0..30_000 {
            world.tick();
            led += world.leaders().len();
            if world.draw(3_000) == 0 {
                let name = ["a", "b", "c"][usize::try_from(world.draw(3)).unwrap()];
                if world.replicas.contains_key(name) {
                    world.crash(name);
                } else {
                    world.join(name, shards);
                }
            }
        }
        assert!(led > 0, "nobody ever led: seed {seed}");
    }
}

#[test]
fn after_a_crash_every_shard_is_led_again_within_three_seconds_and_then_evenly() {
    const RUN: u64 = 40_000;
    /// Until a pod that is gone looks so, and the last hand-over that was in vain is made up for.
    const CALM: u64 = 90_000;
    for seed in 0..8 {
        let (mut world, count) = (World::new(seed, 5, 0), 4);
        let names = ["a", "b", "c"];
        for name in names {
            world.join(name, shards(count));
        }
        // By shard: when it was led last.
        let mut led_at = vec![world.now; usize::from(count)];
        let mut disturbed_at = world.now;
        for step in 0..RUN + CALM {
            world.tick();
            for (_, shard) in world.leaders().into_keys() {
                led_at[usize::from(shard)] = world.now;
            }
            for at in &led_at {
                let since = world.now - (*at).max(disturbed_at);
                assert!(
                    since <= SECOND * 3,
                    "nobody leads for {since:?}: seed {seed}"
                );
            }
            let may_crash = step < RUN && world.now - disturbed_at > SECOND * 5;
            let gone = names
                .iter()
                .find(|name| !world.replicas.contains_key(**name));
            if let Some(gone) = gone.filter(|_| step >= RUN || world.draw(4_000) == 0) {
                world.join(gone, shards(count));
            } else if may_crash && world.draw(2_000) == 0 {
                let name = names[usize::try_from(world.draw(3)).unwrap()];
                if world.replicas.len() > 1 && world.replicas.contains_key(name) {
                    world.crash(name);
                    disturbed_at = world.now;
                }
            }
        }
        let leaders: Vec<&str> = world.leaders().into_values().collect();
        let ready: BTreeSet<&str> = names.into();
        assert_eq!(leaders, preferred(shards(count), &ready), "seed {seed}");
    }
}

#[test]
fn a_rollout_to_another_division_leads_by_one_of_them_at_a_time_and_ends_with_the_new() {
    for seed in 0..20 {
        let mut world = World::new(seed, 50, 5);
        for name in ["a", "b"] {
            world.join(name, shards(2));
        }
        let mut led = BTreeSet::new();
        for step in 0..30_000 {
            world.tick();
            match step {
                5_000 => world.join("c", shards(3)),
                8_000 => world.stop("a"),
                10_000 => world.join("d", shards(3)),
                13_000 => world.stop("b"),
                20_000 => led.clear(),
                _ => {}
            }
            led.extend(world.leaders().into_keys());
        }
        assert_eq!(led, BTreeSet::from([(3, 0), (3, 1), (3, 2)]), "seed {seed}");
    }
}
