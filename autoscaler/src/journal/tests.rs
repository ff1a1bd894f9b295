use lull_contract::scaled_workload::State;

use super::*;

fn wake_at(at: &str) -> WakeView {
    WakeView {
        at: at.to_owned(),
        ..WakeView::default()
    }
}

fn change(from: u32, to: u32) -> CountChange {
    CountChange {
        at: "2026-11-25T10:00:00.000Z".to_owned(),
        from,
        to,
        reason: "requests are held".to_owned(),
    }
}

fn woken(total_us: u64) -> Woken {
    Woken {
        number: 1,
        phases_us: vec![
            ("created".to_owned(), 25_000),
            ("first-byte".to_owned(), total_us),
        ],
        by: None,
    }
}

fn caller(address: &str) -> Caller {
    Caller {
        address: address.to_owned(),
        ..Caller::default()
    }
}

fn numbers(in_flight: u64) -> Numbers {
    Numbers {
        state: State::Awake,
        desired: 2,
        ready: 1,
        in_flight,
        held: 0,
        panicking: false,
        heard: true,
    }
}

fn noon() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

#[test]
fn a_wake_begins_with_the_scale_and_ends_with_its_phases_and_callers() {
    let mut journal = Journal::default();
    journal.scaled(change(0, 2), Some("2026-11-25T09:59:59.900Z".to_owned()));
    assert_eq!(journal.wakes()[0].total_ms, None);
    let first = (&woken(612_400), Some(caller("10.0.0.1")));
    journal.woken(first, true, (noon(), 2));
    journal.woken(
        (&woken(700_000), Some(caller("10.0.0.2"))),
        false,
        (noon(), 2),
    );
    let [wake] = journal.wakes() else {
        panic!("{:?}", journal.wakes());
    };
    assert_eq!(wake.at, "2026-11-25T09:59:59.900Z");
    assert_eq!((wake.scaled_to, wake.total_ms), (2, Some(612)));
    assert_eq!(wake.phases[0].ms, 25);
    assert_eq!(wake.by, [caller("10.0.0.1"), caller("10.0.0.2")]);
}

#[test]
fn who_began_the_last_wake_is_named_when_that_is_found_out() {
    let mut journal = Journal::default();
    for _ in 0..2 {
        let first = (&woken(612_400), Some(caller("10.0.0.1")));
        journal.woken(first, true, (noon(), 2));
        let second = (&woken(612_400), Some(caller("10.0.0.2")));
        journal.woken(second, false, (noon(), 2));
        journal.scaled(change(2, 0), None);
    }
    let named = Caller {
        pod: Some("prod/front-1".to_owned()),
        workload: Some("prod/front".to_owned()),
        ..caller("10.0.0.1")
    };
    journal.name(&named);
    let [newest, before] = journal.wakes() else {
        panic!("{:?}", journal.wakes());
    };
    assert_eq!(newest.by, [named, caller("10.0.0.2")]);
    assert_eq!(before.by, [caller("10.0.0.1"), caller("10.0.0.2")]);
}

#[test]
fn a_wake_that_another_replica_began_is_told_with_its_own_beginning() {
    let mut journal = Journal::default();
    journal.woken((&woken(1_500_000), None), true, (noon(), 3));
    let wake = &journal.wakes()[0];
    assert_eq!(wake.at, "2026-11-25T11:59:58.500Z");
    assert_eq!((wake.scaled_to, wake.total_ms), (3, Some(1_500)));
}

/// A wake of this process for somebody who came at that time.
fn begun_at(at: &str) -> Journal {
    let mut journal = Journal::default();
    journal.scaled(change(0, 1), Some(at.to_owned()));
    journal
}

/// Told of with the phase at whose end a pod could take what was held.
fn answering(ms: u64, total_ms: u64) -> Woken {
    let mut woken = woken(total_ms * 1_000);
    woken
        .phases_us
        .insert(1, (ANSWERING_PHASE.to_owned(), ms * 1_000));
    woken
}

#[test]
fn a_pod_was_waited_for_until_it_answered_and_not_until_the_app_did() {
    let mut journal = begun_at("2026-11-25T11:59:15.000Z");
    journal.woken((&answering(2_000, 44_000), None), true, (noon(), 1));
    journal.ready(noon());
    assert_eq!(journal.wakes()[0].waited_ms, Some(2_000));
}

#[test]
fn who_tries_anew_while_a_workload_wakes_has_waited_since_the_first_try() {
    // Held from :36 on, given up at :46 and at :56; of the third try only its own 3 s are told.
    let third = answering(2_900, 3_000);
    let mut journal = begun_at("2026-11-25T11:59:36.000Z");
    journal.woken((&third, None), true, (noon(), 1));
    let wake = &journal.wakes()[0];
    assert_eq!((wake.total_ms, wake.waited_ms), (Some(3_000), Some(24_000)));
    journal.ready(noon() + Duration::from_secs(1));
    assert_eq!(journal.wakes()[0].waited_ms, Some(24_000));
}

#[test]
fn a_wake_after_which_nobody_was_left_took_until_pods_were_ready() {
    let mut journal = begun_at("2026-11-25T11:59:25.000Z");
    journal.ready(noon());
    journal.ready(noon() + Duration::from_secs(60));
    let wake = &journal.wakes()[0];
    assert_eq!((wake.total_ms, wake.waited_ms), (None, Some(35_000)));
    // Who is told of much later was held for another reason.
    let later = noon() + Duration::from_secs(300);
    journal.woken((&answering(900, 1_000), None), true, (later, 1));
    assert_eq!(journal.wakes()[0].waited_ms, Some(35_000));
}

#[test]
fn only_a_wake_of_this_process_for_somebody_is_over_when_pods_are_ready() {
    let early = "2026-11-25T10:00:00.000Z";
    let mut for_nobody = Journal::default();
    for_nobody.scaled(change(0, 1), None);
    let mut of_another = Journal::default();
    of_another.resume(&[wake_at(early)]);
    let mut taken_over = begun_at(early);
    taken_over.resume(&[]);
    for mut journal in [for_nobody, of_another, taken_over] {
        journal.ready(noon());
        assert_eq!(journal.wakes()[0].waited_ms, None);
    }
}

#[test]
fn only_what_is_above_zero_after_zero_is_a_wake() {
    let mut journal = Journal::default();
    for (from, to) in [(1, 3), (3, 0), (0, 1)] {
        journal.scaled(change(from, to), None);
    }
    assert_eq!(journal.wakes().len(), 1);
    let counts: Vec<(u32, u32)> = journal.changes().iter().map(|c| (c.from, c.to)).collect();
    assert_eq!(counts, [(0, 1), (3, 0), (1, 3)]);
}

#[test]
fn the_next_leader_goes_on_where_the_last_one_wrote() {
    let (early, late) = ("2026-11-25T10:00:00.000Z", "2026-11-25T11:00:00.000Z");
    let ended = WakeView {
        total_ms: Some(1),
        ..wake_at(early)
    };
    let mut journal = Journal::default();
    journal.scaled(change(0, 1), Some(late.to_owned()));
    journal.resume(std::slice::from_ref(&ended));
    let at: Vec<&str> = journal
        .wakes()
        .iter()
        .map(|wake| wake.at.as_str())
        .collect();
    assert_eq!(at, [late, early], "what has just begun stays");
    journal.resume(&[wake_at(late), ended]);
    assert_eq!(
        journal.wakes().len(),
        2,
        "what is written is not told twice"
    );
}

#[test]
fn who_leads_again_keeps_what_nobody_has_written_meanwhile() {
    let early = "2026-11-25T10:00:00.000Z";
    let (begun, late) = ("2026-11-25T11:59:59.000Z", "2026-11-25T11:59:57.500Z");
    let ended = |at: &str, total: u64| WakeView {
        total_ms: Some(total),
        ..wake_at(at)
    };
    let rows = [
        // Nothing but what was there before: the end was put off, and so was the wake.
        (
            vec![ended(early, 1)],
            vec![(begun, Some(900)), (early, Some(1))],
        ),
        // Its beginning was written, and its end was not.
        (
            vec![wake_at(begun), ended(early, 1)],
            vec![(begun, Some(900)), (early, Some(1))],
        ),
        // Another leader has written it, as it saw it.
        (
            vec![ended(late, 700), ended(early, 1)],
            vec![(late, Some(700)), (early, Some(1))],
        ),
        // And another one since.
        (
            vec![ended("2026-11-25T12:10:00.000Z", 5)],
            vec![("2026-11-25T12:10:00.000Z", Some(5))],
        ),
        (vec![], vec![(begun, Some(900))]),
    ];
    for (written, expected) in rows {
        let mut journal = Journal::default();
        journal.scaled(change(0, 1), Some(begun.to_owned()));
        assert!(journal.woken((&woken(900_000), None), true, (noon(), 1)));
        journal.resume(&written);
        let wakes = journal.wakes().iter();
        let wakes: Vec<_> = wakes
            .map(|wake| (wake.at.as_str(), wake.total_ms))
            .collect();
        assert_eq!(wakes, expected, "{written:?}");
    }
}

#[test]
fn a_wake_that_is_kept_over_two_terms_is_not_told_twice() {
    let mut journal = Journal::default();
    journal.scaled(change(0, 1), Some("2026-11-25T11:59:59.000Z".to_owned()));
    assert!(journal.woken((&woken(900_000), None), true, (noon(), 1)));
    journal.resume(&[]);
    // By another activator, in the new term.
    assert!(!journal.woken((&woken(850_000), None), true, (noon(), 1)));
    assert_eq!(journal.wakes().len(), 1);
}

#[test]
fn a_wake_that_a_leader_before_has_written_is_not_told_twice() {
    let written = WakeView {
        total_ms: Some(612),
        phases: phases(&woken(612_400)),
        ..wake_at("2026-11-25T11:59:55.000Z")
    };
    let rows = [
        // The same, however wrong the clock was with which it was written.
        (woken(612_400), "2026-11-25T12:30:00Z", false),
        // As another activator saw it.
        (woken(580_000), "2026-11-25T12:00:00Z", false),
        (woken(580_000), "2026-11-25T12:00:10Z", true),
    ];
    for (told, now, is_news) in rows {
        let mut journal = Journal::default();
        journal.resume(std::slice::from_ref(&written));
        let now: Timestamp = now.parse().unwrap();
        let first = (&told, Some(caller("10.0.0.1")));
        assert_eq!(journal.woken(first, true, (now, 1)), is_news, "{now}");
        assert_eq!(journal.wakes().len(), 1 + usize::from(is_news), "{now}");
        assert_eq!(journal.wakes()[0].by, [caller("10.0.0.1")]);
    }
}

#[test]
fn two_wakes_of_one_process_are_two_however_alike() {
    let mut journal = Journal::default();
    for _ in 0..2 {
        journal.scaled(change(0, 1), None);
        assert!(journal.woken((&woken(612_400), None), true, (noon(), 1)));
    }
    assert_eq!(journal.wakes().len(), 2);
}

#[test]
fn a_wake_that_was_written_before_it_had_ended_is_ended_by_the_next_leader() {
    let mut journal = Journal::default();
    journal.resume(&[wake_at("2026-11-25T11:59:59.000Z")]);
    assert!(journal.woken((&woken(900_000), None), true, (noon(), 1)));
    assert_eq!(journal.wakes().len(), 1);
    assert_eq!(journal.wakes()[0].total_ms, Some(900));
}

#[test]
fn everything_is_bounded() {
    let mut journal = Journal::default();
    for second in 0..10_000 {
        journal.scaled(change(0, 1), None);
        journal.observe(Duration::from_secs(second), numbers(second));
    }
    for last in 0..10 {
        let caller = Some(caller(&format!("10.0.0.{last}")));
        journal.woken((&woken(1), caller), last == 0, (noon(), 1));
    }
    assert_eq!(journal.wakes().len(), MAX_WAKES);
    assert_eq!(journal.wakes()[0].by.len(), MAX_WAKE_CALLERS);
    assert_eq!(journal.changes().len(), MAX_CHANGES);
    assert_eq!(journal.line(Duration::ZERO).len(), MAX_MOMENTS);
}

#[test]
fn the_line_has_a_moment_for_every_few_seconds() {
    let mut journal = Journal::default();
    for second in 0..=10 {
        journal.observe(Duration::from_secs(second), numbers(second));
    }
    let line = journal.line(Duration::from_secs(12));
    let line: Vec<(u32, u64)> = line.iter().map(|m| (m.ago, m.in_flight)).collect();
    assert_eq!(line, [(12, 0), (7, 5), (2, 10)]);
    assert_eq!(journal.seen().map(|seen| seen.in_flight), Some(10));
    journal.hide();
    assert!(journal.seen().is_none());
}

#[test]
fn a_time_in_which_nothing_changes_has_a_beginning_and_an_end() {
    let mut journal = Journal::default();
    for second in 0..1_000 {
        let in_flight = u64::from(second >= 500);
        journal.observe(Duration::from_secs(second), numbers(in_flight));
    }
    let line = journal.line(Duration::from_secs(1_000));
    let line: Vec<(u32, u64)> = line.iter().map(|m| (m.ago, m.in_flight)).collect();
    assert_eq!(line, [(900, 0), (505, 0), (500, 1), (5, 1)]);
    let later = journal.line(Duration::from_secs(2_000));
    let later: Vec<(u32, u64)> = later.iter().map(|m| (m.ago, m.in_flight)).collect();
    assert_eq!(later, [(900, 1)], "what was long ago is not shown");
}
