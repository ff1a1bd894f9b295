//! A row of the dashboard as an SVG, each panel in its place.

use std::fmt::Write as _;

use super::{Panel, Row, Series};

/// Pixels of a column of the grid, and of one unit of its height.
const COLUMN: f64 = 50.0;
const UNIT: f64 = 26.0;
/// Room for the row's title.
const TITLE: f64 = 34.0;
/// Between panels.
const GAP: f64 = 6.0;
/// Of the plot in its panel: room for the numbers at its left, and for its title.
const LEFT: f64 = 58.0;
const TOP: f64 = 30.0;
/// Room for one line of text.
const LINE: f64 = 15.0;
/// Most names and rows that a panel shows; the others are counted.
const NAMES: usize = 4;
const ROWS: usize = 10;
const COLOURS: [&str; 8] = [
    "#0969da", "#bf5b04", "#1a7f37", "#8250df", "#b42318", "#0b7285", "#7d8590", "#9a5b00",
];

/// A series and what it is called.
type Named = (String, Series);

/// The row with what its panels' queries were answered, in their order.
pub(super) fn row(row: &Row, answers: &[Vec<Named>]) -> String {
    let places = || row.panels.iter().map(|panel| panel.place);
    let top = places().map(|place| place.y).min().unwrap_or_default();
    let bottom = places().map(|place| place.y + place.h).max();
    let height = TITLE + f64::from(bottom.unwrap_or_default() - top) * UNIT;
    let width = 24.0 * COLUMN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#1b1f24\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    svg += &text((8.0, 22.0), "font-size=\"17\"", &row.title);
    for (panel, lines) in row.panels.iter().zip(answers) {
        let x = f64::from(panel.place.x) * COLUMN;
        let y = TITLE + f64::from(panel.place.y - top) * UNIT;
        // Writing to a String can't fail.
        let panel = whole(panel, lines);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">\n{panel}</g>");
    }
    svg + "</svg>\n"
}

fn whole(panel: &Panel, lines: &[Named]) -> String {
    let width = f64::from(panel.place.w) * COLUMN - GAP;
    let height = f64::from(panel.place.h) * UNIT - GAP;
    let frame = format!(
        "<rect width=\"{width}\" height=\"{height}\" fill=\"#f4f6f8\" stroke=\"#d5dae0\"/>\n"
    );
    let title = text((8.0, 18.0), "font-weight=\"600\"", &panel.title);
    let inside = match panel.kind.as_str() {
        "stat" => stat(panel, lines, height),
        "table" => table(panel, lines),
        _ => plot(panel, lines, (width, height)),
    };
    frame + &title + &inside
}

fn text((x, y): (f64, f64), style: &str, words: &str) -> String {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!("<text x=\"{x}\" y=\"{y}\" {style}>{words}</text>\n")
}

/// What there is now: names and values of series that reach to the end. Others have gone meanwhile.
fn now(lines: &[Named]) -> Vec<(&str, f64)> {
    let ends = lines.iter().filter_map(|(name, series)| {
        let (at, value) = series.points.last()?;
        Some((name.as_str(), *at, *value))
    });
    let newest = ends.clone().map(|(_, at, _)| at).fold(0.0, f64::max);
    let there = ends.filter(|(_, at, _)| *at >= newest);
    there.map(|(name, _, value)| (name, value)).collect()
}

fn stat(panel: &Panel, lines: &[Named], height: f64) -> String {
    let words = match now(lines)[..] {
        [] => "no data".to_owned(),
        [(_, value), ..] => said(value, &panel.unit),
    };
    text((8.0, height - 16.0), "font-size=\"30\"", &words)
}

fn table(panel: &Panel, lines: &[Named]) -> String {
    let mut rows = String::new();
    let there = now(lines);
    for (at, (name, value)) in there.iter().take(ROWS).enumerate() {
        let y = TOP + LINE * (at as f64 + 1.0);
        let words = format!("{name}: {}", said(*value, &panel.unit));
        rows += &text((8.0, y), "", &words);
    }
    rows + &more(there.len(), ROWS, TOP + LINE * (ROWS as f64 + 1.0))
}

/// How many there are that have no room.
fn more(all: usize, most: usize, y: f64) -> String {
    match all.saturating_sub(most) {
        0 => String::new(),
        left => text((8.0, y), "fill=\"#59636e\"", &format!("and {left} more")),
    }
}

fn plot(panel: &Panel, lines: &[Named], (width, height): (f64, f64)) -> String {
    let points = || lines.iter().flat_map(|(_, series)| &series.points);
    if points().next().is_none() {
        return text((8.0, TOP + LINE), "fill=\"#59636e\"", "no data");
    }
    let names = lines.len().min(NAMES) + usize::from(lines.len() > NAMES);
    let below = LINE * (names as f64 + 1.0);
    let (right, bottom) = (width - 10.0, height - below - 6.0);
    let from = points().map(|(at, _)| *at).fold(f64::INFINITY, f64::min);
    let to = points().map(|(at, _)| *at).fold(from + 1.0, f64::max);
    let most = points().map(|(_, value)| *value).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let x = |at: f64| LEFT + (right - LEFT) * (at - from) / (to - from);
    let y = |value: f64| bottom - (bottom - TOP) * value.max(0.0) / most;

    let mut svg = String::new();
    for part in [0.0, 0.5, 1.0] {
        let (at, number) = (y(most * part), said(most * part, &panel.unit));
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#d5dae0\"/>"
        );
        let end = "text-anchor=\"end\" fill=\"#59636e\" font-size=\"11\"";
        svg += &text((LEFT - 5.0, at + 4.0), end, &number);
    }
    let span = format!("{:.0} s", to - from);
    let end = "text-anchor=\"end\" fill=\"#59636e\" font-size=\"11\"";
    svg += &text((right, bottom + LINE), end, &span);
    for (at, (name, series)) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let places: Vec<String> = series
            .points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>",
            places.join(" ")
        );
        if at < NAMES {
            let place = (8.0, bottom + LINE * (at as f64 + 2.0));
            svg += &text(place, &format!("fill=\"{colour}\""), name);
        }
    }
    svg + &more(lines.len(), NAMES, bottom + LINE * (NAMES as f64 + 2.0))
}

/// A number as Grafana's `unit` has it, short.
fn said(value: f64, unit: &str) -> String {
    match unit {
        "percentunit" => format!("{} %", short(value * 100.0)),
        "s" if value > 0.0 && value < 1.0 => format!("{} ms", short(value * 1_000.0)),
        "s" if value >= 172_800.0 => format!("{} d", short(value / 86_400.0)),
        "s" => format!("{} s", short(value)),
        "ops" | "reqps" | "cps" => format!("{}/s", short(value)),
        _ => short(value),
    }
}

/// Three digits that count, without zeros behind.
fn short(value: f64) -> String {
    let size = value.abs();
    let text = if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::Place, *};

    fn panel(kind: &str, unit: &str) -> Panel {
        Panel {
            title: "Held <now>".to_owned(),
            kind: kind.to_owned(),
            unit: unit.to_owned(),
            place: Place {
                x: 8,
                y: 5,
                w: 8,
                h: 8,
            },
            queries: Vec::new(),
        }
    }

    fn line(name: &str, points: &[(f64, f64)]) -> Named {
        let series = Series {
            labels: BTreeMap::new(),
            points: points.to_vec(),
        };
        (name.to_owned(), series)
    }

    fn drawn(kind: &str, unit: &str, lines: Vec<Named>) -> String {
        let one = Row {
            title: "Overview".to_owned(),
            panels: vec![panel(kind, unit)],
        };
        row(&one, &[lines])
    }

    #[test]
    fn lines_reach_from_the_bottom_to_the_top_of_their_panel_and_names_are_text() {
        let svg = drawn(
            "timeseries",
            "s",
            vec![line("a & b", &[(10.0, 0.0), (20.0, 0.5)])],
        );
        // 8 columns of 50, less the gap and what is around the plot; 8 units of 26, less the same.
        assert!(svg.contains("points=\"58.0,166.0 384.0,30.0\""), "{svg}");
        assert!(svg.contains("Held &lt;now&gt;") && svg.contains(">a &amp; b<"));
        assert!(svg.contains(">500 ms<") && svg.contains(">10 s<"), "{svg}");
    }

    #[test]
    fn a_panel_without_an_answer_says_so_and_one_with_many_counts_the_rest() {
        assert!(drawn("timeseries", "", Vec::new()).contains("no data"));
        assert!(drawn("stat", "", Vec::new()).contains("no data"));
        let many = vec![line("x", &[(0.0, 1.0)]); 7];
        assert!(drawn("timeseries", "", many).contains("and 3 more"));
        let stat = drawn("stat", "", vec![line("", &[(0.0, 2.0)])]);
        assert!(stat.contains(">2<"), "{stat}");
    }

    #[test]
    fn a_table_has_what_there_is_now() {
        let lines = vec![
            line("shop Waking", &[(0.0, 1.0)]),
            line("shop Awake", &[(2.0, 1.0)]),
        ];
        let table = drawn("table", "", lines);
        assert!(table.contains(">shop Awake: 1<"), "{table}");
        assert!(!table.contains("Waking"), "{table}");
    }

    #[test]
    fn numbers_are_short_and_have_their_unit() {
        for (value, unit, text) in [
            (0.0, "s", "0 s"),
            (0.0123, "s", "12.3 ms"),
            (31_536_000.0, "s", "365 d"),
            (0.5, "percentunit", "50 %"),
            (1_234.2, "reqps", "1234/s"),
            (1.5, "short", "1.5"),
        ] {
            assert_eq!(said(value, unit), text);
        }
    }
}
