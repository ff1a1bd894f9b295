//! Counts and lists as people read them.

/// A count with its noun: `1 pod`, `2 pods`.
#[must_use]
pub fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The first `most` of `names`, and how many more there are: `a, b and 3 more`.
#[must_use]
pub fn some_of(names: &[String], most: usize) -> String {
    let named: Vec<&str> = names.iter().take(most).map(String::as_str).collect();
    let named = named.join(", ");
    match names.len().saturating_sub(most) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_that_are_left_some_are_named_and_all_are_counted() {
        let left: Vec<String> = (0..12).map(|number| format!("web/shop-{number}")).collect();
        assert_eq!(some_of(&left[..2], 10), "web/shop-0, web/shop-1");
        let many = some_of(&left, 10);
        assert!(many.ends_with("web/shop-9 and 2 more"), "{many}");
    }
}
