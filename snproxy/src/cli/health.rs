//! Health of an upstream, in words.

use crate::admin::api::Health;

/// `up`, or `down for 3.1 s, connect 127.0.0.1:30000: Connection refused (os error 111) 1.1 s ago, checked in 0.9 s`.
pub(super) fn text(up: bool, health: &Health) -> String {
    let state = if up { "up" } else { "down" };
    let since = health.since_ms.map_or_else(
        || state.to_owned(),
        |since| format!("{state} for {:.1} s", seconds(since)),
    );
    let last = health.last.as_ref().zip(health.last_ms);
    let last = last.map(|(last, ago)| format!("{last} {:.1} s ago", seconds(ago)));
    let next = health.next_check_ms;
    let next = next.map(|next| format!("checked in {:.1} s", seconds(next)));
    let parts: Vec<_> = [Some(since), last, next].into_iter().flatten().collect();
    parts.join(", ")
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(super) fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}
