//! `snproxy reload`.

use hyper::Method;

use crate::admin::api::Reload;
use crate::discovery::Root;

use super::output::out;
use super::{BAD_CONFIGURATION, DONE, FAILED, client};

pub(super) fn reload(root: &Root, json: bool) -> anyhow::Result<u8> {
    let answer = client::ask(root, &Method::POST, "/reload")?;
    let reload: Reload = client::parse(&answer)?;
    if json {
        out!("{}", String::from_utf8_lossy(&answer));
    } else {
        for found in &reload.diagnostics {
            out!("{found}");
        }
        let verdict = if reload.ok {
            "in force"
        } else {
            "still in force: the files were not used"
        };
        out!("generation {} {verdict}", reload.generation);
    }
    Ok(match (reload.ok, reload.waiting) {
        (true, _) => DONE,
        (false, true) => FAILED,
        (false, false) => BAD_CONFIGURATION,
    })
}
