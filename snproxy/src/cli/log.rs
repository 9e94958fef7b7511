//! Where the log goes and how much of it.

use std::io;
use std::sync::{Arc, OnceLock};

use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use crate::conf::{Conf, LogFormat, LogLevel};
use crate::daemon::SetLogLevel;

/// Lines that wait for a slow reader; their places are made at the start (32 bytes each).
const MAX_WAITING: usize = 16_384;

/// The log, as whoever started it holds it.
pub(super) struct Log {
    background: Arc<OnceLock<NonBlocking>>,
    /// Sets the level anew after a reload.
    pub(super) set_level: SetLogLevel,
}

impl Log {
    /// From here on a thread of its own writes: a reader of the log that stalls must not stall connections.
    /// What it does not take is dropped after [`MAX_WAITING`] lines.
    ///
    /// Not before privileges are given up: threads keep theirs. The lines that wait are written when the result is
    /// dropped.
    pub(super) fn go_on_in_background(&self) -> WorkerGuard {
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(MAX_WAITING)
            .finish(io::stderr());
        let _ = self.background.set(writer);
        guard
    }
}

/// Where a line goes: straight to standard error, until it goes there in the background.
#[derive(Clone)]
struct Writer(Arc<OnceLock<NonBlocking>>);

impl<'a> fmt::MakeWriter<'a> for Writer {
    type Writer = Box<dyn io::Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match self.0.get() {
            Some(background) => Box::new(background.clone()),
            None => Box::new(io::stderr()),
        }
    }
}

/// Starts logging to standard error; what is `said`, else `LOG_LEVEL` of the environment, goes before LOGLEVEL of the file.
pub(super) fn init(conf: &Conf, said: Option<&str>) -> Log {
    start(conf.log_level, conf.log_format, said)
}

/// The same without a configuration.
pub(super) fn start(log_level: LogLevel, log_format: LogFormat, said: Option<&str>) -> Log {
    let fixed = match said {
        Some(said) => fixed("--loglevel ", said),
        None => from_environment(),
    };
    let (filter, handle) = reload::Layer::new(fixed.unwrap_or_else(|| level(log_level)));
    let background = Arc::new(OnceLock::new());
    let format = fmt::layer().with_writer(Writer(Arc::clone(&background)));
    let format = match log_format {
        LogFormat::Text => {
            let colour = io::IsTerminal::is_terminal(&io::stderr());
            format.with_ansi(colour).with_target(false).boxed()
        }
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
    Log {
        background,
        set_level: Box::new(set_level),
    }
}

/// The TLS library tells at debug what it does in each handshake.
fn is_ours(event: &Metadata<'_>) -> bool {
    let is_chatter = *event.level() >= Level::DEBUG && event.target().starts_with("rustls");
    !is_chatter
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

/// A level, also by the names that other loggers have; anything else is said and left.
fn fixed(place: &str, text: &str) -> Option<LevelFilter> {
    let level = match text.to_ascii_lowercase().as_str() {
        "" => return None,
        "warning" => Some(LevelFilter::WARN),
        "fatal" | "panic" => Some(LevelFilter::ERROR),
        level => level.parse().ok(),
    };
    if level.is_none() {
        eprintln!(
            "snproxy: {place}{text}: not a level (error, warn, info, debug, trace): not used"
        );
    }
    level
}
