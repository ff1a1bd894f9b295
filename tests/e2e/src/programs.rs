//! Every test program is run by a script, and every file of one is part of it: what nobody names would
//! never be run, and nobody would know.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::book;

/// Programs that need no cluster: cargo runs them with the unit tests.
const WITHOUT_A_CLUSTER: [&str; 1] = ["book"];
/// What begins a line of a script that runs some (scripts/common.sh).
const RUN: &str = "run_tests ";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn listed(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?;
    Ok(entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?)
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn is_source(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// The programs of a folder as cargo finds them: files, and folders with a `main.rs`.
fn programs(folder: &Path) -> anyhow::Result<BTreeSet<String>> {
    let all = listed(folder)?.into_iter();
    let programs = all.filter(|path| is_source(path) || path.join("main.rs").is_file());
    Ok(programs.map(|path| stem(&path)).collect())
}

/// Programs that a script's text runs.
fn run_by(script: &str) -> impl Iterator<Item = &str> {
    let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let lines = script.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.starts_with('#'));
    let runs = lines.filter_map(|line| Some(line.split_once(RUN)?.1));
    runs.flat_map(move |words| words.split_whitespace().take_while(is_name))
}

#[test]
fn every_test_program_is_run_by_a_script() -> anyhow::Result<()> {
    let script = "a\n  # run_tests no\n  there=$(run_tests one_a two -- --list) || return";
    assert_eq!(run_by(script).collect::<Vec<_>>(), ["one_a", "two"]);
    let mut run = BTreeSet::from(WITHOUT_A_CLUSTER.map(str::to_owned));
    for path in listed(&book::root().join("scripts"))? {
        let text = fs::read_to_string(&path)?;
        run.extend(run_by(&text).map(str::to_owned));
    }
    assert_eq!(run, programs(&folder())?);
    Ok(())
}

/// Cargo is asked for them by name among those of the whole workspace, and would run both.
#[test]
fn no_other_package_has_a_test_program_of_the_same_name() -> anyhow::Result<()> {
    let (ours, root) = (programs(&folder())?, book::root());
    let mut others = BTreeSet::new();
    for packages in [root.join("crates"), root.join("tests"), root] {
        for package in listed(&packages)? {
            let tests = package.join("tests");
            if tests.is_dir() && !package.ends_with("e2e") {
                others.extend(programs(&tests)?);
            }
        }
    }
    assert!(others.contains("it"), "{others:?}");
    let both: Vec<&String> = ours.intersection(&others).collect();
    assert!(both.is_empty(), "{both:?}");
    Ok(())
}

#[test]
fn every_file_of_a_test_program_is_a_module_of_it() -> anyhow::Result<()> {
    for program in listed(&folder())?.iter().filter(|path| path.is_dir()) {
        let main = fs::read_to_string(program.join("main.rs"))?;
        let modules = main
            .lines()
            .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        let mut modules: BTreeSet<String> = modules.map(str::to_owned).collect();
        modules.insert("main".to_owned());
        let files = listed(program)?;
        let files: BTreeSet<String> = files.iter().map(|path| stem(path)).collect();
        assert_eq!(files, modules, "{}", program.display());
    }
    Ok(())
}
