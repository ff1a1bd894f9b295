//! The status page of the cluster: as somebody reads it who has a keyboard, on any screen, and while a
//! workload wakes. With `E2E_PICTURES` its pictures go into that folder (make status-page).

use std::{collections::BTreeMap, env, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail, ensure};
use kube::{Api, ResourceExt as _, api::ListParams};
use lull_contract::{annotations::SCALE, scaled_workload::ScaledWorkload};
use lull_e2e::{
    Agent, App, Cluster, Namespace, Workload,
    agent::Run,
    all_answered,
    browser::{Browser, DESK, Key, PHONE, Screen},
    cluster::call,
    eventually, in_namespace, namespace,
    page_proxy::PageProxy,
};
use sample_app::wire::RunSpec;

/// Longest wait for what must be shown: a status is written at most 2 s late.
const FOLLOW: Duration = Duration::from_secs(30);
/// Longest wait for what other tests have left to be gone.
const SETTLED: Duration = Duration::from_secs(120);
/// The scene's workloads, and the state in which each is.
const STATES: [(&str, &str); 3] = [
    ("shop", "Asleep"),
    ("search", "Awake"),
    ("reports", "Planned"),
];
/// A screen that is filled by less than there is of any workload.
const LOW: Screen = Screen {
    height: 390,
    ..PHONE
};
/// Names of phases of a wake that a page must have.
const PHASES: [&str; 2] = ["running", "first-byte"];

/// The page, and workloads in three states.
struct Scene<'a> {
    browser: Browser,
    proxy: PageProxy,
    agent: &'a Agent,
    /// Sleeps until it is called.
    shop: Workload,
    /// Under load.
    search: Workload,
    loads: Vec<Run<'a>>,
}

/// JavaScript for a cell of the workload's row: its text, or nothing where there is no such row.
fn cell(workload: &Workload, column: &str) -> String {
    let key = key(workload);
    format!("document.querySelector('#list a[href=\"#{key}\"] .{column}')?.textContent")
}

fn key(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

fn link(workload: &Workload) -> String {
    format!("#{}", key(workload))
}

#[tokio::test]
async fn the_page_is_read_by_keyboard_on_any_screen_while_a_workload_wakes() -> anyhow::Result<()> {
    if env::var_os("E2E_KEEP").is_none() {
        // Rows that go while the keyboard is on them would take it with them.
        namespace::all_gone(&Cluster::connect().await?, SETTLED).await?;
    }
    in_namespace("page", async |namespace| {
        let agent = Agent::deploy(namespace).await?;
        let mut scene = Scene::set(namespace, &agent).await?;
        scene.rows_are_the_cluster_s().await?;
        scene.screens("status").await?;
        scene.every_row_is_reached_by_tab_and_arrows().await?;
        scene.rows_are_filtered_by_keys().await?;
        scene.a_wake_is_seen_without_loading_anew().await?;
        scene.its_waterfall_is_opened_and_left_by_keys().await?;
        scene.open(&link(&scene.shop)).await?;
        scene.screens("status-workload").await?;
        scene.nothing_came_from_elsewhere()?;
        for load in scene.loads {
            all_answered(&load.stop().await?)?;
        }
        scene.browser.stop().await?;
        scene.proxy.stop().await
    })
    .await
}

/// A load that is under way to the test's end.
async fn load<'a>(agent: &'a Agent, workload: &Workload) -> anyhow::Result<Run<'a>> {
    let spec = RunSpec {
        url: workload.url("/cart?sleep_ms=200"),
        connections: 20,
        seconds: Some(240.0),
        ..RunSpec::default()
    };
    agent.start(&spec).await
}

/// Every workload's state, by its key.
async fn states(cluster: &Cluster) -> anyhow::Result<BTreeMap<String, String>> {
    let workloads: Api<ScaledWorkload> = Api::all(cluster.client.clone());
    let none_left_out = ListParams::default();
    let all = call("list ScaledWorkloads", workloads.list(&none_left_out)).await?;
    let entry = |workload: ScaledWorkload| {
        let namespace = workload.namespace().unwrap_or_default();
        let state = workload.status.as_ref().map(|status| status.state);
        let key = format!("{namespace}/{}", workload.name_any());
        (key, state.unwrap_or_default().to_string())
    };
    Ok(all.items.into_iter().map(entry).collect())
}

// === impl Scene ===

impl<'a> Scene<'a> {
    async fn set(namespace: &Namespace, agent: &'a Agent) -> anyhow::Result<Self> {
        let (search, reports) = (App::new("search"), App::plain("reports"));
        let reports = reports.annotate(SCALE, "dry-run");
        let shop = App::new("shop");
        let (shop, search, _) = tokio::try_join!(
            shop.deploy_asleep(namespace),
            search.deploy_awake(namespace),
            reports.deploy(namespace)
        )?;
        let loads = vec![load(agent, &search).await?];
        let proxy = PageProxy::start(&namespace.cluster).await?;
        let mut browser = Browser::start().await?;
        browser.look_with(DESK).await?;
        browser.open(&proxy.url()).await?;
        browser
            .shows("document.getElementById('link').dataset.state === 'live'")
            .await?;
        // Gone where the page is loaded anew.
        browser.value::<bool>("window.isTheFirst = true").await?;
        Ok(Self {
            browser,
            proxy,
            agent,
            shop,
            search,
            loads,
        })
    }

    async fn rows_are_the_cluster_s(&mut self) -> anyhow::Result<()> {
        let rows = "Object.fromEntries([...document.querySelectorAll('#list a')].map((row) => \
                    [row.hash.slice(1), row.querySelector('.state').textContent]))";
        let (browser, cluster) = (&mut self.browser, &self.shop.cluster);
        let namespace = &self.shop.namespace;
        eventually("every workload to be listed", FOLLOW, async || {
            let shown: BTreeMap<String, String> = browser.value(rows).await?;
            let there = states(cluster).await?;
            ensure!(shown == there, "listed {shown:?}, there are {there:?}");
            for (name, state) in STATES {
                let is = there.get(&format!("{namespace}/{name}"));
                ensure!(is.is_some_and(|is| is == state), "{name} is {is:?}");
            }
            Ok(())
        })
        .await?;
        let in_flight = format!("Number({}) > 0", cell(&self.search, "flight"));
        browser.shows(&in_flight).await
    }

    /// What is shown now is whole and can be read on a desk and on a phone, by day and by night.
    async fn screens(&mut self, what: &str) -> anyhow::Result<()> {
        for (device, screen) in [("desk", DESK), ("phone", PHONE)] {
            for screen in [screen, screen.dark()] {
                self.screen(screen)
                    .await
                    .with_context(|| format!("{what}: {screen:?}"))?;
                let scheme = if screen.is_dark { "dark" } else { "light" };
                self.picture(&format!("{what}-{device}-{scheme}.png"))
                    .await?;
            }
        }
        self.browser.look_with(DESK).await
    }

    async fn screen(&mut self, screen: Screen) -> anyhow::Result<()> {
        #[derive(serde::Deserialize)]
        struct Faint {
            seen: u32,
            found: Vec<String>,
        }
        self.browser.look_with(screen).await?;
        let faint: Faint = self.browser.value("looks.faint()").await?;
        ensure!(faint.seen > 10, "only {} texts", faint.seen);
        ensure!(faint.found.is_empty(), "hard to read: {:#?}", faint.found);
        let wider = format!("looks.wider({})", screen.width);
        let wider: Vec<String> = self.browser.value(&wider).await?;
        ensure!(wider.is_empty(), "too wide: {wider:#?}");
        Ok(())
    }

    async fn picture(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(folder) = env::var_os("E2E_PICTURES").map(PathBuf::from) else {
            return Ok(());
        };
        self.browser.picture(&folder.join(name)).await
    }

    async fn links(&mut self) -> anyhow::Result<Vec<String>> {
        let links = "[...document.querySelectorAll('#list a')].map((row) => row.hash)";
        self.browser.value(links).await
    }

    async fn every_row_is_reached_by_tab_and_arrows(&mut self) -> anyhow::Result<()> {
        let rows = self.links().await?;
        let before = ["#list", "#top", "@text", "@state"].map(str::to_owned);
        for place in before.iter().chain(&rows) {
            self.goes_to(Key::Tab, place).await?;
        }
        for place in rows.iter().rev().skip(1) {
            self.goes_to(Key::Up, place).await?;
        }
        for place in rows.iter().skip(1) {
            self.goes_to(Key::Down, place).await?;
        }
        Ok(())
    }

    /// Presses a key that leads to `place`.
    async fn goes_to(&mut self, key: Key, place: &str) -> anyhow::Result<()> {
        self.browser.press(key).await?;
        self.browser.is_at(place).await
    }

    async fn rows_are_filtered_by_keys(&mut self) -> anyhow::Result<()> {
        let (shop, search) = (link(&self.shop), link(&self.search));
        let text = key(&self.shop);
        self.browser.type_in("/").await?;
        self.browser.is_at("@text").await?;
        self.browser.type_in(&text).await?;
        let left = self.links().await?;
        ensure!(left == [shop.as_str()], "{text} leaves {left:?}");
        for _ in text.chars() {
            self.browser.press(Key::Backspace).await?;
        }
        self.goes_to(Key::Tab, "@state").await?;
        self.choose("Asleep", Key::Down).await?;
        let left = self.links().await?;
        let is_right = left.contains(&shop) && !left.contains(&search);
        ensure!(is_right, "asleep are {left:?}");
        self.choose("", Key::Up).await?;
        let rows = self.links().await?;
        ensure!(rows.contains(&search), "still filtered: {rows:?}");
        self.goes_to(Key::Tab, &rows[0]).await
    }

    /// Goes through the states to choose from until it is at `state`.
    async fn choose(&mut self, state: &str, key: Key) -> anyhow::Result<()> {
        const MOST: usize = 20;
        for _ in 0..MOST {
            let chosen: String = self
                .browser
                .value("document.getElementById('state').value")
                .await?;
            if chosen == state {
                return Ok(());
            }
            self.browser.press(key).await?;
        }
        bail!("no state {state:?} to choose")
    }

    async fn a_wake_is_seen_without_loading_anew(&mut self) -> anyhow::Result<()> {
        self.agent.get(&self.shop.url("/cart")).await?;
        let pods = cell(&self.shop, "pods");
        let state = cell(&self.shop, "state");
        let is_awake = format!("{pods}.startsWith('1/') && {state} !== 'Asleep'");
        self.browser.shows(&is_awake).await?;
        let is_the_first: bool = self.browser.value("window.isTheFirst === true").await?;
        ensure!(is_the_first, "the page was loaded anew");
        self.loads.push(load(self.agent, &self.shop).await?);
        Ok(())
    }

    async fn its_waterfall_is_opened_and_left_by_keys(&mut self) -> anyhow::Result<()> {
        let row = link(&self.shop);
        self.open(&row).await?;
        for phase in PHASES {
            let bar =
                format!("document.querySelector('#wakes .bar [title^=\"{phase} \"]') !== null");
            self.browser.shows(&bar).await?;
        }
        let told = "document.querySelector('#wakes').textContent.includes('/cart')";
        self.browser.shows(told).await?;
        // What is open is longer than the screen of a phone that lies on its side.
        self.browser.look_with(LOW).await?;
        self.goes_to(Key::Down, "@detail").await?;
        self.browser.shows("scrollY > 0").await?;
        self.browser.look_with(DESK).await?;
        self.goes_to(Key::Tab, "@back").await?;
        self.goes_to(Key::Enter, &row).await?;
        self.open(&row).await?;
        self.goes_to(Key::Escape, &row).await
    }

    /// Goes from one row to another and opens it.
    async fn open(&mut self, row: &str) -> anyhow::Result<()> {
        let rows = self.links().await?;
        let at = self.browser.focus().await?.at;
        let places = [at.as_str(), row].map(|place| rows.iter().position(|one| one == place));
        let [Some(from), Some(to)] = places else {
            bail!("{at} and {row} are not both among {rows:?}");
        };
        let key = if from < to { Key::Down } else { Key::Up };
        for _ in 0..from.abs_diff(to) {
            self.browser.press(key).await?;
        }
        self.browser.is_at(row).await?;
        self.goes_to(Key::Enter, "@detail").await?;
        self.browser
            .shows("document.getElementById('source').textContent === 'Live.'")
            .await?;
        self.browser
            .shows("document.querySelector('polyline.load') !== null")
            .await
    }

    fn nothing_came_from_elsewhere(&self) -> anyhow::Result<()> {
        let url = self.proxy.url();
        let mut requests = self.browser.requests();
        requests.retain(|request| !request.starts_with(&url));
        ensure!(requests.is_empty(), "asked for {requests:?}");
        let policy = self.browser.header("content-security-policy");
        let policy = policy.context("no Content-Security-Policy")?;
        ensure!(policy.contains("default-src 'none'"), "{policy}");
        let complaints = self.browser.complaints();
        ensure!(complaints.is_empty(), "the console has {complaints:#?}");
        Ok(())
    }
}
