//! Findings in configuration files, for the person who wrote them.
//!
//! A [`Diagnostic`] owns what it shows: it can be kept as a report long after its [`Source`] was
//! replaced. Several are collected per run; nothing here decides what is wrong.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// A text and where it came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

impl Source {
    /// A source of raw bytes. What is not UTF-8 becomes U+FFFD, on which parsers point.
    pub fn decode(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Self {
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        Self {
            path: path.into(),
            text,
        }
    }
}

/// A stretch of a source.
///
/// Shape: `line` and `col` count from 1, `col` in characters; `start..end` are bytes of the text,
/// on character boundaries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Place {
    pub line: u32,
    pub col: u32,
    pub start: usize,
    pub end: usize,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    Warning,
    /// The set of files is not used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A finding in a configuration file.
///
/// Shape: prints as `file:line:col: severity: message`, so that editors jump to it; `line` and
/// `col` count from 1, `col` in characters. Both are 0, and not printed, where the finding is about
/// the file as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Diagnostic {
    pub file: PathBuf,
    pub line: u32,
    pub col: u32,
    pub severity: Severity,
    pub message: String,
    shown: Option<Shown>,
}

/// The part of the line that a block shows, and the bytes of it that are marked.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Shown {
    text: String,
    start: usize,
    end: usize,
}

/// Characters shown on each side of the start of a finding.
const SHOWN: usize = 50;

impl Diagnostic {
    /// A finding at a place of a source.
    pub fn at(
        source: &Source,
        place: Place,
        severity: Severity,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: source.path.clone(),
            line: place.line,
            col: place.col,
            severity,
            message: message.into(),
            shown: Shown::cut(&source.text, place),
        }
    }

    /// A finding about a file as a whole: missing, unreadable, too large.
    pub fn of_file(
        path: impl Into<PathBuf>,
        severity: Severity,
        message: impl Into<String>,
    ) -> Self {
        Self {
            file: path.into(),
            line: 0,
            col: 0,
            severity,
            message: message.into(),
            shown: None,
        }
    }

    /// The finding with the line it is in and a caret below the place; no colour, no final newline.
    pub fn block(&self) -> String {
        self.render(&Renderer::plain())
    }

    /// The same without the line it is in: that holds a secret.
    #[must_use]
    pub fn hidden(self) -> Self {
        Self {
            shown: None,
            ..self
        }
    }

    /// [`block`](Self::block) in the colours of a terminal.
    pub fn styled_block(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        };
        let title = Group::with_title(level.primary_title(self.message.as_str()));
        let file = self.file.to_string_lossy();
        let file = printable(&file);
        let line = usize::try_from(self.line).unwrap_or(usize::MAX);
        let Some(shown) = &self.shown else {
            let file = match self.line {
                0 => file,
                _ => format!("{file}:{}:{}", self.line, self.col).into(),
            };
            return renderer.render(&[title.element(Origin::path(file))]);
        };
        let mark = AnnotationKind::Primary.span(shown.start..shown.end);
        let snippet = Snippet::source(shown.text.as_str())
            .line_start(line)
            .annotation(mark);
        let block = renderer.render(&[title.element(snippet)]);
        // The renderer would count the column in what is shown, which may not begin the line.
        let (title, rest) = block.split_once('\n').unwrap_or((&block, ""));
        let indent = self.line.to_string().len();
        format!(
            "{title}\n{:indent$}--> {file}:{}:{}\n{rest}",
            "", self.line, self.col
        )
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", printable(&self.file.to_string_lossy()))?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.col)?;
        }
        write!(f, " {}: {}", self.severity, printable(&self.message))
    }
}

impl Shown {
    /// A window of the line around the place, with an ellipsis where something is left out.
    ///
    /// One line may hold a whole file (portmappings.conf): never looks further than the window.
    fn cut(text: &str, place: Place) -> Option<Self> {
        let before = text.get(..place.start)?;
        let marked = text.get(place.start..)?;
        let in_line = |c: &char| !matches!(c, '\n' | '\r');
        let left = before.chars().rev().take_while(in_line).take(SHOWN);
        let left: usize = left.map(char::len_utf8).sum();
        let right = marked.chars().take_while(in_line).take(SHOWN);
        let right: usize = right.map(char::len_utf8).sum();
        let left = place.start.checked_sub(left)?;
        let right = place.start.checked_add(right)?;

        let mut shown = String::new();
        // The byte order mark has no width and no column.
        let head = text.get(left..place.start)?.trim_start_matches('\u{feff}');
        if before
            .get(..left)?
            .chars()
            .next_back()
            .is_some_and(|c| in_line(&c))
        {
            shown.push('…');
        }
        shown.push_str(head);
        let start = shown.len();
        shown.push_str(text.get(place.start..right)?);
        let mut end = place.end.clamp(place.start, right);
        while !text.is_char_boundary(end) {
            end += 1;
        }
        let end = end - place.start + start;
        if text
            .get(right..)?
            .chars()
            .next()
            .is_some_and(|c| in_line(&c))
        {
            shown.push('…');
        }
        Some(Self {
            text: shown,
            start,
            end,
        })
    }
}

/// What could be read, and everything wrong with the rest.
#[derive(Clone, Debug)]
pub struct Parsed<T> {
    pub value: T,
    pub diagnostics: Vec<Diagnostic>,
}

impl<T> Parsed<T> {
    /// Whether the value must not be used.
    pub fn has_errors(&self) -> bool {
        has_errors(&self.diagnostics)
    }
}

/// Whether one of them is an error.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics
        .iter()
        .any(|found| found.severity == Severity::Error)
}

/// Up to where a word may be shown: what is before the `@` of an address such as `http://user:password@host` is not.
pub fn shown_of(word: &str) -> usize {
    let Some((scheme, rest)) = word.split_once("://") else {
        return word.len();
    };
    let is_path = scheme.ends_with("s3") || scheme.ends_with("file");
    if is_path || !rest.contains('@') {
        return word.len();
    }
    scheme.len() + "://".len()
}

/// Whether a character changes what a terminal shows of others: control characters, and those of Unicode that reverse or
/// hide text.
pub fn steers_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// A text of others without what steers a terminal, which is escaped.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers_terminal) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| {
        if steers_terminal(c) {
            c.escape_default().to_string()
        } else {
            c.to_string()
        }
    };
    Cow::Owned(text.chars().map(escape).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, at: &str) -> Diagnostic {
        let start = text.find(at).unwrap();
        let source = Source::decode("dir/file", text.as_bytes().to_vec());
        let head = &text[..start];
        let place = Place {
            line: u32::try_from(head.matches('\n').count() + 1).unwrap(),
            col: u32::try_from(head.rsplit('\n').next().unwrap().chars().count() + 1).unwrap(),
            start,
            end: start + at.len(),
        };
        Diagnostic::at(&source, place, Severity::Error, "wrong")
    }

    #[test]
    fn text_that_steers_a_terminal_is_escaped() {
        assert_eq!(
            printable("a\x1b[2J\u{9b}b\u{202e}c\u{feff}"),
            "a\\u{1b}[2J\\u{9b}b\\u{202e}c\\u{feff}"
        );
        assert!(matches!(printable("zwölf – 漢字"), Cow::Borrowed(_)));
        let found = Diagnostic::of_file("f", Severity::Error, "no\n\x1b[2J");
        assert_eq!(found.to_string(), "f: error: no\\n\\u{1b}[2J");
    }

    #[test]
    fn columns_are_characters_and_the_line_is_shown() {
        let found = found("first\nzwölf here\r\nlast\n", "here");
        assert_eq!(found.to_string(), "dir/file:2:7: error: wrong");
        let block = "error: wrong\n --> dir/file:2:7\n  |\n2 | zwölf here\n  |       ^^^^";
        assert_eq!(found.block(), block);
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let text = format!("{}HERE{}", "ä".repeat(100_000), "ö".repeat(100_000));
        let block = found(&text, "HERE").block();
        assert!(block.contains("--> dir/file:1:100001\n"), "{block}");
        assert!(
            block.contains(&format!("…{}HERE{}…", "ä".repeat(50), "ö".repeat(46))),
            "{block}"
        );
        let caret = block.lines().last().unwrap();
        assert!(caret.ends_with(" ^^^^"), "{caret}");
    }

    #[test]
    fn a_place_that_ends_inside_a_character_takes_all_of_it() {
        let source = Source::decode("x", "é é".into());
        let place = |end| Place {
            line: 1,
            col: 1,
            start: 0,
            end,
        };
        for end in 0..=9 {
            let found = Diagnostic::at(&source, place(end), Severity::Error, "wrong");
            assert!(found.block().contains("é é"), "{end}");
        }
    }

    #[test]
    fn a_finding_about_a_whole_file_has_no_line() {
        let found = Diagnostic::of_file("dir/\u{1b}[2Jx", Severity::Warning, "no such file");
        assert_eq!(found.to_string(), "dir/\\u{1b}[2Jx: warning: no such file");
        assert!(!found.block().contains('\u{1b}'));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_stop_us() {
        assert_eq!(
            Source::decode("x", vec![b'a', 0xff, b'b']).text,
            "a\u{fffd}b"
        );
    }
}
