//! docs/tickets.md names tests of this tree: real ones, that run, and for each ticket one that is called
//! by it.

use std::{collections::BTreeSet, fs};

use crate::book;

/// Tickets of other systems that can concern Lull, of the switch between proxy and pods: each line of
/// what was found, with what its test's name begins with.
const TICKETS: [(&str, &[u32]); 11] = [
    ("kubeelasti", &[350, 286]),
    ("kubeelasti", &[268, 269, 280, 293]),
    ("kubeelasti", &[175, 296]),
    ("kubeelasti", &[285]),
    ("kubeelasti", &[353]),
    ("openfaas", &[1721]),
    ("fission", &[3183]),
    ("knative", &[9888]),
    ("knative", &[3987]),
    ("knative", &[13575, 12006]),
    ("istio", &[14101]),
];

/// A row of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row<'a> {
    /// Numbers of its tickets.
    tickets: BTreeSet<u32>,
    /// Every `path::test` in its last column.
    tests: Vec<(&'a str, &'a str)>,
}

fn rows(page: &str) -> Vec<Row<'_>> {
    let lines = page.lines().filter(|line| line.starts_with("| "));
    // The first is the head; the line below it has no space.
    let rows = lines.skip(1).filter_map(|line| {
        let cells: Vec<&str> = line.split('|').collect();
        let [_, tickets, .., tests, _] = &cells[..] else {
            return None;
        };
        let numbers = tickets.split('#').skip(1).filter_map(|text| {
            let end = text.find(|c: char| !c.is_ascii_digit());
            text[..end.unwrap_or(text.len())].parse().ok()
        });
        let named = tests.split('`').filter_map(|word| word.split_once("::"));
        Some(Row {
            tickets: numbers.collect(),
            tests: named.collect(),
        })
    });
    rows.collect()
}

/// Names of the functions in `source` that are run as tests.
fn tests_in(source: &str) -> BTreeSet<&str> {
    let mut lines = source.lines().map(str::trim_start);
    let mut found = BTreeSet::new();
    while let Some(line) = lines.next() {
        if !line.starts_with("#[test]") && !line.starts_with("#[tokio::test") {
            continue;
        }
        let mut is_run = true;
        // Other attributes and comments may stand between.
        let function = lines.find(|line| {
            is_run &= !line.starts_with("#[ignore");
            !line.starts_with("#[") && !line.starts_with("//")
        });
        found.extend(function.filter(|_| is_run).and_then(name_of));
    }
    found
}

/// The name in a function's first line.
fn name_of(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("fn ")?;
    Some(rest.split_once('(')?.0)
}

#[test]
fn only_functions_that_are_run_are_tests() {
    let source = "
        #[test]
        fn plain() {}
        /// fn commented(
        fn helper() {}
        #[tokio::test(start_paused = true)]
        #[expect(clippy::unwrap_used, reason = \"x\")]
        // Why.
        async fn paused() -> anyhow::Result<()> {
        #[test]
        #[ignore = \"slow\"]
        fn left_out() {}
        fn main() {}
    ";
    assert_eq!(tests_in(source), BTreeSet::from(["paused", "plain"]));
}

#[test]
fn a_row_has_its_tickets_and_its_tests() {
    let page = "| ticket | what | tests |\n|---|---|---|\n\
                | a/b#12, #7 | it broke (`x`) | `a.rs::one`, `b/c.rs::two` |\n";
    let expected = Row {
        tickets: BTreeSet::from([7, 12]),
        tests: vec![("a.rs", "one"), ("b/c.rs", "two")],
    };
    assert_eq!(rows(page), [expected]);
}

#[test]
fn every_ticket_has_a_row_with_tests_that_run_and_one_of_them_is_named_by_it() {
    let page = fs::read_to_string(book::folder().join("tickets.md")).unwrap();
    let rows = rows(&page);
    let documented: BTreeSet<BTreeSet<u32>> = rows.iter().map(|row| row.tickets.clone()).collect();
    let known = TICKETS.map(|(_, numbers)| BTreeSet::from_iter(numbers.iter().copied()));
    assert_eq!(documented, BTreeSet::from(known));
    for Row { tickets, tests } in rows {
        for (path, name) in &tests {
            let source = fs::read_to_string(book::root().join(path));
            let source = source.unwrap_or_else(|error| panic!("{path}: {error}"));
            let is_there = tests_in(&source).contains(name);
            assert!(is_there, "{path} has no test {name} that runs");
        }
        let of = TICKETS.iter().filter(|(_, numbers)| {
            let mut numbers = numbers.iter();
            numbers.all(|number| tickets.contains(number))
        });
        let mut beginnings = of.flat_map(|(system, numbers)| {
            let numbers = numbers.iter();
            numbers.map(move |number| format!("{system}_{number}_"))
        });
        let is_named = |begins: String| tests.iter().any(|(_, name)| name.starts_with(&begins));
        assert!(beginnings.any(is_named), "none is named by {tickets:?}");
    }
}
