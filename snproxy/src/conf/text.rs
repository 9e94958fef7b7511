//! Lines and fields, each with its place, and the findings made on them.

use std::fmt::{self, Display};

use crate::diag::{Diagnostic, Place, Severity, Source, printable, shown_of};

/// Longest line of proxy.conf and hosts.conf, in bytes.
pub(super) const MAX_LINE: usize = 4096;

/// Findings of one severity kept of one file; the others are counted.
pub(super) const MAX_FINDINGS: usize = 100;

/// Characters of a text quoted in a message.
const MAX_QUOTED: usize = 64;

/// A stretch of one line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) text: &'a str,
    pub(super) place: Place,
}

impl<'a> Field<'a> {
    /// Whether the file says it with escapes: then no part of it has a place of its own.
    fn is_decoded(self) -> bool {
        self.place.end - self.place.start != self.text.len()
    }

    /// `len` bytes from byte `start` of this field; what lies outside of it is left out.
    pub(super) fn part(self, start: usize, len: usize) -> Self {
        let head = self.text.get(..start).unwrap_or(self.text);
        let rest = self.text.get(head.len()..).unwrap_or("");
        let text = rest.get(..len).unwrap_or(rest);
        if self.is_decoded() {
            let place = self.place;
            return Field { text, place };
        }
        let start = self.place.start + head.len();
        Field {
            text,
            place: Place {
                line: self.place.line,
                col: self.place.col + width(head),
                start,
                end: start + text.len(),
            },
        }
    }

    /// From byte `start` to the end.
    pub(super) fn tail(self, start: usize) -> Self {
        self.part(start, usize::MAX)
    }

    pub(super) fn trim(self) -> Self {
        let lead = self.text.len() - self.text.trim_start_matches(is_blank).len();
        self.part(lead, self.text.trim_matches(is_blank).len())
    }

    /// The stretches between separators, without the empty ones.
    pub(super) fn split(self, separator: impl Fn(char) -> bool) -> impl Iterator<Item = Field<'a>> {
        let mut left = self;
        std::iter::from_fn(move || {
            let rest = left.text.trim_start_matches(&separator);
            let lead = left.text.len() - rest.len();
            let len = rest.find(&separator).unwrap_or(rest.len());
            let field = left.part(lead, len);
            // The columns go on from here: counted from the start of the line they would make a
            // file of one line quadratic.
            let place = if left.is_decoded() {
                left.place
            } else {
                Place {
                    col: field.place.col + width(field.text),
                    start: field.place.end,
                    ..left.place
                }
            };
            left = Field {
                text: left.text.get(lead + len..).unwrap_or(""),
                place,
            };
            (len > 0).then_some(field)
        })
    }
}

/// A part of a file in a message: in backquotes, short, and without characters that steer a terminal.
impl Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self
            .text
            .char_indices()
            .nth(MAX_QUOTED)
            .map_or(self.text.len(), |(at, _)| at);
        let kept = kept.min(shown_of(self.text));
        write!(f, "`{}", printable(self.text.get(..kept).unwrap_or("")))?;
        let more = kept < self.text.len();
        f.write_str(if more { "…`" } else { "`" })
    }
}

fn width(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// Space, tab, and the CR of CRLF.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\u{b}' | '\u{c}')
}

/// Lines that can hold something: no comments, nothing empty, blanks cut off both ends.
///
/// Lines longer than the limit and lines with a NUL are findings, and left out.
pub(super) struct Lines<'a> {
    rest: std::str::Split<'a, char>,
    max_line: usize,
    /// Of the line before.
    number: u32,
    start: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(source: &'a Source, max_line: usize) -> Self {
        // An editor's mark is no part of line 1.
        let text = source.text.trim_start_matches('\u{feff}');
        Self {
            rest: text.split('\n'),
            max_line,
            number: 0,
            start: source.text.len() - text.len(),
        }
    }

    pub(super) fn next(&mut self, findings: &mut Findings<'_>) -> Option<Field<'a>> {
        loop {
            let text = self.rest.next()?;
            self.number += 1;
            let place = Place {
                line: self.number,
                col: 1,
                start: self.start,
                end: self.start + text.len(),
            };
            self.start = place.end + 1;
            let line = Field { text, place };
            if text.len() > self.max_line {
                let message = format_args!("line is longer than {} bytes", self.max_line);
                findings.error(line.part(0, 1).place, message);
            } else if let Some(at) = text.find('\0') {
                let message = "NUL byte: expected UTF-8 text";
                findings.error(line.part(at, 1).place, message);
            } else if !text.trim_start_matches(is_blank).starts_with('#') {
                let line = line.trim();
                if !line.text.is_empty() {
                    return Some(line);
                }
            }
        }
    }
}

/// The line up to a comment that begins a field.
pub(super) fn uncomment(line: Field<'_>) -> Field<'_> {
    let mut before = ' ';
    for (at, c) in line.text.char_indices() {
        if c == '#' && is_blank(before) {
            return line.part(0, at).trim();
        }
        before = c;
    }
    line
}

/// The field without commas at its end, which the published samples have.
pub(super) fn without_comma<'a>(field: Field<'a>, findings: &mut Findings<'_>) -> Field<'a> {
    let kept = field
        .text
        .trim_end_matches(|c| c == ',' || is_blank(c))
        .len();
    let comma = field.tail(kept).trim();
    if comma.text.is_empty() {
        return field;
    }
    findings.warning(comma.place, "trailing comma ignored");
    field.part(0, kept)
}

/// Whether the bytes were text; if not, that is the finding.
pub(super) fn is_text(field: Field<'_>, findings: &mut Findings<'_>) -> bool {
    let Some(at) = field.text.find('\u{fffd}') else {
        return true;
    };
    let bad = field.part(at, '\u{fffd}'.len_utf8());
    findings.error(bad.place, "bytes that are not UTF-8 text");
    false
}

/// Findings of one file.
pub(super) struct Findings<'a> {
    source: &'a Source,
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    /// Lines with a secret in them.
    secret: Vec<u32>,
    /// Whether an unknown key or field is a warning.
    ignore_unknown: bool,
}

impl<'a> Findings<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self {
            source,
            kept: Vec::new(),
            errors: 0,
            warnings: 0,
            secret: Vec::new(),
            ignore_unknown: false,
        }
    }

    /// Findings where an unknown key or field is a warning if `ignore_unknown` is set.
    pub(super) fn lenient(source: &'a Source, ignore_unknown: bool) -> Self {
        Self {
            ignore_unknown,
            ..Self::new(source)
        }
    }

    /// An unknown key or field, and what it may mean.
    pub(super) fn unknown(&mut self, place: Place, what: impl Display, hint: impl Display) {
        if self.ignore_unknown {
            self.warning(place, format_args!("{what} ignored{hint}"));
        } else {
            self.error(place, format_args!("{what}{hint}"));
        }
    }

    /// No finding shows this line.
    pub(super) fn hide(&mut self, line: u32) {
        self.secret.push(line);
    }

    /// Whether there is an error in this line.
    pub(super) fn is_wrong(&self, line: u32) -> bool {
        let is_it = |found: &Diagnostic| found.line == line && found.severity == Severity::Error;
        self.kept.iter().any(is_it)
    }

    pub(super) fn error(&mut self, place: Place, message: impl Display) {
        self.push(Severity::Error, |_| Some(place), &message);
    }

    pub(super) fn warning(&mut self, place: Place, message: impl Display) {
        self.push(Severity::Warning, |_| Some(place), &message);
    }

    /// A finding on the field that begins at a line and column.
    pub(super) fn at(&mut self, severity: Severity, line: u32, col: u32, message: impl Display) {
        self.push(severity, |source| find(source, line, col), &message);
    }

    /// A finding about the file as a whole.
    pub(super) fn whole(&mut self, severity: Severity, message: impl Display) {
        self.push(severity, |_| None, &message);
    }

    /// Places and texts are only made of what is kept: a file may hold 100,000 findings.
    fn push(
        &mut self,
        severity: Severity,
        place: impl FnOnce(&Source) -> Option<Place>,
        message: &dyn Display,
    ) {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_FINDINGS {
            let message = message.to_string();
            self.kept.push(match place(self.source) {
                Some(place) => Diagnostic::at(self.source, place, severity, message),
                None => Diagnostic::of_file(&self.source.path, severity, message),
            });
        }
    }

    /// In the order of the file; what was only counted comes last.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.kept.sort_by_key(|found| (found.line, found.col));
        let secret = self.secret;
        let kept = self.kept.into_iter();
        self.kept = kept
            .map(|found| {
                if secret.contains(&found.line) {
                    found.hidden()
                } else {
                    found
                }
            })
            .collect();
        for (severity, count) in [
            (Severity::Error, self.errors),
            (Severity::Warning, self.warnings),
        ] {
            if let Some(more) = count.checked_sub(MAX_FINDINGS).filter(|more| *more > 0) {
                let message = format!("… and {more} more of this kind");
                self.kept
                    .push(Diagnostic::of_file(&self.source.path, severity, message));
            }
        }
        self.kept
    }
}

/// The field that begins at a line and column.
fn find(source: &Source, line: u32, col: u32) -> Option<Place> {
    let nth = |n: u32| usize::try_from(n).ok()?.checked_sub(1);
    let mark = source.text.len() - source.text.trim_start_matches('\u{feff}').len();
    let text = source.text.get(mark..)?;
    let begin = match nth(line)? {
        0 => 0,
        n => text.match_indices('\n').nth(n - 1)?.0 + 1,
    };
    let rest = text.get(begin..)?;
    let (skip, _) = rest.char_indices().nth(nth(col)?)?;
    let field = rest.get(skip..)?;
    let len = field
        .find(|c| c == '\n' || is_blank(c))
        .unwrap_or(field.len());
    let start = mark + begin + skip;
    Some(Place {
        line,
        col,
        start,
        end: start + len,
    })
}
