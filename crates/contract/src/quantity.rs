//! Amounts of CPU and memory as Kubernetes writes them: `25m`, `0.5`, `64Mi`, `2e9`.

use std::fmt;

/// Factors behind a number, in thousandths of a core or byte, as a numerator and a denominator.
const UNITS: [(&str, u128, u128); 16] = [
    ("", 1_000, 1),
    ("n", 1, 1_000_000),
    ("u", 1, 1_000),
    ("m", 1, 1),
    ("k", 1_000_000, 1),
    ("M", 1_000_000_000, 1),
    ("G", 1_000_000_000_000, 1),
    ("T", 1_000_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000_000, 1),
    ("Ki", 1_000 << 10, 1),
    ("Mi", 1_000 << 20, 1),
    ("Gi", 1_000 << 30, 1),
    ("Ti", 1_000 << 40, 1),
    ("Pi", 1_000 << 50, 1),
    ("Ei", 1_000 << 60, 1),
];
/// Most digits of a number that is read; no API server writes more.
const MOST_DIGITS: usize = 18;
/// Largest power of ten behind an `e` that is read.
const MOST_EXPONENT: u32 = 18;

/// An amount, in thousandths of a core or byte; what is smaller is rounded up, as Kubernetes does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    milli: u64,
}

// === impl Quantity ===

impl Quantity {
    /// So many thousandths of a core or byte.
    #[must_use]
    pub const fn from_milli(milli: u64) -> Self {
        Self { milli }
    }

    /// What `text` says; `None` where it is no quantity, a negative one or one beyond 16 Pi, of which
    /// Lull then says nothing.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(end.unwrap_or(text.len()));
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = format!("{whole}{fraction}");
        if digits.len() > MOST_DIGITS || fraction.contains('.') {
            return None;
        }
        let digits: u128 = digits.parse().ok()?;
        let (numerator, denominator) = factor(unit)?;
        let places = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let milli = digits.checked_mul(numerator)?;
        let milli = milli.div_ceil(denominator.checked_mul(places)?);
        u64::try_from(milli).ok().map(Self::from_milli)
    }

    /// Thousandths of a core or byte.
    #[must_use]
    pub const fn milli(self) -> u64 {
        self.milli
    }

    /// Both together, or the most that there is.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::from_milli(self.milli.saturating_add(other.milli))
    }
}

/// Thousandths for each one of `unit`, as a numerator and a denominator.
fn factor(unit: &str) -> Option<(u128, u128)> {
    if let Some((_, numerator, denominator)) = UNITS.iter().find(|(name, ..)| *name == unit) {
        return Some((*numerator, *denominator));
    }
    let exponent: i32 = unit.strip_prefix(['e', 'E'])?.parse().ok()?;
    let size = exponent.unsigned_abs();
    if size > MOST_EXPONENT {
        return None;
    }
    let power = 10_u128.pow(size);
    if exponent < 0 {
        Some((1_000, power))
    } else {
        Some((1_000 * power, 1))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milli = self.milli;
        if !milli.is_multiple_of(1_000) {
            return write!(f, "{milli}m");
        }
        let whole = milli / 1_000;
        let large = [("Gi", 30), ("Mi", 20), ("Ki", 10)].into_iter();
        let mut large = large.filter(|(_, bits)| whole > 0 && whole.is_multiple_of(1_u64 << *bits));
        match large.next() {
            Some((unit, bits)) => write!(f, "{}{unit}", whole >> bits),
            None => write!(f, "{whole}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let rows = [
            ("25m", 25),
            ("1", 1_000),
            ("0.5", 500),
            (".5", 500),
            ("1.", 1_000),
            ("1.5Ki", 1_536_000),
            ("64Mi", 64 * 1_024 * 1_024 * 1_000),
            ("128M", 128_000_000_000),
            ("1Gi", 1_024 * 1_024 * 1_024 * 1_000),
            ("2e3", 2_000_000),
            ("2E3", 2_000_000),
            ("5e-1", 500),
            ("100u", 1),
            ("1n", 1),
            ("0", 0),
        ];
        for (text, milli) in rows {
            let read = Quantity::read(text).map(Quantity::milli);
            assert_eq!(read, Some(milli), "{text}");
        }
    }

    #[test]
    fn what_is_none_or_more_than_any_machine_has_is_not_read() {
        for text in [
            "",
            ".",
            "m",
            "-1",
            "+1",
            "1 Gi",
            "1Xi",
            "1.2.3",
            "1e",
            "1e99",
            "1e-99",
            "99Ei",
            "ten",
            "1234567890123456789",
        ] {
            assert_eq!(Quantity::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_quantity_is_written_in_the_largest_unit_that_fits() {
        for text in ["25m", "1", "1500m", "16Mi", "1Gi", "1536Ki", "0", "1000000"] {
            let read = Quantity::read(text).map(|quantity| quantity.to_string());
            assert_eq!(read.as_deref(), Some(text));
        }
    }
}
