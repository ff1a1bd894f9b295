//! A run as a picture.

use std::path::Path;

use anyhow::Context as _;
use lull_contract::scaled_workload::State;
use plotters::prelude::*;

use crate::{Outcome, Point, Scenario};

const SIZE: (u32, u32) = (900, 620);
/// Most points of a line: more are not told apart.
const POINTS: usize = 450;
const LOAD: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const HELD: RGBColor = RGBColor(0xd6, 0x27, 0x28);
const READY: RGBColor = RGBColor(0x2c, 0xa0, 0x2c);
const DESIRED: RGBColor = RGBColor(0x7f, 0x7f, 0x7f);
/// The steps of a life from bottom to top, as the picture has them.
const STATES: [State; 6] = [
    State::Asleep,
    State::Waking,
    State::Settling,
    State::Awake,
    State::Bursting,
    State::FallingAsleep,
];

type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

/// Writes the picture of `outcome` to `file`.
///
/// # Errors
/// Where the file can't be written.
pub fn draw(scenario: &Scenario, outcome: &Outcome, file: &Path) -> anyhow::Result<()> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = format!("{}: {}", scenario.name, scenario.what);
    let below = root.titled(&title, ("sans-serif", 18))?;
    let (upper, lower) = below.split_vertically(440);
    let (requests, pods) = upper.split_vertically(220);
    let line = |name, colour, of: fn(&Point) -> f64| (name, colour, points(outcome, of));
    panel(
        &requests,
        "requests",
        vec![
            line("in flight and held", LOAD, |p| p.load),
            line("held", HELD, |p| p.held),
        ],
    )?;
    panel(
        &pods,
        "pods",
        vec![
            line("desired", DESIRED, |p| f64::from(p.desired)),
            line("ready", READY, |p| f64::from(p.ready)),
        ],
    )?;
    states(&lower, &points(outcome, |p| height(p.state)))?;
    root.present().with_context(|| format!("writing {file:?}"))
}

fn height(state: State) -> f64 {
    let index = STATES.iter().position(|other| *other == state);
    index.unwrap_or_default() as f64
}

fn points(outcome: &Outcome, of: fn(&Point) -> f64) -> Vec<(f64, f64)> {
    let every = outcome.points.len().div_ceil(POINTS).max(1);
    let seconds = outcome.points.chunks(every).enumerate();
    // The highest of those that share a place, so that no peak is lost.
    seconds
        .map(|(index, chunk)| {
            let highest = chunk.iter().map(of).fold(0.0, f64::max);
            ((index * every) as f64, highest)
        })
        .collect()
}

fn end(points: &[(f64, f64)]) -> f64 {
    points.last().map_or(1.0, |(x, _)| x.max(1.0))
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    what: &str,
    lines: Vec<Line>,
) -> anyhow::Result<()> {
    let all = || lines.iter().flat_map(|(_, _, points)| points);
    let highest = all().map(|(_, y)| *y).fold(1.0, f64::max);
    let seconds = lines.first().map_or(1.0, |(_, _, points)| end(points));
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..seconds, 0.0..highest * 1.05)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .y_desc(what)
        .draw()?;
    for (name, colour, points) in lines {
        chart
            .draw_series(LineSeries::new(points, &colour))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(TRANSPARENT)
        .draw()?;
    Ok(())
}

fn states(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    points: &[(f64, f64)],
) -> anyhow::Result<()> {
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(24)
        .y_label_area_size(84)
        .build_cartesian_2d(0.0..end(points), -0.5..STATES.len() as f64 - 0.5)?;
    let name = |y: &f64| {
        let state = STATES
            .iter()
            .find(|state| (height(**state) - y).abs() < 0.01);
        state.map_or_else(String::new, ToString::to_string)
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(STATES.len())
        .y_label_formatter(&name)
        .x_desc("seconds")
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), &BLACK))?;
    Ok(())
}
