//! Stop strings: found as text arrives, and never shown in part.

/// Watches one answer's text for the strings that end it.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<String>,
    keep: bool,
    /// Text that may be the start of a stop string.
    held: String,
}

/// What a piece of text led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// Text that may be shown now.
    pub text: String,
    /// The stop string that ended the answer, by its place in the list.
    pub stopped_by: Option<usize>,
}

impl StopMatcher {
    /// `keep`: whether the stop string itself stays in the text. Empty strings are ignored.
    #[must_use]
    pub fn new(stops: Vec<String>, keep: bool) -> Self {
        Self { stops, keep, held: String::new() }
    }

    /// Takes new text, lets through what cannot become a stop string any more.
    pub fn push(&mut self, text: &str) -> Passed {
        self.held.push_str(text);
        let Some((at, which)) = self.find() else {
            let tail = self.possible_start();
            let text = self.held.drain(..self.held.len() - tail).collect();
            return Passed { text, stopped_by: None };
        };
        let end = if self.keep { at + self.stops[which].len() } else { at };
        self.held.truncate(end);
        Passed { text: std::mem::take(&mut self.held), stopped_by: Some(which) }
    }

    /// The answer ended otherwise: what was held back is text after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The match that ends first; of those that end together, the longest.
    fn find(&self) -> Option<(usize, usize)> {
        let found = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        found
            .filter_map(|(which, stop)| Some((self.held.find(stop.as_str())?, which)))
            .min_by_key(|&(at, which)| (at + self.stops[which].len(), at))
    }

    /// Bytes at the end that are the start of some stop string.
    fn possible_start(&self) -> usize {
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        (from..self.held.len())
            .filter(|&at| self.held.is_char_boundary(at))
            .find(|&at| self.stops.iter().any(|stop| stop.starts_with(&self.held[at..])))
            .map_or(0, |at| self.held.len() - at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds pieces; gives the shown text and which stop ended it.
    fn run(stops: &[&str], keep: bool, pieces: &[&str]) -> (String, Option<usize>) {
        let mut matcher = StopMatcher::new(stops.iter().map(ToString::to_string).collect(), keep);
        let mut shown = String::new();
        for piece in pieces {
            let passed = matcher.push(piece);
            shown.push_str(&passed.text);
            if passed.stopped_by.is_some() {
                return (shown, passed.stopped_by);
            }
        }
        shown.push_str(&matcher.finish());
        (shown, None)
    }

    #[test]
    fn a_stop_string_across_pieces_is_never_shown() {
        assert_eq!(run(&["END"], false, &["a E", "N", "D b"]), ("a ".into(), Some(0)));
        assert_eq!(run(&["END"], true, &["a E", "N", "D b"]), ("a END".into(), Some(0)));
        assert_eq!(run(&["END"], false, &["a E", "N", "d"]), ("a ENd".into(), None));
    }

    #[test]
    fn the_one_that_ends_first_wins() {
        assert_eq!(run(&["bcd", "bc"], false, &["abcd"]), ("a".into(), Some(1)));
        assert_eq!(run(&["c", "abc"], false, &["abc"]), (String::new(), Some(1)));
    }

    #[test]
    fn text_that_cannot_stop_is_shown_at_once() {
        let mut matcher = StopMatcher::new(vec!["\n\n".into()], false);
        assert_eq!(matcher.push("line").text, "line");
        assert_eq!(matcher.push("\n").text, "");
        assert_eq!(matcher.push("next").text, "\nnext");
    }

    #[test]
    fn holds_whole_characters() {
        let mut matcher = StopMatcher::new(vec!["é!".into()], false);
        assert_eq!(matcher.push("caf").text, "caf");
        assert_eq!(matcher.push("é").text, "");
        assert_eq!(matcher.push("s").text, "és");
    }

    #[test]
    fn empty_stops_do_not_stop() {
        assert_eq!(run(&[""], false, &["a", "b"]), ("ab".into(), None));
    }

    proptest! {
        /// However the text is cut, the outcome is that of the whole.
        #[test]
        fn cutting_changes_nothing(
            text in "[abé]{0,24}",
            cuts in prop::collection::vec(0usize..25, 0..6),
            stops in prop::collection::vec("[abé]{1,4}", 0..3),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let singles: Vec<String> = text.chars().map(String::from).collect();
            let by_char: Vec<&str> = singles.iter().map(String::as_str).collect();
            let mut ends: Vec<usize> =
                cuts.into_iter().filter(|&c| text.is_char_boundary(c)).collect();
            ends.push(text.len());
            ends.sort_unstable();
            let mut from = 0;
            let mut pieces = Vec::new();
            for end in ends {
                pieces.push(&text[from..end]);
                from = end;
            }
            prop_assert_eq!(run(&stops, false, &pieces), run(&stops, false, &by_char));
        }
    }
}
