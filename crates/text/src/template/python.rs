//! How Python prints what a template prints: `None`, `True`, `['a']`, and JSON with spaces.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, State, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::fmt::Write as _;
use std::io::{self, Write};

/// `{{ value }}`.
pub(super) fn print(out: &mut Output<'_>, _: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    out.write_str(&string(value)).map_err(Error::from)
}

/// `str(value)`.
pub(super) fn string(value: &Value) -> String {
    match value.kind() {
        ValueKind::Undefined => String::new(),
        ValueKind::String => value.to_string(),
        _ => {
            let mut out = String::new();
            repr(&mut out, value);
            out
        }
    }
}

/// `repr(value)`: strings in quotes, containers by their elements.
fn repr(out: &mut String, value: &Value) {
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::String => quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            let items = value.try_iter().into_iter().flatten();
            enclosed(out, "[]", items, repr);
        }
        ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            enclosed(out, "{}", keys, |out, key| {
                repr(out, key);
                out.push_str(": ");
                repr(out, &value.get_item(key).unwrap_or_default());
            });
        }
        _ => out.push_str(&value.to_string()),
    }
}

fn enclosed(
    out: &mut String,
    brackets: &str,
    items: impl Iterator<Item = Value>,
    mut each: impl FnMut(&mut String, &Value),
) {
    out.push_str(&brackets[..1]);
    for (i, item) in items.enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        each(out, &item);
    }
    out.push_str(&brackets[1..]);
}

/// Single quotes unless only they are in it.
fn quoted(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// Hugging Face's `tojson`: `json.dumps(value, ensure_ascii=False, indent=…, sort_keys=…)`.
pub(super) fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let failed = |error: serde_json::Error| {
        Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}"))
    };
    let indent: Option<usize> = kwargs.get("indent")?;
    let sort_keys: Option<bool> = kwargs.get("sort_keys")?;
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    let mut json = serde_json::to_value(value).map_err(failed)?;
    if sort_keys == Some(true) {
        json.sort_all_objects();
    }
    let mut out = Vec::new();
    match indent {
        None => json.serialize(&mut Serializer::with_formatter(&mut out, OneLine)),
        Some(width) => {
            let indent = vec![b' '; width.min(16)];
            let formatter = PrettyFormatter::with_indent(&indent);
            json.serialize(&mut Serializer::with_formatter(&mut out, formatter))
        }
    }
    .map_err(failed)?;
    let text = String::from_utf8(out);
    text.map(Value::from).map_err(|e| Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// Python's separators: `, ` and `: `.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}
