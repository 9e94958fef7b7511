//! Where the log goes and how much of it.

use std::io;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

use crate::conf::{Conf, LogFormat, LogLevel};
use crate::daemon::SetLogLevel;

/// Starts logging to standard error; `LOG_LEVEL` of the environment goes before LOGLEVEL of the file.
///
/// The result sets the level anew after a reload.
pub(super) fn init(conf: &Conf) -> SetLogLevel {
    let fixed = from_environment();
    let (filter, handle) = reload::Layer::new(fixed.unwrap_or_else(|| level(conf.log_level)));
    let format = fmt::layer().with_writer(io::stderr);
    let format = match conf.log_format {
        LogFormat::Text => {
            let colour = io::IsTerminal::is_terminal(&io::stderr());
            format.with_ansi(colour).with_target(false).boxed()
        }
        LogFormat::Json => format.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(format)
        .init();
    Box::new(move |conf| {
        // The handle fails only when the subscriber is gone, and it never goes.
        let _ = handle.reload(fixed.unwrap_or_else(|| level(conf.log_level)));
    })
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

/// `LOG_LEVEL=debug|info|warn|error`; anything else is said and left.
fn from_environment() -> Option<LevelFilter> {
    let text = std::env::var("LOG_LEVEL")
        .ok()
        .filter(|text| !text.is_empty())?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        eprintln!(
            "LOG_LEVEL={text}: not a level (error, warn, info, debug, trace); LOGLEVEL counts"
        );
    }
    parsed
}
