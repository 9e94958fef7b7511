//! Where the log goes and how much of it.

mod line;
mod writer;

use std::io;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use super::output::err;
use crate::conf::{self, Conf, LogFormat, LogLevel};
use crate::daemon::SetLogLevel;

use line::LineMaker;

pub(super) use writer::{LogThread, print_in_time};

/// The log, as whoever started it holds it.
pub(super) struct Log {
    /// Writes the lines: a reader of the log that stalls must stall neither the start nor connections.
    pub(super) thread: LogThread,
    /// Sets the level anew after a reload.
    pub(super) set_level: SetLogLevel,
}

/// Starts logging to standard error; what is `said`, else `LOG_LEVEL` of the environment, goes before LOGLEVEL of the file.
///
/// # Errors
///
/// The system has no thread left.
pub(super) fn init(conf: &Conf, said: Option<&str>) -> io::Result<Log> {
    start(conf.log_level, conf.log_format, said)
}

/// The same without a configuration.
///
/// # Errors
///
/// The system has no thread left.
pub(super) fn start(
    log_level: LogLevel,
    log_format: LogFormat,
    said: Option<&str>,
) -> io::Result<Log> {
    let fixed = match said {
        Some(said) => fixed("--loglevel ", said),
        None => from_environment(),
    };
    let (filter, handle) = reload::Layer::new(fixed.unwrap_or_else(|| level(log_level)));
    let is_terminal = io::IsTerminal::is_terminal(&io::stderr());
    let colour = log_format == LogFormat::Text && is_terminal && may_color();
    let (sender, thread) = writer::start()?;
    // journald takes the priority off the line: JSON stays JSON.
    let lines = LineMaker::new(sender, line::is_journal(), colour);
    let format = fmt::layer().with_writer(lines);
    let format = match log_format {
        LogFormat::Text => format.with_ansi(colour).with_target(false).boxed(),
        LogFormat::Json => format.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(filter_fn(is_ours))
        .with(format)
        .init();
    let set_level = move |conf: &Conf| {
        // The handle fails only when the subscriber is gone, and it never goes.
        let _ = handle.reload(fixed.unwrap_or_else(|| level(conf.log_level)));
    };
    Ok(Log {
        thread,
        set_level: Box::new(set_level),
    })
}

/// The TLS library tells at debug what it does in each handshake.
fn is_ours(event: &Metadata<'_>) -> bool {
    let is_chatter = *event.level() >= Level::DEBUG && event.target().starts_with("rustls");
    !is_chatter
}

/// Whether the environment allows colors: `NO_COLOR` (no-color.org) and TERM=dumb do not.
fn may_color() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !no_color && !is_dumb
}

fn level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// `LOG_LEVEL=debug|info|warn|error`.
fn from_environment() -> Option<LevelFilter> {
    let text = std::env::var("LOG_LEVEL").ok()?;
    fixed("LOG_LEVEL=", &text)
}

/// A level of the environment, which may be meant for other programs: one that is unknown is reported and left.
fn fixed(place: &str, text: &str) -> Option<LevelFilter> {
    match parse_level(text) {
        Ok(level) => level,
        Err(why) => {
            err!("snproxy: {place}{text}: {why}: not used");
            None
        }
    }
}

/// A level, also by the names that other loggers have; `None`: nothing is said.
///
/// # Errors
/// Returns what was expected.
fn parse_level(text: &str) -> Result<Option<LevelFilter>, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "" => None,
        "warning" => Some(LevelFilter::WARN),
        "fatal" | "panic" => Some(LevelFilter::ERROR),
        level => Some(level.parse().map_err(|_| {
            let levels = ["error", "warn", "info", "debug", "trace"];
            let near = conf::nearest(levels, level);
            let hint = near.map_or_else(String::new, |near| format!(": did you mean `{near}`?"));
            format!("not a level (error, warn, info, debug, trace){hint}")
        })?),
    })
}

/// A level on the command line.
///
/// # Errors
/// Returns what was expected.
pub(super) fn level_option(text: &str) -> Result<String, String> {
    parse_level(text).map(|_| text.to_owned())
}
