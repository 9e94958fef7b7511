//! Findings in configuration files, for the person who wrote them.
//!
//! A [`Diagnostic`] owns what it shows: it can be kept as a report long after its [`Source`] was
//! replaced. Several are collected per run; nothing here decides what is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

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

    /// [`block`](Self::block) in the colours of a terminal.
    pub fn styled_block(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Warning => Level::WARNING,
            Severity::Error => Level::ERROR,
        };
        let file = self.file.display().to_string();
        let mut origin = Origin::path(file);
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        if let Some(shown) = &self.shown {
            origin = origin
                .line(usize::try_from(self.line).unwrap_or(usize::MAX))
                .char_column(usize::try_from(self.col).unwrap_or(usize::MAX));
            let snippet = Snippet::source(shown.text.as_str())
                .line_start(usize::try_from(self.line).unwrap_or(usize::MAX))
                .annotation(AnnotationKind::Primary.span(shown.start..shown.end));
            group = group.element(origin).element(snippet);
        } else {
            group = group.element(origin);
        }
        renderer.render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.col)?;
        }
        write!(f, " {}: {}", self.severity, self.message)
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
        let end = place.end.clamp(place.start, right) - place.start + start;
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

/// `name` of a file beside `path`; an absolute name stands for itself.
pub fn beside(path: &Path, name: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(name)
}
