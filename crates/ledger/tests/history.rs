//! Which layer is charged with what the counters show.

use plumb_ledger::watch::{Counter, History, Line, Observation};

const MB: f64 = 1e6;

/// A process whose anonymous memory grows by 1 MB/s. `layers` at the times of full samples.
fn watch(seconds: u32, layers: impl Fn(u32) -> Vec<(&'static str, f64)>) -> Line {
    let mut history = History::new(7);
    for time in 0..=seconds {
        let rss = 100.0 * MB + MB * f64::from(time);
        let layers = layers(time);
        history.observe(
            f64::from(time),
            &Observation {
                rss,
                counters: [(Counter::Anonymous, rss)].into(),
                sampled: !layers.is_empty(),
                layers: layers.into_iter().map(|(name, b)| (name.to_owned(), b * MB)).collect(),
                collected: false,
            },
        );
    }
    history.line(|| None, false)
}

fn leaks(line: &Line, name: &str) -> Option<bool> {
    line.layers.iter().find(|row| row.layer == name).expect("a row").leak
}

#[test]
fn a_layer_that_hardly_grew_is_not_charged_with_what_was_not_seen() {
    let line = watch(80, |time| match time {
        0 => vec![("heap_in_use", 90.0), ("heap_retained", 6.0), ("python_in_use", 4.0)],
        // The heap could not be split.
        12 => vec![("heap", 107.96), ("python_in_use", 4.04)],
        _ => Vec::new(),
    });
    assert_eq!(leaks(&line, "python_in_use"), Some(false), "{line:?}");
    assert_eq!(leaks(&line, "heap_in_use"), None, "{line:?}");
    assert_eq!((line.verdict.leak, line.verdict.layer.as_deref()), (None, None), "{line:?}");
}

#[test]
fn a_layer_that_was_looked_at_three_times_is_charged_with_its_share() {
    let line = watch(80, |time| match time {
        0 | 30 | 60 => vec![("heap_in_use", 90.0 + f64::from(time)), ("python_in_use", 10.0)],
        _ => Vec::new(),
    });
    assert_eq!(leaks(&line, "heap_in_use"), Some(true), "{line:?}");
    assert_eq!(line.verdict.layer.as_deref(), Some("heap_in_use"));
    assert!((line.verdict.bytes_per_s.expect("a rate") / MB - 1.0).abs() < 0.05, "{line:?}");
}
