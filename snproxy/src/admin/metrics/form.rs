//! The form of the page of metrics: `OpenMetrics`, or the text format of Prometheus.

use std::collections::HashSet;

/// `OpenMetrics` 1.0, as the encoder writes it.
pub(in crate::admin) const OPEN_METRICS: &str =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Source: Prometheus, `docs/instrumenting/exposition_formats.md`.
pub(in crate::admin) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The media type for a caller that sends `accept`: `OpenMetrics` only where it is named, as it is in Prometheus'
/// requests.
///
/// Source: RFC 9110, section 12.5.1.
pub(in crate::admin) fn media_type<'a>(accept: impl Iterator<Item = &'a str>) -> &'static str {
    let (mut open, mut text) = (0, 0);
    for item in accept.flat_map(|accept| accept.split(',')) {
        let mut parts = item.split(';').map(str::trim);
        let media = parts.next().unwrap_or("").to_ascii_lowercase();
        let (mut quality, mut is_known) = (1000, true);
        for parameter in parts {
            match parameter.split_once('=') {
                Some((q, value)) if q.eq_ignore_ascii_case("q") => quality = thousandths(value),
                Some((version, value)) if version.eq_ignore_ascii_case("version") => {
                    is_known = matches!(value.trim_matches('"'), "1.0.0" | "0.0.1");
                }
                _ => {}
            }
        }
        match &*media {
            "application/openmetrics-text" if is_known => open = open.max(quality),
            "text/plain" | "text/*" | "*/*" => text = text.max(quality),
            _ => {}
        }
    }
    if open > 0 && open >= text {
        OPEN_METRICS
    } else {
        TEXT
    }
}

/// A quality of 0 to 1; 0 for what is not one.
fn thousandths(value: &str) -> u32 {
    let value = value.trim().parse::<f32>().unwrap_or(0.0);
    let clamped = (value * 1000.0).clamp(0.0, 1000.0);
    // Not negative, and at most 1000.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped"
    )]
    let thousandths = clamped as u32;
    thousandths
}

/// An `OpenMetrics` page in the text format, in which the family of a counter has the name of its series.
pub(in crate::admin) fn to_text(page: &str) -> String {
    let counters: HashSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(page.len() + 1024);
    for line in page.lines() {
        let head = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|head| Some((head, line.strip_prefix(head)?.split_once(' ')?)));
        match head {
            Some((head, (name, rest))) if counters.contains(name) => {
                text.extend([head, name, "_total ", rest, "\n"]);
            }
            _ => text.extend([line, "\n"]),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(accept: &[&str], expected: &str) {
        assert_eq!(media_type(accept.iter().copied()), expected, "{accept:?}");
    }

    #[test]
    fn caller_gets_the_form_that_it_prefers() {
        // Prometheus 2.53 and 3.
        check(
            &[
                "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            ],
            OPEN_METRICS,
        );
        check(
            &[
                "text/plain;version=0.0.4;q=0.5",
                "application/openmetrics-text;q=0.4",
            ],
            TEXT,
        );
        check(&["application/openmetrics-text"], OPEN_METRICS);
        check(&["application/openmetrics-text;q=0, */*"], TEXT);
        check(&["application/openmetrics-text;version=2.0.0"], TEXT);
        for accept in [
            "*/*",
            "text/html,*/*;q=0.8",
            "",
            "application/json",
            ";;,q=",
            "*/*;q=x",
        ] {
            check(&[accept], TEXT);
        }
        check(&[], TEXT);
    }

    #[test]
    fn counters_are_named_as_their_series() {
        let page = "# HELP a_x Things\n# TYPE a_x counter\na_x_total{l=\"1\"} 2\n\
                    # HELP a_y More\n# TYPE a_y gauge\na_y 1\n# EOF\n";
        let expected = "# HELP a_x_total Things\n# TYPE a_x_total counter\na_x_total{l=\"1\"} 2\n\
                        # HELP a_y More\n# TYPE a_y gauge\na_y 1\n# EOF\n";
        assert_eq!(to_text(page), expected);
    }
}
