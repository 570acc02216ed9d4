//! Names for a terminal.

/// A name as a terminal may show it. Names are the target's own: a control character of theirs
/// would move the cursor or change what stands above.
pub fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn no_control_character_is_left() {
        assert_eq!(printable("a\u{1b}[2J\nb\u{9b}é"), "a\u{fffd}[2J\u{fffd}b\u{fffd}é");
    }
}
