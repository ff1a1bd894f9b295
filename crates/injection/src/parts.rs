//! Parts of an injected template that both putting in and taking out must know.

use crate::Included;

/// Where [`Record::keep_empty`](crate::Record::keep_empty) notes an empty lifecycle.
#[must_use]
pub fn lifecycle_place(container: &str) -> String {
    format!("lifecycle of {container}")
}

/// Istio's list with `ours` ([`Record::excluded_ports`](crate::Record::excluded_ports)) behind what
/// was `before`.
#[must_use]
pub fn excluded_ports(before: Option<&str>, ours: &[u16]) -> String {
    let mut items: Vec<String> = Vec::new();
    items.extend(before.filter(|b| !b.trim().is_empty()).map(str::to_owned));
    items.extend(added_ports(before, ours));
    items.join(",")
}

/// Those of `ours` that are not in `before`.
#[must_use]
pub fn added_ports(before: Option<&str>, ours: &[u16]) -> Vec<String> {
    let there: Vec<&str> = before
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    ours.iter()
        .map(u16::to_string)
        .filter(|port| !there.contains(&port.as_str()))
        .collect()
}

/// Istio's list with our ports behind the user's.
#[must_use]
pub fn included_ports(included: &Included) -> String {
    let added = included.added.iter().map(u16::to_string);
    let all: Vec<String> = [included.before.clone()].into_iter().chain(added).collect();
    all.join(",")
}
