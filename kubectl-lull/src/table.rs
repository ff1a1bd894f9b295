//! Tables as kubectl writes them: columns by spaces, no lines.

use crate::style::{Paint, Style};

/// Between two columns.
const GAP: &str = "   ";

/// A text in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    paint: Paint,
}

/// A table with a head.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

// === impl Cell ===

impl Cell {
    /// `text`, painted.
    pub(crate) fn painted(paint: Paint, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            paint,
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::painted(Paint::Plain, text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::painted(Paint::Plain, text)
    }
}

// === impl Table ===

impl Table {
    /// One without rows.
    pub(crate) fn new<'a>(head: impl IntoIterator<Item = &'a str>) -> Self {
        let head = head.into_iter().map(Cell::from).collect();
        Self { rows: vec![head] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table, each line with its end; the last column is not filled up.
    pub(crate) fn text(&self, style: Style) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.text.chars().count()).max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line.push_str(&style.paint(cell.paint, &cell.text));
                if column + 1 < row.len() {
                    let width = widths.get(column).copied().unwrap_or(0);
                    line.push_str(&" ".repeat(width.saturating_sub(cell.text.chars().count())));
                    line.push_str(GAP);
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "WHY"]);
        table.row(["sh\u{f6}p".into(), "idle".into()]);
        table.row(["warehouse".into(), Cell::painted(Paint::Bad, "")]);
        assert_eq!(
            table.text(Style::PLAIN),
            "NAME        WHY\nsh\u{f6}p        idle\nwarehouse\n"
        );
    }
}
