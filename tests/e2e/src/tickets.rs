//! docs/tickets.md names tests of this tree.

use std::path::Path;

/// Every `path::test` in the table's last column, row by row.
fn rows(page: &str) -> Vec<Vec<(&str, &str)>> {
    let lines = page.lines().filter(|line| line.starts_with("| "));
    // The first is the head; the line below it has no space.
    let cells = lines.skip(1).filter_map(|line| line.rsplit('|').nth(1));
    let tests = cells.map(|cell| {
        let named = cell.split('`').filter_map(|word| word.split_once("::"));
        named.collect()
    });
    tests.collect()
}

#[test]
fn every_ticket_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path));
    let page = read("docs/tickets.md").unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 10, "{rows:?}");
    for tests in rows {
        assert!(!tests.is_empty(), "a row names no test");
        for (path, name) in tests {
            let source = read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(
                source.contains(&format!("fn {name}(")),
                "{path} has no {name}"
            );
        }
    }
}
