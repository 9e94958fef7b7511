//! `"Srv"` of an app.

use super::Reader;
use crate::conf::SendProxy;
use crate::conf::apps::fields::{Fields, Known, OF_SRV};
use crate::conf::apps::json::Value;
use crate::conf::apps::srv::{MAX_KEY, Srv};

impl Reader<'_, '_> {
    /// A service: its key, or an object with more of it.
    pub(super) fn srv(&mut self, value: Value<'_>) -> Option<Srv> {
        let place = value.place;
        if value.text().is_some() {
            return self.key(&value);
        }
        let members = self.object(value, "a service: its key in etcd, or an object with `Key`")?;
        let mut fields = Fields::new(OF_SRV, "a service");
        let mut srv = None;
        let mut max_conn = Some(u32::MAX);
        let mut send_proxy = Some(SendProxy::No);
        for member in members {
            match fields.known(&member, self.findings) {
                Some(Known::Key) => srv = self.key(&member.value),
                Some(Known::MaxConn) => max_conn = self.number(member.value, u32::MAX, "limit"),
                Some(Known::SendProxy) => send_proxy = self.send_proxy(member.value),
                _ => {}
            }
        }
        if !fields.has(Known::Key) {
            self.findings.error(place, "the service has no `Key`");
        }
        Some(Srv {
            max_conn: max_conn?,
            send_proxy: send_proxy?,
            ..srv?
        })
    }

    fn key(&mut self, value: &Value<'_>) -> Option<Srv> {
        let text = value.text();
        let key = text.as_ref().map(|text| text.text().trim_end_matches('/'));
        let is_key =
            |key: &&str| !key.is_empty() && key.len() <= MAX_KEY && !key.contains(char::is_control);
        let Some(key) = key.filter(is_key) else {
            let expected = "expected the key of a service in etcd, such as \"/srv/redis\"";
            let message = format_args!("{expected}, found {}", value.field());
            self.findings.error(value.place, message);
            return None;
        };
        Some(Srv {
            key: key.into(),
            max_conn: u32::MAX,
            send_proxy: SendProxy::No,
            line: value.place.line,
            col: value.place.col,
        })
    }
}
