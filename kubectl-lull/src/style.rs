//! Colour, on terminals only.

use std::{
    ffi::OsStr,
    io::{IsTerminal, stdout},
};

/// What a text is painted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As it is.
    Plain,
    /// A heading.
    Strong,
    /// Not what one looks for.
    Dim,
    /// As it should be.
    Good,
    /// To be known.
    Warn,
    /// Wrong.
    Bad,
}

/// Whether there is colour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    is_coloured: bool,
}

// === impl Style ===

impl Style {
    /// No colour.
    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { is_coloured: false };

    /// Colour where standard output is a terminal that has it, and nobody has said `NO_COLOR`.
    pub(crate) fn for_stdout() -> Self {
        let (no_color, term) = (std::env::var_os("NO_COLOR"), std::env::var_os("TERM"));
        let is_terminal = stdout().is_terminal();
        Self::of(is_terminal, no_color.as_deref(), term.as_deref())
    }

    fn of(is_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> Self {
        // https://no-color.org: set, and not empty.
        let is_unwanted = no_color.is_some_and(|value| !value.is_empty());
        let is_dumb = term == Some(OsStr::new("dumb"));
        Self {
            is_coloured: is_terminal && !is_unwanted && !is_dumb,
        }
    }

    /// `text`, painted.
    pub(crate) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Plain => return text.to_owned(),
            Paint::Strong => 1,
            Paint::Dim => 2,
            Paint::Good => 32,
            Paint::Warn => 33,
            Paint::Bad => 31,
        };
        if self.is_coloured && !text.is_empty() {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_colour_only_where_it_is_seen_and_wanted() {
        let rows = [
            (true, None, Some("xterm"), true),
            (true, Some(""), None, true),
            (true, Some("1"), Some("xterm"), false),
            (true, None, Some("dumb"), false),
            (false, None, Some("xterm"), false),
        ];
        for (is_terminal, no_color, term, expected) in rows {
            let style = Style::of(is_terminal, no_color.map(OsStr::new), term.map(OsStr::new));
            assert_eq!(
                style.is_coloured, expected,
                "{is_terminal} {no_color:?} {term:?}"
            );
        }
    }

    #[test]
    fn a_painted_text_ends_its_colour() {
        let style = Style { is_coloured: true };
        assert_eq!(style.paint(Paint::Bad, "x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Style::PLAIN.paint(Paint::Bad, "x"), "x");
        assert_eq!(style.paint(Paint::Bad, ""), "");
    }
}
