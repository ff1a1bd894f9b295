//! Parts of an injected template that both putting in and taking out must know.

use crate::{Included, SmallPorts};

/// Where [`Record::keep_empty`](crate::Record::keep_empty) notes an empty lifecycle.
#[must_use]
pub fn lifecycle_place(container: &str) -> String {
    format!("lifecycle of {container}")
}

/// Istio's list with our ports behind what was `before`.
#[must_use]
pub fn excluded_ports(before: Option<&str>, small: SmallPorts) -> String {
    let mut items: Vec<String> = Vec::new();
    items.extend(before.filter(|b| !b.trim().is_empty()).map(str::to_owned));
    items.extend(added_ports(before, small));
    items.join(",")
}

/// Those of our ports that are not in `before`.
#[must_use]
pub fn added_ports(before: Option<&str>, small: SmallPorts) -> Vec<String> {
    let there: Vec<&str> = before
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .collect();
    small
        .all()
        .iter()
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
