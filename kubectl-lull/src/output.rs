//! What a command has to say, and how it ends.

use std::process::ExitCode;

use serde::Serialize;
use serde_json::Value;

/// How a command ended, by its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As asked.
    Done,
    /// It could not be done, or not in time.
    Failed,
    /// The command line is wrong.
    Usage,
    /// Something stands in the way or is wrong, and was said.
    Found,
}

/// An answer in both forms.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    /// For people; ends with a line's end.
    pub(crate) text: String,
    /// For scripts.
    pub(crate) json: Value,
    /// How it ended.
    pub(crate) outcome: Outcome,
}

// === impl Outcome ===

impl Outcome {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Found => 3,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}

// === impl Output ===

impl Output {
    /// The answer `page`, which is `text` for people.
    ///
    /// # Errors
    /// Where it is no JSON.
    pub(crate) fn new(
        page: &impl Serialize,
        text: String,
        outcome: Outcome,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            text,
            json: serde_json::to_value(page)?,
            outcome,
        })
    }
}

#[cfg(test)]
mod tests {
    use lull_process::docs;

    use super::*;

    #[test]
    fn the_manual_has_every_exit_code() {
        let rows = docs::table(include_str!("../../docs/kubectl-lull.md"), "Exit codes");
        let documented: Vec<String> = rows
            .iter()
            .filter_map(|row| Some(docs::quoted(row.get("code")?).first()?.to_string()))
            .collect();
        let codes = [
            Outcome::Done,
            Outcome::Failed,
            Outcome::Usage,
            Outcome::Found,
        ]
        .map(|outcome| outcome.code().to_string());
        assert_eq!(documented, codes);
    }
}
