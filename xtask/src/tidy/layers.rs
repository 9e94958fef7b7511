//! The layers of snproxy: the compiler allows cycles within a crate, this does not.

/// Modules of `snproxy/src`, lowest layer first. A module may use itself and lower layers, never a neighbour.
const LAYERS: &[&[&str]] = &[
    &["addr", "diag"],
    &["wire", "conf", "sys"],
    &["route"],
    &["steering", "net", "pump", "discovery"],
    &["flow"],
    &["admin"],
    &["daemon"],
    &["proxy"],
    &["cli"],
];

/// Uses that the layers do not allow, as (line, message). `code` has no comments and no string contents.
pub(super) fn findings(path: &str, code: &str) -> Vec<(usize, String)> {
    let Some(module) = module(path) else {
        return Vec::new();
    };
    if layer(module).is_none() {
        return vec![(
            1,
            format!("module {module} has no layer: give it one in xtask/src/tidy/layers.rs"),
        )];
    }
    let refused = uses(code)
        .into_iter()
        .filter(|(_, used)| !may_use(module, used));
    refused
        .map(|(line, used)| {
            (
                line,
                format!("{module} may not use {used}: it is no lower layer"),
            )
        })
        .collect()
}

fn may_use(module: &str, used: &str) -> bool {
    match (layer(module), layer(used)) {
        (Some(from), Some(to)) => module == used || to < from,
        _ => false,
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// The top module that a file of snproxy belongs to; `lib.rs` and `main.rs` stand above all.
fn module(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("snproxy/src/")?;
    let module = inside.split_once('/').map_or(inside, |(folder, _)| folder);
    let module = module.strip_suffix(".rs").unwrap_or(module);
    (!["lib", "main"].contains(&module)).then_some(module)
}

/// The modules named right after each `crate::`, also inside braces, with their lines.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut uses = Vec::new();
    for (at, found) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        // `$crate::` is ours as well; `xcrate::` is another word.
        if before.is_some_and(|before| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let start = at + found.len();
        let mut note = |at: usize| {
            let name: String = code[at..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            // `self`, or an item of lib.rs itself, which has none but modules.
            if !name.is_empty() && name != "self" {
                uses.push((code[..at].matches('\n').count() + 1, name));
            }
        };
        let rest = &code[start..];
        let Some(group) = rest.trim_start().strip_prefix('{') else {
            note(start + rest.len() - rest.trim_start().len());
            continue;
        };
        let group_at = code.len() - group.len();
        let mut depth = 0;
        let mut expects_name = true;
        for (offset, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                c if c.is_whitespace() => {}
                _ if expects_name && depth == 0 => {
                    note(group_at + offset);
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_stands_in_one_layer() {
        let mut all = LAYERS.concat();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn paths_are_read_wherever_they_stand() {
        let code = "use crate::{\n  wire::{self, x::{Y, Z}},\n  addr,\n};\nfn f(a: crate::net::A) { $crate::pump::b(); xcrate::no::c() }\n";
        let expected = [(2, "wire"), (3, "addr"), (5, "net"), (5, "pump")];
        assert_eq!(
            uses(code),
            expected.map(|(line, name)| (line, name.to_owned()))
        );
    }
}
