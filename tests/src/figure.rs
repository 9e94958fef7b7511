use std::{
    env, fmt,
    fs::OpenOptions,
    io::{self, Write},
    time::Duration,
};

/// How far a figure may be over its limit before the scenario fails: test machines are noisy and shared.
const SLACK: u32 = 10;

/// A measured value; both sides of [`print_figure`] are of one kind.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub enum Figure {
    Time(Duration),
    Bytes(u64),
    Count(u64),
}

impl Figure {
    fn times(self, factor: u32) -> Self {
        match self {
            Self::Time(time) => Self::Time(time * factor),
            Self::Bytes(bytes) => Self::Bytes(bytes * u64::from(factor)),
            Self::Count(count) => Self::Count(count * u64::from(factor)),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Time(time) => write!(out, "{time:.1?}"),
            Self::Bytes(bytes) if bytes >= 10 << 20 => write!(out, "{} MiB", bytes >> 20),
            Self::Bytes(bytes) if bytes >= 10 << 10 => write!(out, "{} KiB", bytes >> 10),
            Self::Bytes(bytes) => write!(out, "{bytes} bytes"),
            Self::Count(count) => write!(out, "{count}"),
        }
    }
}

/// Prints a figure beside the limit it should keep, and fails only past ten times the limit.
///
/// The line is seen also when the test passes, and is kept in the file that `SNPROXY_FIGURES` names, from which
/// `cargo xtask test` repeats it at the end.
#[track_caller]
pub fn print_figure(name: &str, value: Figure, limit: Figure) {
    let verdict = if value <= limit { "" } else { "  OVER" };
    let line = format!("{name}: {value} (limit {limit}){verdict}\n");
    // Not eprintln!: the harness would keep it back.
    let _ = io::stderr().write_all(format!("figure: {line}").as_bytes());
    if let Some(path) = env::var_os("SNPROXY_FIGURES") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("the file that SNPROXY_FIGURES names");
    }
    assert!(
        value <= limit.times(SLACK),
        "{name}: {value} is more than {SLACK} times {limit}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        let cases = [
            (Figure::Time(Duration::from_micros(1500)), "1.5ms"),
            (Figure::Bytes(9000), "9000 bytes"),
            (Figure::Bytes(16 << 20), "16 MiB"),
            (Figure::Count(7), "7"),
        ];
        for (figure, text) in cases {
            assert_eq!(figure.to_string(), text);
        }
    }
}
