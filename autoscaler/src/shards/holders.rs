//! Which replica holds which shard, for who has something to ask of a workload's leader.

use std::collections::BTreeSet;

use lull_contract::Shards;

/// Who held which shard's Lease when the Leases were looked at last. A holder may not lead yet, or not
/// any more: who is asked says whether it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders(Vec<Holder>);

/// A replica with a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The division that the shard is of.
    pub shards: Shards,
    /// Its number.
    pub shard: u16,
    /// Name of the replica.
    pub replica: String,
}

// === impl Holders ===

impl FromIterator<Holder> for Holders {
    fn from_iter<I: IntoIterator<Item = Holder>>(holders: I) -> Self {
        Self(holders.into_iter().collect())
    }
}

impl Holders {
    /// Names of all of them.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        self.names_of(|_| true)
    }

    /// Names of those that hold the shard of a workload: one, but while the number of shards is being
    /// changed.
    #[must_use]
    pub fn of(&self, namespace: &str, name: &str) -> BTreeSet<&str> {
        self.names_of(|holder| holder.shards.of(namespace, name) == holder.shard)
    }

    fn names_of(&self, is_meant: impl Fn(&Holder) -> bool) -> BTreeSet<&str> {
        let meant = self.0.iter().filter(|holder| is_meant(holder));
        meant.map(|holder| holder.replica.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(count: &str, shard: u16, replica: &str) -> Holder {
        Holder {
            shards: count.parse().unwrap(),
            shard,
            replica: replica.to_owned(),
        }
    }

    #[test]
    fn a_workload_is_asked_of_who_holds_its_shard_in_whatever_division() {
        let two = [holder("2", 0, "a"), holder("2", 1, "b")];
        let shard = two[0].shards.of("ns", "shop");
        let in_two = ["a", "b"][usize::from(shard)];
        let one = holder("1", 0, "old");
        let rows: [(Vec<Holder>, Vec<&str>, Vec<&str>); 4] = [
            (vec![], vec![], vec![]),
            (two.to_vec(), vec!["a", "b"], vec![in_two]),
            (vec![one.clone()], vec!["old"], vec!["old"]),
            (
                [&two[..], &[one]].concat(),
                vec!["a", "b", "old"],
                vec![in_two, "old"],
            ),
        ];
        for (holders, all, of_shop) in rows {
            let holders = Holders::from_iter(holders);
            assert_eq!(Vec::from_iter(holders.names()), all);
            assert_eq!(Vec::from_iter(holders.of("ns", "shop")), of_shop);
        }
    }
}
