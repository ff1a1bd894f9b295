//! The documentation as a book: its pages, and what in them a machine can check or run.
//!
//! Pages are Markdown below `docs/`, and the README. Only as much of Markdown is read as they use:
//! blocks between fences, code between single backticks, links of one line, headings by `#`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

/// What begins and ends a block.
const FENCE: &str = "```";
/// What begins the line above a block of commands that no test runs; behind it stands why.
const NOT_RUN: &str = "<!-- not run: ";
/// What begins a command in a block that shows answers, too.
const PROMPT: &str = "$ ";
/// What asks whether an object is taken that stands on standard input, and whether a change is; neither is
/// kept.
const APPLY: &str = "kubectl apply --server-side --force-conflicts --dry-run=server -f -";
const PATCH: &str =
    "kubectl patch deployment shop --type merge --dry-run=server --patch-file /dev/stdin";
/// What ends standard input there.
const END: &str = "END-OF-BLOCK";
/// Programs that readers are asked to run.
const PROGRAMS: [&str; 8] = [
    "kubectl", "helm", "istioctl", "make", "kind", "docker", "skopeo", "curl",
];

/// One page.
#[derive(Debug, Clone)]
pub struct Page {
    /// Where it is.
    pub path: PathBuf,
    /// Its Markdown.
    pub text: String,
}

/// A block between fences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the first fence, such as `yaml` or `sh run`.
    pub info: String,
    /// What it holds, each line with its end.
    pub text: String,
    /// The page's line at which it begins, from 1.
    pub line: usize,
    /// Why no test runs it, where that is said above it.
    pub not_run: Option<String>,
}

/// Where the commands of a block are run, as its info says: `sh run enrolled`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    /// `run`: by a test of that page alone.
    Own,
    /// `run plain`: beside a Deployment and Service `shop` that Lull has nothing to do with.
    Plain,
    /// `run enrolled`: beside a `shop` that is enrolled and awake.
    Enrolled,
    /// `run alone`: where nobody else needs Lull, which may be replaced.
    Alone,
}

/// The repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The book's folder.
#[must_use]
pub fn folder() -> PathBuf {
    root().join("docs")
}

/// Every page of the book, by path.
///
/// # Errors
/// Where one can't be read.
pub fn pages() -> anyhow::Result<Vec<Page>> {
    let mut paths = Vec::new();
    markdown_below(&folder(), &mut paths)?;
    paths.sort();
    paths.into_iter().map(Page::read).collect()
}

fn markdown_below(folder: &Path, paths: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            markdown_below(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    Ok(())
}

// === impl Page ===

impl Page {
    /// Reads the page at `path`.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn read(path: PathBuf) -> anyhow::Result<Self> {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Self { path, text })
    }

    /// Its blocks, in order.
    #[must_use]
    pub fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        let mut above = "";
        for (number, line) in self.text.lines().enumerate() {
            if let Some(info) = line.trim_start().strip_prefix(FENCE) {
                match open.take() {
                    Some(block) => blocks.push(block),
                    None => {
                        open = Some(Block {
                            info: info.trim().to_owned(),
                            text: String::new(),
                            line: number + 1,
                            not_run: reason(above),
                        });
                    }
                }
            } else if let Some(block) = &mut open {
                block.text.push_str(line);
                block.text.push('\n');
            }
            above = line;
        }
        blocks
    }

    /// What stands in backticks outside of blocks.
    #[must_use]
    pub fn code(&self) -> Vec<String> {
        self.split_prose(true)
    }

    /// Where its links lead, as they are written.
    #[must_use]
    pub fn links(&self) -> Vec<String> {
        let mut links = Vec::new();
        for part in self.split_prose(false) {
            for link in part.split("](").skip(1) {
                links.extend(link.split_once(')').map(|(target, _)| target.to_owned()));
            }
        }
        links
    }

    /// What may stand behind a `#` in a link to it.
    #[must_use]
    pub fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        headings
            .map(|line| anchor(line.trim_start_matches('#').trim()))
            .collect()
    }

    /// Lines outside of blocks.
    fn prose(&self) -> impl Iterator<Item = &str> {
        let mut inside = false;
        self.text.lines().filter(move |line| {
            let is_fence = line.trim_start().starts_with(FENCE);
            inside ^= is_fence;
            !inside && !is_fence
        })
    }

    /// Paragraphs, cut at backticks: what stands between two of them, or the rest with a gap for
    /// each. Code may go on in the next line of its paragraph.
    fn split_prose(&self, wants_code: bool) -> Vec<String> {
        let text: Vec<&str> = self.prose().collect();
        let text = text.join("\n");
        let mut parts = Vec::new();
        for paragraph in text.split("\n\n") {
            let (code, rest): (Vec<_>, Vec<_>) = paragraph
                .split('`')
                .enumerate()
                .partition(|(index, _)| index % 2 == 1);
            if wants_code {
                parts.extend(code.into_iter().map(|(_, part)| part.replace('\n', " ")));
            } else {
                let rest: Vec<&str> = rest.into_iter().map(|(_, part)| part).collect();
                parts.push(rest.join("code"));
            }
        }
        parts
    }
}

/// Why a block is not run, where `line` says that.
fn reason(line: &str) -> Option<String> {
    let said = line.trim().strip_prefix(NOT_RUN)?;
    Some(said.strip_suffix("-->")?.trim().to_owned())
}

// === impl Block ===

impl Block {
    /// Where a test runs it; `None` where none does, or by a word that means nothing.
    #[must_use]
    pub fn scene(&self) -> Option<Scene> {
        let mut words = self.info.split(' ').skip(1);
        match (words.next(), words.next(), words.next()) {
            (Some("run"), None, None) => Some(Scene::Own),
            (Some("run"), Some("plain"), None) => Some(Scene::Plain),
            (Some("run"), Some("enrolled"), None) => Some(Scene::Enrolled),
            (Some("run"), Some("alone"), None) => Some(Scene::Alone),
            _ => None,
        }
    }

    /// What a reader types: all of it; in a `console` what stands behind a `$`, to the end of a command
    /// of several lines; for `yaml` what asks the API server whether it takes it, as an object, or as a
    /// change of the Deployment `shop` where it names no kind.
    #[must_use]
    pub fn commands(&self) -> String {
        if self.info.starts_with("yaml") {
            let is_object = self.text.lines().any(|line| line.starts_with("kind:"));
            let asks = if is_object { APPLY } else { PATCH };
            return format!("{asks} <<'{END}'\n{}{END}\n", self.text);
        }
        if !self.info.starts_with("console") {
            return self.text.clone();
        }
        let mut commands = String::new();
        let mut goes_on = false;
        for line in self.text.lines() {
            let typed = match line.trim_start().strip_prefix(PROMPT) {
                Some(typed) => typed,
                None if goes_on => line,
                None => continue,
            };
            commands.push_str(typed);
            commands.push('\n');
            goes_on = typed.ends_with('\\');
        }
        commands
    }

    /// Whether a reader is meant to type something of it, whatever its info says.
    #[must_use]
    pub fn has_commands(&self) -> bool {
        let is_shell =
            ["sh", "bash", "console"].contains(&self.info.split(' ').next().unwrap_or_default());
        let mut lines = self.text.lines().map(str::trim_start);
        is_shell
            || lines.any(|line| {
                let line = line.strip_prefix(PROMPT).unwrap_or(line);
                PROGRAMS.contains(&line.split(' ').next().unwrap_or_default())
            })
    }
}

/// A heading as links name it.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter_map(|c| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# First `words`, then more

See [there](there.md#a-b) and `[no](link)`, in [`code`](code.md).

```sh run
# not a heading
echo \"[no](link)\" `true`
```

```yaml
a: 1
```

Code that `goes
on` here.
";

    fn page() -> Page {
        Page {
            path: PathBuf::new(),
            text: TEXT.to_owned(),
        }
    }

    #[test]
    fn blocks_have_their_info_text_and_line() {
        let blocks = page().blocks();
        assert_eq!(blocks.len(), 2);
        assert_eq!((blocks[0].info.as_str(), blocks[0].line), ("sh run", 5));
        assert_eq!(blocks[1].text, "a: 1\n");
    }

    fn block(info: &str, text: &str) -> Block {
        let text = format!("<!-- not run: it installs -->\n```{info}\n{text}\n```\n");
        let path = PathBuf::new();
        Page { path, text }.blocks().remove(0)
    }

    #[test]
    fn a_block_says_where_its_commands_are_run_or_why_they_are_not() {
        let run = block("sh run enrolled", "kubectl get sw");
        assert_eq!(run.scene(), Some(Scene::Enrolled));
        assert_eq!(run.not_run.as_deref(), Some("it installs"));
        assert_eq!(block("sh run", "").scene(), Some(Scene::Own));
        for unknown in ["", "sh", "sh run somewhere", "sh run plain now"] {
            assert_eq!(block(unknown, "").scene(), None, "{unknown}");
        }
        assert_eq!(page().blocks()[0].not_run, None);
    }

    #[test]
    fn what_is_typed_is_told_from_what_comes_back() {
        let shown = block(
            "console run plain",
            "$ kubectl get sw \\\n    -A\nNAME\n$ true",
        );
        assert_eq!(shown.commands(), "kubectl get sw \\\n    -A\ntrue\n");
        assert_eq!(block("sh", "a\nb").commands(), "a\nb\n");
        let asked = |text: &str| block("yaml run plain", text).commands();
        let object = asked("apiVersion: v1\nkind: Pod");
        assert!(object.starts_with("kubectl apply ") && object.contains("\nkind: Pod\n"));
        assert!(asked("metadata: {}").starts_with("kubectl patch deployment shop "));
        assert!(block("", "NAME\n$ kubectl get sw").has_commands());
        assert!(block("sh", "true").has_commands());
        assert!(!block("yaml", "kubectl: 1").has_commands());
        assert!(!block("", "NAME   MODE").has_commands());
    }

    #[test]
    fn links_and_code_are_told_apart() {
        assert_eq!(page().links(), ["there.md#a-b", "code.md"]);
        assert_eq!(page().code(), ["words", "[no](link)", "code", "goes on"]);
    }

    #[test]
    fn a_heading_is_named_by_its_letters() {
        let anchors = BTreeSet::from(["first-words-then-more".to_owned()]);
        assert_eq!(page().anchors(), anchors);
    }
}
