//! `doctor`: what is wrong with Lull on this cluster, each with its fix.

use serde::Serialize;

use super::Asked;
use crate::{
    doctor::{self, Finding, Level},
    output::{Outcome, Output},
    progress,
    style::{Paint, Style},
    words::count,
};

/// Findings of one area and level that are shown to people: where a thousand workloads have one fault, it
/// is read once.
const MAX_ALIKE: usize = 20;

/// The answer.
#[derive(Debug, Serialize)]
struct Page {
    findings: Vec<Finding>,
}

/// Looks at everything.
///
/// # Errors
/// Where the cluster doesn't answer at all.
pub(super) async fn run(asked: Asked<'_>) -> anyhow::Result<Output> {
    let version = asked.cluster.client.apiserver_version();
    crate::cluster::call("ask the API server for its version", version).await?;
    // Many calls, of which none may take long.
    let look = Box::pin(doctor::look(asked.cluster));
    let seen = progress::during("look at the cluster", look).await;
    let page = Page {
        findings: doctor::findings(&seen),
    };
    let outcome = outcome(&page.findings);
    Output::new(&page, text(&page.findings, asked.style), outcome)
}

fn outcome(findings: &[Finding]) -> Outcome {
    if findings
        .iter()
        .any(|finding| finding.level == Level::Problem)
    {
        Outcome::Found
    } else {
        Outcome::Done
    }
}

fn text(findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    let mut area = None;
    // Those of one area and level stand together.
    for alike in findings.chunk_by(|a, b| (a.area, a.level) == (b.area, b.level)) {
        for finding in alike.iter().take(MAX_ALIKE) {
            if area.replace(finding.area) != Some(finding.area) {
                let gap = if text.is_empty() { "" } else { "\n" };
                let title = style.paint(Paint::Strong, finding.area.title());
                text.push_str(&format!("{gap}{title}\n"));
            }
            text.push_str(&line(finding, style));
        }
        let more = alike.len().saturating_sub(MAX_ALIKE);
        if more > 0 {
            text.push_str(&format!("          and {more} more: -o json has all\n"));
        }
    }
    text.push_str(&format!("\n{}\n", summary(findings)));
    text
}

fn line(finding: &Finding, style: Style) -> String {
    let (word, paint) = mark(finding.level);
    let word = style.paint(paint, word);
    let mut text = format!("  {word} {}\n", finding.message);
    if !finding.fix.is_empty() {
        text.push_str(&format!("          fix: {}\n", finding.fix));
    }
    text
}

/// Words of one width: they are read by people and by grep.
fn mark(level: Level) -> (&'static str, Paint) {
    match level {
        Level::Good => ("ok     ", Paint::Good),
        Level::Unknown => ("unknown", Paint::Dim),
        Level::Warning => ("warning", Paint::Warn),
        Level::Problem => ("problem", Paint::Bad),
    }
}

fn summary(findings: &[Finding]) -> String {
    let of = |level: Level| {
        let all = findings.iter().filter(|finding| finding.level == level);
        all.count() as u64
    };
    let (problems, warnings) = (of(Level::Problem), of(Level::Warning));
    let mut text = format!(
        "{}, {}",
        count(problems, "problem"),
        count(warnings, "warning")
    );
    match of(Level::Unknown) {
        0 => {}
        unknown => text.push_str(&format!(", {unknown} not seen")),
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::doctor::Area;

    use super::*;

    fn finding(area: Area, level: Level, fix: &str) -> Finding {
        Finding {
            area,
            level,
            message: "it is so".to_owned(),
            fix: fix.to_owned(),
        }
    }

    #[test]
    fn findings_stand_below_their_area_each_with_its_fix() {
        let findings = [
            finding(Area::Install, Level::Problem, "do this"),
            finding(Area::Install, Level::Good, ""),
            finding(Area::Mesh, Level::Unknown, "ask"),
        ];
        let expected = "\
Install
  problem it is so
          fix: do this
  ok      it is so

Mesh
  unknown it is so
          fix: ask

1 problem, 0 warnings, 1 not seen
";
        assert_eq!(text(&findings, Style::PLAIN), expected);
        assert_eq!(outcome(&findings), Outcome::Found);
    }

    #[test]
    fn of_many_that_are_alike_some_are_shown_and_all_are_counted() {
        let alike = |level| finding(Area::Slices, level, "do this");
        let mut findings = vec![alike(Level::Problem); 1_000];
        findings.push(alike(Level::Warning));
        let text = text(&findings, Style::PLAIN);
        let shown = text.matches("  problem it is so").count();
        assert_eq!(shown, MAX_ALIKE, "{text}");
        assert!(
            text.contains("and 980 more: -o json has all\n  warning it is so"),
            "{text}"
        );
        assert!(text.ends_with("\n1000 problems, 1 warning\n"), "{text}");
        assert_eq!(text.matches("Slices\n").count(), 1, "{text}");
    }

    #[test]
    fn warnings_and_what_is_not_seen_are_no_failure() {
        let findings = [
            finding(Area::Install, Level::Warning, "x"),
            finding(Area::Mesh, Level::Unknown, "x"),
        ];
        assert_eq!(outcome(&findings), Outcome::Done);
    }
}
