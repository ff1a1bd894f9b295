//! The documentation holds together, and names nothing that isn't there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use kube::Resource as _;
use lull_contract::{annotations, names, scaled_workload::ScaledWorkload};
use lull_e2e::book::{self, Block, Page, Scene};
use serde_json::Value;

/// Page that lists all others.
const SUMMARY: &str = "SUMMARY.md";
/// Page whose commands have a test of their own (`tests/e2e/tests/together/quickstart.rs`).
const STORY: &str = "quickstart.md";
/// Page that `make tour` writes while it types the commands.
const WRITTEN_BY_A_RUN: &str = "tour.md";

/// The pages and the README, which leads to them.
fn everything() -> anyhow::Result<Vec<Page>> {
    let mut pages = book::pages()?;
    pages.push(Page::read(book::root().join("README.md"))?);
    Ok(pages)
}

/// What `wrong` finds in each page, with the page's name before it.
fn faults(wrong: impl Fn(&Page) -> anyhow::Result<Vec<String>>) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for page in everything()? {
        let name = page.path.file_name().unwrap_or_default().to_string_lossy();
        let found = wrong(&page).with_context(|| name.clone().into_owned())?;
        faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    Ok(faults)
}

/// Code of the page: what stands in backticks, and the lines of its blocks without comments.
fn commands(page: &Page) -> Vec<String> {
    let mut commands = page.code();
    for block in page.blocks() {
        let lines = block.text.lines();
        let lines = lines.map(|line| line.split(" #").next().unwrap_or_default().trim_start());
        commands.extend(
            lines
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned),
        );
    }
    commands
}

fn is_elsewhere(link: &str) -> bool {
    ["https://", "http://", "mailto:"]
        .iter()
        .any(|scheme| link.starts_with(scheme))
}

/// Where `link` on `page` leads, and the heading there.
fn target(page: &Page, link: &str) -> (PathBuf, Option<String>) {
    let (file, heading) = match link.split_once('#') {
        Some((file, heading)) => (file, Some(heading.to_owned())),
        None => (link, None),
    };
    let folder = page.path.parent().unwrap_or_else(|| Path::new(""));
    let path = match file {
        "" => page.path.clone(),
        file => folder.join(file),
    };
    (path, heading)
}

#[test]
fn every_page_is_in_the_summary_once() -> anyhow::Result<()> {
    let summary = Page::read(book::folder().join(SUMMARY))?;
    let mut listed: Vec<PathBuf> = Vec::new();
    for link in summary.links() {
        let (path, _) = target(&summary, &link);
        let path = path.canonicalize();
        listed.push(path.with_context(|| format!("{SUMMARY} lists {link}, which isn't there"))?);
    }
    listed.sort();
    let mut there = Vec::new();
    for page in book::pages()? {
        if !page.path.ends_with(SUMMARY) {
            there.push(page.path.canonicalize()?);
        }
    }
    there.sort();
    assert_eq!(listed, there);
    Ok(())
}

#[test]
fn every_link_leads_to_a_file_of_the_book_and_to_a_heading_in_it() -> anyhow::Result<()> {
    let (book, root) = (book::folder().canonicalize()?, book::root().canonicalize()?);
    let faults = faults(|page| {
        let is_in_book = page.path.canonicalize()?.starts_with(&book);
        let within = if is_in_book { &book } else { &root };
        let mut wrong = Vec::new();
        for link in page.links().iter().filter(|link| !is_elsewhere(link)) {
            let (path, heading) = target(page, link);
            match path.canonicalize() {
                Err(_) => wrong.push(format!("{link} isn't there")),
                Ok(path) if !path.starts_with(within) => wrong.push(format!("{link} is outside")),
                Ok(path) => {
                    let Some(heading) = heading else { continue };
                    if !Page::read(path)?.anchors().contains(&heading) {
                        wrong.push(format!("{link}: no such heading"));
                    }
                }
            }
        }
        Ok(wrong)
    })?;
    assert_eq!(faults, [""; 0]);
    Ok(())
}

/// Whether `key` is an annotation, a label or the version of Lull's API.
fn is_known(key: &str) -> bool {
    let others = [
        names::POD_LABEL,
        names::HELD_LABEL,
        names::WORKLOAD_LABEL,
        names::INJECTED_ANNOTATION,
    ];
    others.contains(&key) || key == ScaledWorkload::api_version(&()) || is_annotation(key)
}

/// Whether a workload may carry the annotation `key`: Lull itself says so.
fn is_annotation(key: &str) -> bool {
    let value = "a value that is wrong for most";
    let annotations = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let faults = annotations::parse(&annotations).err().unwrap_or_default();
    let mut faults = faults.iter();
    !faults.any(|fault| fault.allowed.starts_with("is not a key"))
}

/// Keys with our prefix in `text`; not where it names several with a `*`.
fn keys(text: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (at, _) in text.match_indices(annotations::PREFIX) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || ".-/".contains(c)) {
            continue;
        }
        let rest = &text[at + annotations::PREFIX.len()..];
        let is_key = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let key = rest.split(|c| !is_key(c)).next().unwrap_or_default();
        let is_pattern = rest[key.len()..].starts_with('*');
        // kubectl takes an annotation away by its key with a minus behind it.
        let key = key.trim_end_matches('-');
        if !key.is_empty() && !is_pattern {
            keys.insert(format!("{}{key}", annotations::PREFIX));
        }
    }
    keys
}

#[test]
fn every_annotation_that_a_page_names_is_one() -> anyhow::Result<()> {
    assert!(is_known("lull.dev/window") && is_known("lull.dev/pod"));
    assert!(!is_known("lull.dev/windw"));
    let faults = faults(|page| {
        let unknown = keys(&page.text).into_iter().filter(|key| !is_known(key));
        Ok(unknown.collect())
    })?;
    assert_eq!(faults, [""; 0]);
    Ok(())
}

fn chart_values() -> anyhow::Result<Value> {
    let text = fs::read_to_string(book::root().join("charts/lull/values.yaml"))?;
    serde_saphyr::from_str(&text).context("read values.yaml")
}

/// Whether `path` is a value of the chart, or below one that takes any.
fn is_value(values: &Value, path: &str) -> bool {
    if let Some(key) = path.strip_prefix("settings.") {
        return is_annotation(&format!("{}{key}", annotations::PREFIX));
    }
    let mut value = values;
    for name in path.split('.') {
        let name = name.split('[').next().unwrap_or_default();
        let takes_any = match value {
            Value::Object(parts) => parts.is_empty(),
            Value::Array(_) => true,
            _ => false,
        };
        match value.get(name) {
            Some(part) => value = part,
            None => return takes_any,
        }
    }
    true
}

/// Paths of values that `command` sets, or that it is: a dotted name that begins as one of them.
fn values_named(values: &Value, command: &str) -> Vec<String> {
    let mut words = command
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'']));
    let mut named = Vec::new();
    let whole = command.split([':', '=', ' ']).next().unwrap_or_default();
    if let Some((first, _)) = whole.split_once('.')
        && values.get(first).is_some()
    {
        named.push(whole.to_owned());
    }
    while let Some(word) = words.next() {
        if word == "--set" || word == "--set-string" {
            let pairs = words.next().unwrap_or_default().split(',');
            named.extend(pairs.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned())));
        }
    }
    named
}

#[test]
fn every_chart_value_that_a_page_names_exists() -> anyhow::Result<()> {
    let values = chart_values()?;
    for (path, is_one) in [
        ("guard.enabled", true),
        ("image.digests.webhook", true),
        ("targets[0].resource", true),
        ("settings.window", true),
        ("settings.windw", false),
        ("autoscaler.replica", false),
        ("autoscaler.replicas.most", false),
    ] {
        assert_eq!(is_value(&values, path), is_one, "{path}");
    }
    let faults = faults(|page| {
        let commands = commands(page);
        let named = commands
            .iter()
            .flat_map(|command| values_named(&values, command));
        Ok(named.filter(|path| !is_value(&values, path)).collect())
    })?;
    assert_eq!(faults, [""; 0]);
    Ok(())
}

fn make_targets() -> anyhow::Result<BTreeSet<String>> {
    let text = fs::read_to_string(book::root().join("Makefile"))?;
    let heads = text.lines().filter_map(|line| line.split_once(':'));
    let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_name = |name: &str| name.chars().all(of_name);
    Ok(heads
        .map(|(name, _)| name.to_owned())
        .filter(|name| is_name(name))
        .collect())
}

/// The target that `command` makes, where it makes one.
fn made(command: &str) -> Option<&str> {
    let mut words = command
        .split_whitespace()
        .skip_while(|word| *word != "make")
        .skip(1);
    words.find(|word| !word.contains('='))
}

#[test]
fn every_make_target_that_a_page_names_exists() -> anyhow::Result<()> {
    let targets = make_targets()?;
    assert!(targets.contains("e2e-mesh") && !targets.contains("e3e"));
    let faults = faults(|page| {
        let commands = commands(page);
        let named = commands.iter().filter_map(|command| made(command));
        let unknown = named.filter(|target| !targets.contains(*target));
        Ok(unknown.map(|target| format!("make {target}")).collect())
    })?;
    assert_eq!(faults, [""; 0]);
    Ok(())
}

/// Whether a source file is there that a page names: by its path, or as one of these tests.
fn is_source(name: &str) -> bool {
    let folders = ["", "tests/e2e/tests"].map(|folder| book::root().join(folder));
    folders.iter().any(|folder| folder.join(name).is_file())
}

#[test]
fn every_source_file_that_a_page_names_exists() -> anyhow::Result<()> {
    let faults = faults(|page| {
        let code = page.code().into_iter();
        let sources = code.filter(|code| code.ends_with(".rs") && !code.contains(' '));
        let missing = sources.filter(|name| !is_source(name));
        Ok(missing.collect())
    })?;
    assert_eq!(faults, [""; 0]);
    Ok(())
}

#[test]
fn every_block_of_yaml_can_be_read() -> anyhow::Result<()> {
    let faults = faults(|page| {
        let blocks = page.blocks().into_iter();
        let yaml = blocks.filter(|block| block.info.starts_with("yaml"));
        Ok(yaml
            .filter_map(|block| {
                let read: Result<Vec<Value>, _> = serde_saphyr::from_multiple(&block.text);
                let error = read.err()?;
                Some(format!("line {}: {error}", block.line))
            })
            .collect())
    })?;
    assert_eq!(faults, [""; 0]);
    Ok(())
}

/// What is wrong with how a block of commands says whether it is run.
fn left_open(page: &str, block: &Block) -> Option<&'static str> {
    let says_run = block.info.contains("run");
    let reason = block.not_run.as_deref();
    match (block.scene(), reason) {
        (Some(_), Some(_)) => Some("is run, and says why it is not"),
        (Some(Scene::Own), None) if page != STORY => Some("is run by no test"),
        (None, _) if says_run => Some("is run nowhere: no such scene"),
        (None, None) if block.has_commands() => Some("is not run, and doesn't say why"),
        (None, Some("")) => Some("gives no reason"),
        _ => None,
    }
}

#[test]
fn every_block_of_commands_is_run_by_a_test_or_says_why_not() -> anyhow::Result<()> {
    let faults = faults(|page| {
        let name = page.path.file_name().unwrap_or_default().to_string_lossy();
        if name == WRITTEN_BY_A_RUN {
            return Ok(Vec::new());
        }
        let blocks = page.blocks().into_iter();
        Ok(blocks
            .filter_map(|block| {
                let fault = left_open(&name, &block)?;
                Some(format!("line {}: {fault}", block.line))
            })
            .collect())
    })?;
    assert_eq!(faults, [""; 0]);
    Ok(())
}

/// The findings' page is compared with the code by a test of the autoscaler.
#[test]
fn every_finding_is_in_the_pages_on_trouble() -> anyhow::Result<()> {
    let findings = Page::read(book::folder().join("enrolment.md"))?;
    let trouble = Page::read(book::folder().join("troubleshooting.md"))?;
    let (findings, _) = findings
        .text
        .split_once("## NetworkPolicies")
        .context("no section on NetworkPolicies behind the findings")?;
    let rows = findings.lines().filter_map(|line| line.strip_prefix("| `"));
    let reasons: BTreeSet<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(reasons.len() > 20, "{reasons:?}");
    let told: BTreeSet<String> = trouble.code().into_iter().collect();
    let missing: Vec<_> = reasons
        .into_iter()
        .filter(|reason| !told.contains(*reason))
        .collect();
    assert_eq!(missing, [""; 0]);
    Ok(())
}
