//! Just enough of a lexer to tell code from what is written about it.

/// The text with comments gone and string and character contents blanked; lines stay where they are.
pub(super) fn without_text(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let after_word = code.ends_with(|last: char| last.is_alphanumeric() || last == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if c == '"' {
            quoted(rest, '"')
        } else if let Some(length) = raw_string(rest).filter(|_| !after_word) {
            length
        } else if c == '\'' {
            character(rest)
        } else {
            0
        };
        let (text, tail) = rest.split_at(if skipped == 0 { c.len_utf8() } else { skipped });
        if skipped == 0 {
            code.push_str(text);
        } else {
            code.push(' ');
            code.extend(text.chars().filter(|c| *c == '\n'));
        }
        rest = tail;
    }
    code
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// `r"…"`, `r#"…"#`, `br#"…"#`.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix("br").or_else(|| text.strip_prefix('r'))?;
    let inside = body.trim_start_matches('#');
    let hashes = &body[..body.len() - inside.len()];
    let inside = inside.strip_prefix('"')?;
    let end = format!("\"{hashes}");
    let start = text.len() - inside.len();
    Some(
        inside
            .find(&end)
            .map_or(text.len(), |at| start + at + end.len()),
    )
}

/// A character; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text, '\''),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_stays() {
        let cases = [
            ("a // unsafe\nb", "a  \nb"),
            ("a /* x /* y */\n z */ b", "a  \n b"),
            (r#"f("un\"safe") g"#, "f( ) g"),
            ("r#\"a \" b\"# c", "  c"),
            ("var\"x\"", "var "),
            ("'a' '\\'' &'a str", "    &'a str"),
            ("b'\"' x", "b  x"),
            ("\"two\nlines\"", " \n"),
        ];
        for (text, code) in cases {
            assert_eq!(without_text(text).trim(), code.trim(), "{text}");
        }
    }
}
