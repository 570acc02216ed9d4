//! The environment that Hugging Face gives to templates.

use super::python;
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat::unknown_method_callback;
use regex::{Captures, Regex};

/// Instructions that one rendering may take: a thousand messages take some 10,000, a template that
/// runs away is stopped within a second.
const FUEL: u64 = 10_000_000;

/// What a template said to `raise_exception`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Raised(pub String);

pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(unknown_method_callback);
    environment.set_formatter(python::print);
    environment.add_filter("tojson", python::to_json);
    environment.add_filter("string", |value: minijinja::Value| python::string(&value));
    environment.add_function("raise_exception", raise_exception);
    environment
        .add_function("strftime_now", |format: String| strftime(&jiff::Zoned::now(), &format));
    environment
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

fn strftime(now: &jiff::Zoned, format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, now)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, error.to_string()))
}

/// `{% generation %}` marks what a model is trained on: to a reader it is a block that does nothing.
pub(super) fn adapt(source: &str) -> String {
    let tag = Regex::new(r"(\{%[-+]?)\s*(end)?generation\s*([-+]?%\})");
    let Ok(tag) = tag else { return source.to_owned() };
    let no_op = |found: &Captures<'_>| {
        let word = if found.get(2).is_some() { "endif" } else { "if true" };
        format!("{} {word} {}", &found[1], &found[3])
    };
    tag.replace_all(source, no_op).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_python_writes_them() {
        let now = jiff::civil::date(2024, 7, 6).at(5, 4, 3, 0);
        let now = now.to_zoned(jiff::tz::TimeZone::UTC).unwrap();
        assert_eq!(strftime(&now, "%d %b %Y").unwrap(), "06 Jul 2024");
        assert_eq!(
            strftime(&now, "%Y-%m-%d %H:%M:%S %A %B %j").unwrap(),
            "2024-07-06 05:04:03 Saturday July 188"
        );
        assert!(strftime(&now, "%!").is_err(), "an unknown directive is an error, not a panic");
    }

    #[test]
    fn generation_blocks_do_nothing() {
        let adapted = adapt("a{%- generation -%} b {% endgeneration %}c");
        assert_eq!(adapted, "a{%- if true -%} b {% endif %}c");
    }
}
