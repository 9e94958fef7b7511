//! One event of the log as bytes: without control characters, with the priority that journald reads.

use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::diag::steers_terminal;

use super::writer::LogSender;

/// Most lines of libraries (TLS, HTTP) in one interval: a stranger's connection may cause one.
const MAX_FOREIGN: u32 = 20;
/// The interval.
const INTERVAL: Duration = Duration::from_secs(10);

/// Makes lines of events.
pub(super) struct LineMaker {
    sender: LogSender,
    has_priority: bool,
    has_color: bool,
    foreign: Mutex<Option<(Instant, u32)>>,
}

impl LineMaker {
    pub(super) fn new(sender: LogSender, has_priority: bool, has_color: bool) -> Self {
        Self {
            sender,
            has_priority,
            has_color,
            foreign: Mutex::default(),
        }
    }

    /// Whether one more line of a library is written.
    fn admits_foreign(&self, now: Instant) -> bool {
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = foreign
            .filter(|(since, _)| now.saturating_duration_since(*since) < INTERVAL)
            .unwrap_or((now, 0));
        *foreign = Some((since, count.saturating_add(1)));
        count < MAX_FOREIGN
    }
}

/// One event.
pub(super) struct Line<'a> {
    maker: &'a LineMaker,
    level: Level,
    is_suppressed: bool,
}

impl<'a> MakeWriter<'a> for LineMaker {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            maker: self,
            level: Level::INFO,
            is_suppressed: false,
        }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Line<'a> {
        let is_foreign = !event.target().starts_with(env!("CARGO_CRATE_NAME"));
        let is_suppressed = is_foreign && !self.admits_foreign(Instant::now());
        if is_suppressed {
            self.sender.suppress();
        }
        Line {
            level: *event.level(),
            is_suppressed,
            maker: self,
        }
    }
}

impl io::Write for Line<'_> {
    /// Takes a whole event, as the formatter gives it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if !self.is_suppressed {
            let priority = self.maker.has_priority.then_some(self.level);
            let line = line(event, priority, self.maker.has_color);
            self.maker.sender.send(line.into());
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An event with a priority before each of its lines. Escape sequences are left where they may be our own colors: the
/// formatter escapes those of texts.
fn line(event: &[u8], priority: Option<Level>, has_color: bool) -> Vec<u8> {
    let text = String::from_utf8_lossy(event);
    let mut line = String::with_capacity(text.len() + 8);
    for (at, part) in text.split_inclusive('\n').enumerate() {
        if let Some(level) = priority {
            line.push_str(prefix(level));
        }
        // A text of others must not look like an event of its own.
        if at > 0 && !part.starts_with(' ') {
            line.push_str("    ");
        }
        for c in part.chars() {
            match c {
                '\n' | '\t' => line.push(c),
                '\x1b' if has_color => line.push(c),
                c if steers_terminal(c) => line.extend(c.escape_default()),
                c => line.push(c),
            }
        }
    }
    line.into_bytes()
}

/// Source: sd-daemon(3), `SD_ERR` and the others.
fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Whether standard error is journald's stream. Source: systemd.exec(5), `$JOURNAL_STREAM`.
pub(super) fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let Ok(stat) = rustix::fs::fstat(rustix::stdio::stderr()) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_priority() {
        let line = |level| line(b"one\n  two\n", Some(level), false);
        assert_eq!(line(Level::WARN), b"<4>one\n<4>  two\n");
        assert_eq!(super::line(b"a\nb\n", None, false), b"a\n    b\n");
        assert_eq!(line(Level::TRACE), b"<7>one\n<7>  two\n");
    }

    #[test]
    fn control_characters_are_escaped() {
        let event = "a\x1b[2Jb\x07\r\u{9b}c\n".as_bytes();
        let plain = String::from_utf8(line(event, None, false)).unwrap();
        assert_eq!(plain, "a\\u{1b}[2Jb\\u{7}\\r\\u{9b}c\n");
        let colored = String::from_utf8(line(event, None, true)).unwrap();
        assert_eq!(colored, "a\x1b[2Jb\\u{7}\\r\\u{9b}c\n");
    }

    #[test]
    fn lines_of_libraries_are_limited() {
        let (sender, _thread) = super::super::writer::start().unwrap();
        let maker = LineMaker::new(sender, false, false);
        let start = Instant::now();
        let admitted = |after| {
            (0..100)
                .filter(|_| maker.admits_foreign(start + after))
                .count()
        };
        assert_eq!(admitted(Duration::ZERO), 20);
        assert_eq!(admitted(INTERVAL / 2), 0);
        assert_eq!(admitted(INTERVAL), 20);
    }
}
