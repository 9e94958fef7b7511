//! Figures as they stand in tables.

use crate::results::Spread;
use snproxy_pages::table::number;

/// `median [least–greatest]`.
pub(super) fn spread(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{} [{}–{}]", number(median), number(min), number(max))
}

/// The same of a ratio: always two digits, or 0.95 to 1.05 would not be told apart.
pub(super) fn ratio(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{median:.2} [{min:.2}–{max:.2}]")
}

/// The same, or nothing.
pub(super) fn or_none(figure: Option<Spread>, show: impl Fn(Spread) -> String) -> String {
    figure.map(show).unwrap_or_default()
}
