//! A thousand workloads on the page, a fifth of them with news each second. Limits are several times what a
//! machine of two busy cores takes.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use lull_e2e::{
    browser::{Browser, DESK, Key, PHONE, Screen},
    crowd::Crowd,
};
use serde::Deserialize;

const COUNT: u32 = 1_000;
/// Events that the page is watched for, one a second.
const EVENTS: u32 = 6;
/// Most elements of one row: the item, its link, and seven columns.
const OF_A_ROW: u32 = 9;
/// Most elements beside the rows.
const OF_THE_REST: u32 = 200;
/// Most of the time that tasks of more than 50 ms may take: nothing is drawn meanwhile.
const BLOCKED: f64 = 0.2;
/// Longest time between two frames but for one in twenty, milliseconds.
const FRAME: f64 = 100.0;
/// Most of the time that the page may be busy with news.
const BUSY: f64 = 0.5;
/// Longest time from a letter in the filter to the frame that shows it, milliseconds.
const ANSWER: f64 = 300.0;
/// Most that what is kept may grow by while as much is shown as before: what is of no use any more is not
/// always found at once.
const GROWTH: f64 = 1.5;

/// How evenly the page drew, milliseconds.
#[derive(Debug, Deserialize)]
struct Pace {
    all: f64,
    frames: u32,
    /// Between two frames, but for one in twenty.
    most: f64,
    /// In tasks of more than 50 ms.
    blocked: f64,
}

async fn filled(browser: &mut Browser, crowd: &Crowd, screen: Screen) -> anyhow::Result<()> {
    browser.look_with(screen).await?;
    browser.open(&crowd.url()).await?;
    let all = format!("document.querySelectorAll('#list li').length === {COUNT}");
    browser.shows(&all).await
}

/// Waits for so many events more.
async fn news(browser: &mut Browser) -> anyhow::Result<()> {
    const NOW: &str = "Number(document.querySelector('#list .flight').textContent)";
    let seen: u32 = browser.value(NOW).await?;
    browser.shows(&format!("{NOW} >= {}", seen + EVENTS)).await
}

async fn pace_under_news(browser: &mut Browser) -> anyhow::Result<Pace> {
    browser.value::<()>("pace.start()").await?;
    news(browser).await?;
    let pace: Pace = browser.value("pace.stop()").await?;
    eprintln!("{pace:?}");
    Ok(pace)
}

fn is_even(pace: &Pace) -> anyhow::Result<()> {
    ensure!(pace.frames > 10, "hardly a frame: {pace:?}");
    ensure!(pace.blocked <= BLOCKED * pace.all, "it stands: {pace:?}");
    ensure!(pace.most <= FRAME, "it jerks: {pace:?}");
    Ok(())
}

fn count(counts: &BTreeMap<String, f64>, name: &str) -> anyhow::Result<f64> {
    let count = counts.get(name).copied();
    count.with_context(|| format!("the browser has no {name}"))
}

#[tokio::test]
async fn news_of_a_thousand_workloads_are_drawn_evenly_and_leave_nothing_behind()
-> anyhow::Result<()> {
    let crowd = Crowd::start(COUNT).await?;
    let mut browser = Browser::start().await?;
    filled(&mut browser, &crowd, DESK).await?;
    let elements = "document.getElementsByTagName('*').length";
    let most = COUNT * OF_A_ROW + OF_THE_REST;
    let at_first: u32 = browser.value(elements).await?;
    ensure!(at_first <= most, "{at_first} elements");
    // The first events still make what then stays.
    news(&mut browser).await?;

    let before = browser.counts().await?;
    let pace = pace_under_news(&mut browser).await?;
    let after = browser.counts().await?;
    is_even(&pace)?;
    let took = |name| anyhow::Ok(count(&after, name)? - count(&before, name)?);
    let (busy, all) = (took("TaskDuration")?, took("Timestamp")?);
    ensure!(busy <= BUSY * all, "busy for {busy} of {all} s");
    for name in ["Nodes", "JSHeapUsedSize", "JSEventListeners"] {
        let (before, after) = (count(&before, name)?, count(&after, name)?);
        ensure!(
            after <= GROWTH * before,
            "{name} grew from {before} to {after}"
        );
    }
    let at_last: u32 = browser.value(elements).await?;
    ensure!(at_last == at_first, "{at_first} elements, then {at_last}");
    ensure!(
        browser.complaints().is_empty(),
        "{:?}",
        browser.complaints()
    );
    browser.stop().await
}

#[tokio::test]
async fn a_filter_over_a_thousand_workloads_answers_while_somebody_types() -> anyhow::Result<()> {
    let crowd = Crowd::start(COUNT).await?;
    let mut browser = Browser::start().await?;
    filled(&mut browser, &crowd, DESK).await?;
    let mut times = Vec::new();
    for (text, rows) in [("team-07", 50), ("", 1_000)].repeat(5) {
        let typed = format!(
            "pace.drawn(() => {{ const text = document.getElementById('text'); text.value = '{text}'; \
             text.dispatchEvent(new Event('input')); }})"
        );
        times.push(browser.value::<f64>(&typed).await?);
        let shown: u32 = browser
            .value("document.getElementById('list').childElementCount")
            .await?;
        ensure!(shown == rows, "{shown} rows for {text:?}");
    }
    times.sort_by(f64::total_cmp);
    eprintln!("{times:?} ms");
    let half = times[times.len() / 2];
    ensure!(half <= ANSWER, "drawn after {half} ms");
    browser.stop().await
}

#[tokio::test]
async fn a_thousand_workloads_are_scrolled_and_one_is_opened_on_a_phone() -> anyhow::Result<()> {
    let crowd = Crowd::start(COUNT).await?;
    let mut browser = Browser::start().await?;
    filled(&mut browser, &crowd, PHONE).await?;
    browser.value::<()>("pace.start()").await?;
    for _ in 0..20 {
        browser.turn_wheel(800).await?;
    }
    let pace: Pace = browser.value("pace.stop()").await?;
    eprintln!("scrolled: {pace:?}");
    // Each screen has rows that were never drawn before.
    ensure!(pace.most <= 2.5 * FRAME, "{pace:?}");
    browser.shows("scrollY > 5000").await?;
    browser.value::<()>("void scrollTo(0, 0)").await?;

    browser.press(Key::Down).await?;
    browser.press(Key::Enter).await?;
    browser
        .shows("document.querySelectorAll('#wakes .bar').length === 10")
        .await?;
    let wider: Vec<String> = browser
        .value(&format!("looks.wider({})", PHONE.width))
        .await?;
    ensure!(wider.is_empty(), "{wider:#?}");
    let pace = pace_under_the_open(&mut browser).await?;
    is_even(&pace)?;
    browser.stop().await
}

/// What is open is asked for anew every two seconds.
async fn pace_under_the_open(browser: &mut Browser) -> anyhow::Result<Pace> {
    let asked = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/workloads/')).length";
    let so_far: u32 = browser.value(asked).await?;
    browser.value::<()>("pace.start()").await?;
    browser.shows(&format!("{asked} >= {}", so_far + 3)).await?;
    let pace: Pace = browser.value("pace.stop()").await?;
    eprintln!("open: {pace:?}");
    Ok(pace)
}
