//! JSON whose every part knows its place in the file.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::conf::text::Field;
use crate::diag::Place;

/// A text, and how far into it places were counted.
pub(super) struct Document<'a> {
    /// Without the mark that editors put first.
    text: &'a str,
    /// Bytes before it.
    mark: usize,
    /// Places are asked for in the order of the file: counted from the last one, a file of one line is not quadratic.
    counted: Cell<Counted>,
}

#[derive(Clone, Copy)]
struct Counted {
    start: usize,
    line: u32,
    col: u32,
}

const BEGINNING: Counted = Counted {
    start: 0,
    line: 1,
    col: 1,
};

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let kept = text.trim_start_matches('\u{feff}');
        Self {
            mark: text.len() - kept.len(),
            text: kept,
            counted: Cell::new(BEGINNING),
        }
    }

    /// The document as one value; the syntax of all of it is checked.
    ///
    /// Errors: the first place at which it is no JSON, and what is wrong there.
    pub(super) fn whole(&'a self) -> Result<Value<'a>, (Place, String)> {
        match serde_json::from_str::<&RawValue>(self.text) {
            Ok(raw) => Ok(self.value(raw)),
            Err(error) => Err((self.place_of(&error), said(&error))),
        }
    }

    fn value(&'a self, raw: &'a RawValue) -> Value<'a> {
        // Every piece is borrowed from the text.
        let start = raw.get().as_ptr().addr() - self.text.as_ptr().addr();
        Value {
            document: self,
            raw,
            place: self.place(start, raw.get().len()),
        }
    }

    fn place(&self, start: usize, len: usize) -> Place {
        let mut counted = self.counted.get();
        if start < counted.start {
            counted = BEGINNING;
        }
        let between = self.text.get(counted.start..start).unwrap_or("");
        for c in between.chars() {
            (counted.line, counted.col) = match c {
                '\n' => (counted.line + 1, 1),
                _ => (counted.line, counted.col + 1),
            };
        }
        counted.start = start;
        self.counted.set(counted);
        Place {
            line: counted.line,
            col: counted.col,
            start: self.mark + start,
            end: self.mark + start + len,
        }
    }

    /// The character at which the parser stopped.
    fn place_of(&self, error: &serde_json::Error) -> Place {
        let before = error.line().saturating_sub(1);
        let newlines = self.text.match_indices('\n').map(|(at, _)| at + 1);
        let begin = before
            .checked_sub(1)
            .map_or(0, |nth| newlines.clone().nth(nth).unwrap_or(0));
        let mut at = (begin + error.column().saturating_sub(1)).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let len = self.text[at..].chars().next().map_or(0, char::len_utf8);
        self.place(at, len)
    }
}

/// The parser's words without its own idea of the place.
fn said(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let cut = said.rfind(" at line ").unwrap_or(said.len());
    format!("no JSON: {}", &said[..cut])
}

/// One value of the document.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    document: &'a Document<'a>,
    raw: &'a RawValue,
    pub(super) place: Place,
}

/// One field of an object.
pub(super) struct Member<'a> {
    pub(super) name: Text<'a>,
    pub(super) value: Value<'a>,
}

/// What a string says.
pub(super) struct Text<'a> {
    text: Cow<'a, str>,
    /// Without the quotes, where it has no escapes.
    pub(super) place: Place,
}

impl Text<'_> {
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// With its place; parts of it have places of their own.
    pub(super) fn field(&self) -> Field<'_> {
        Field {
            text: &self.text,
            place: self.place,
        }
    }
}

impl<'a> Value<'a> {
    /// As it stands in the file.
    pub(super) fn raw(&self) -> &'a str {
        self.raw.get()
    }

    pub(super) fn field(&self) -> Field<'a> {
        Field {
            text: self.raw(),
            place: self.place,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        self.raw() == "null"
    }

    /// What sort of value it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self.raw().bytes().next() {
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'"') => "a text",
            Some(b't' | b'f') => "true or false",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    /// `None`: no string, or one whose escapes make no text.
    pub(super) fn text(&self) -> Option<Text<'a>> {
        let inner = self.raw().strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') {
            let text = serde_json::from_str(self.raw()).ok()?;
            let (text, place) = (Cow::Owned(text), self.place);
            return Some(Text { text, place });
        }
        let place = Place {
            line: self.place.line,
            col: self.place.col + 1,
            start: self.place.start + 1,
            end: self.place.end - 1,
        };
        Some(Text {
            text: Cow::Borrowed(inner),
            place,
        })
    }

    /// The elements of a list, and how many there are; `None`: no list.
    pub(super) fn items(&self) -> Option<(usize, impl Iterator<Item = Value<'a>> + use<'a>)> {
        let items: Vec<&'a RawValue> = serde_json::from_str(self.raw()).ok()?;
        let document = self.document;
        Some((
            items.len(),
            items.into_iter().map(|raw| document.value(raw)),
        ))
    }

    /// The fields of an object, in the order of the file; `None`: no object.
    pub(super) fn members(&self) -> Option<impl Iterator<Item = Member<'a>> + use<'a>> {
        let Members(members) = serde_json::from_str(self.raw()).ok()?;
        let document = self.document;
        let member = |(name, value): (&'a RawValue, &'a RawValue)| {
            let name = document.value(name);
            // Names whose escapes make no text are shown, and known to nobody, as they stand.
            let as_written = || Text {
                text: Cow::Borrowed(name.raw()),
                place: name.place,
            };
            Member {
                name: name.text().unwrap_or_else(as_written),
                value: document.value(value),
            }
        };
        Some(members.into_iter().map(member))
    }
}

/// An object with its fields in order, also those that come twice.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
