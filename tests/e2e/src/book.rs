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
        for (number, line) in self.text.lines().enumerate() {
            if let Some(info) = line.trim_start().strip_prefix(FENCE) {
                match open.take() {
                    Some(block) => blocks.push(block),
                    None => {
                        open = Some(Block {
                            info: info.trim().to_owned(),
                            text: String::new(),
                            line: number + 1,
                        });
                    }
                }
            } else if let Some(block) = &mut open {
                block.text.push_str(line);
                block.text.push('\n');
            }
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
