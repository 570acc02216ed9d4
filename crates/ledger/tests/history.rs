//! Which layer is charged with what the counters show.

use std::collections::BTreeMap;

use plumb_ledger::verdict::Kind;
use plumb_ledger::watch::{Counter, History, JavaLine, Line, Observation, Replay};

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
                ..Observation::default()
            },
        );
    }
    history.line(|| None, false)
}

fn leaks(line: &Line, name: &str) -> Option<bool> {
    line.layers.iter().find(|row| row.layer == name).expect("a row").leak
}

#[test]
fn a_leak_under_teeth_whose_lows_are_one_look_of_three_is_found() {
    let line = watched(95, |time| {
        let tooth = if (time as u32).is_multiple_of(3) { 0.0 } else { 40.0 };
        let rss = (5.0 + 0.5 * time + tooth) * MB;
        Observation {
            rss,
            counters: [(Counter::Anonymous, rss)].into(),
            sampled: true,
            layers: [("heap_in_use".to_owned(), rss)].into(),
            ..Observation::default()
        }
    });
    assert_eq!(leaks(&line, "heap_in_use"), Some(true), "{line:?}");
    assert!((line.verdict.bytes_per_s.expect("a rate") / MB - 0.5).abs() < 0.05, "{line:?}");
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

#[test]
fn a_layer_that_falls_back_between_rare_looks_is_not_charged_with_what_was_kept_of_it() {
    let heights = [2.0, 9.0, 1.0, 14.0, 3.0, 12.0, 4.0, 18.0, 3.0, 22.0];
    let line = watch(72, |time| match time % 8 {
        0 => {
            let live = heights[(time / 8) as usize % heights.len()];
            vec![("heap_in_use", live), ("heap_retained", 100.0 + f64::from(time) - live)]
        }
        _ => Vec::new(),
    });
    assert_eq!(leaks(&line, "heap_in_use"), None, "{line:?}");
}

/// A process whose shared memory grows by 1 MB/s within what it may come to.
fn watch_shared(bound: impl Fn(f64) -> f64) -> Line {
    watched(80, |time| {
        let rss = 20.0 * MB + MB * time;
        Observation {
            rss,
            counters: [(Counter::Shared, rss)].into(),
            sampled: true,
            layers: [("shared".to_owned(), rss)].into(),
            shared_bound: Some(bound(time) * MB),
            ..Observation::default()
        }
    })
}

/// The last line of a watch that saw this, every second.
fn watched(seconds: u32, look: impl Fn(f64) -> Observation) -> Line {
    let mut history = History::new(7);
    for time in (0..=seconds).map(f64::from) {
        history.observe(time, &look(time));
    }
    history.line(|| None, false)
}

#[test]
fn touching_what_was_mapped_before_is_no_leak_of_shared_memory() {
    let line = watch_shared(|_| 256.0);
    assert_eq!((leaks(&line, "shared"), line.verdict.leak), (Some(false), Some(false)), "{line:?}");
    let line = watch_shared(|time| 256.0 + time);
    assert_eq!((leaks(&line, "shared"), line.verdict.leak), (Some(true), Some(true)), "{line:?}");
}

fn java(old: f64, old_collections: u64, capacity: f64) -> JavaLine {
    let [old_bytes, capacity_bytes] = [old, capacity].map(|mb| (mb * MB) as u64);
    JavaLine { old_bytes, old_collections, capacity_bytes }
}

/// A JVM whose resident memory and old generation do this, in MB, and were collected so often; with room
/// for so much.
fn watch_jvm(
    seconds: u32,
    capacity: f64,
    rss: impl Fn(f64) -> f64,
    old: impl Fn(f64) -> (f64, u64),
) -> Line {
    watched(seconds, |time| {
        let (rss, (used, collections)) = (rss(time) * MB, old(time));
        Observation {
            rss,
            counters: [(Counter::Anonymous, rss)].into(),
            sampled: true,
            layers: [("anonymous".to_owned(), rss)].into(),
            java_heap: Some(java(used, collections, capacity)),
            collected: true,
            ..Observation::default()
        }
    })
}

#[test]
fn a_jvm_that_leaks_into_memory_it_took_before_is_found_through_its_collections() {
    let leaking = |time: f64| (50.0 + 2.0 * (time / 4.0).floor() * 4.0, (time / 30.0) as u64);
    let line = watch_jvm(120, 900.0, |_| 900.0, leaking);
    assert_eq!(line.verdict.leak, Some(true), "{line:?}");
    assert_eq!(line.verdict.layer.as_deref(), Some("anonymous"));
    assert!(line.verdict.why.contains("3 collections") || line.verdict.why.contains("4 coll"));
}

#[test]
fn what_a_collector_frees_beside_its_heap_is_watched_as_long_as_its_heap() {
    for (seconds, leak) in [(80, None), (100, Some(true))] {
        let line = watched(seconds, |time| {
            let rss = 50.0 * MB + MB * time;
            Observation {
                rss,
                counters: [(Counter::Anonymous, rss)].into(),
                sampled: true,
                layers: [("heap_in_use".to_owned(), rss)].into(),
                collected: true,
                ..Observation::default()
            }
        });
        assert_eq!(leaks(&line, "heap_in_use"), leak, "{line:?}");
    }
}

#[test]
fn what_a_jvm_still_holds_after_each_of_three_collections_tells_a_leak_from_a_cache() {
    // Between collections garbage piles up; the cache is full after 60 s.
    for (full, leak) in [(1e9, Some(true)), (60.0, Some(false))] {
        let old = |time: f64| {
            let collections = (time / 30.0).floor();
            let garbage = 2.0 * (time - 30.0 * collections);
            (20.0 + 1.5 * (30.0 * collections).min(full) + garbage, collections as u64)
        };
        let line = watch_jvm(130, 900.0, |_| 900.0, old);
        assert_eq!(line.verdict.leak, leak, "{line:?}");
    }
}

#[test]
fn a_jvm_that_has_not_collected_its_old_generation_yet_is_not_judged() {
    let filling = |time: f64| (50.0 + 2.0 * time, 0);
    let line = watch_jvm(150, 600.0, |time| 300.0 + 2.0 * time, filling);
    assert_eq!(line.verdict.leak, None, "{line:?}");
    assert!(line.verdict.why.contains("has not collected"), "{line:?}");
    // Nor is what piles up in memory that it took long ago.
    let line =
        watch_jvm(150, 900.0, |_| 900.0, |time| (50.0 + 2.0 * time, u64::from(time > 100.0)));
    assert_eq!(line.verdict.leak, None, "{line:?}");
    assert!(line.verdict.why.contains("old generation rose"), "{line:?}");
    // And one whose collections free what had piled up does not leak.
    let sawtooth = |time: f64| (50.0 + 2.0 * (time % 40.0), (time / 40.0) as u64);
    let line = watch_jvm(150, 900.0, |_| 900.0, sawtooth);
    assert_eq!(line.verdict.leak, Some(false), "{line:?}");
    // It may be taking what it has set aside; what is more than that is no heap.
    for (capacity, leak) in [(550.0, None), (250.0, Some(true))] {
        let line = watch_jvm(150, capacity, |time| 300.0 + 2.0 * time, |_| (50.0, 0));
        assert_eq!(line.verdict.leak, leak, "{line:?}");
    }
}

/// Grows by 1 MB/s of the time in which it does not wait for a processor: for ever less of a second, from
/// the start on; or decays by itself, waiting as little as any.
fn starving(waits: bool) -> Line {
    let waited = |time: f64| 0.8 * (time - 50.0 * (1.0 - (-time / 50.0).exp()));
    watched(120, |time| {
        let rss = 50.0 * MB + MB * (time - waited(time));
        Observation {
            rss,
            counters: [(Counter::Anonymous, rss)].into(),
            sampled: true,
            layers: [("anonymous".to_owned(), rss)].into(),
            scheduled_s: [0.0, 3.0 + if waits { waited(time) } else { 0.01 * time }],
            ..Observation::default()
        }
    })
}

#[test]
fn a_leak_that_slows_down_because_its_program_is_starved_is_one() {
    let line = starving(true);
    assert_eq!(
        (leaks(&line, "anonymous"), line.verdict.leak),
        (Some(true), Some(true)),
        "{line:?}"
    );
    let rate = line.verdict.bytes_per_s.expect("a rate") / MB;
    assert!((0.2..0.6).contains(&rate), "as it grows by the clock: {line:?}");
    let line = starving(false);
    assert_eq!(
        (leaks(&line, "anonymous"), line.verdict.leak),
        (Some(false), Some(false)),
        "{line:?}"
    );
}

#[test]
fn a_record_does_not_join_two_processes_that_had_one_pid() {
    let mut record = Vec::new();
    for (start, from) in [(100, 0), (4000, 40)] {
        let mut history = History::new(7).begun_at(start);
        for time in (from..from + 40).map(f64::from) {
            let rss = MB * (20.0 + time);
            history.observe(time, &Observation { rss, ..Observation::default() });
            serde_json::to_writer(&mut record, &history.line(|| None, false)).expect("written");
            record.push(b'\n');
        }
    }
    let lines = Replay::read(record.as_slice(), None).expect("a record");
    let seen: Vec<_> = lines.iter().map(|l| (l.pid, l.start_ticks, l.verdict.window_s)).collect();
    assert_eq!(seen, [(7, 100, 39.0), (7, 4000, 39.0)]);
}

/// A process whose images' own data grows by 1 MB/s; `mapped`: how much of it there may come to be.
fn loads(mapped: impl Fn(f64) -> f64) -> Line {
    watched(80, |time| {
        let rss = 50.0 * MB + MB * time;
        Observation {
            rss,
            counters: [(Counter::Anonymous, rss)].into(),
            sampled: true,
            layers: [("code".to_owned(), rss)].into(),
            code_data: Some([rss - 20.0 * MB, MB * mapped(time)]),
            ..Observation::default()
        }
    })
}

#[test]
fn data_of_ever_more_libraries_is_a_leak_and_a_table_that_is_filled_is_none() {
    let line = loads(|time| 60.0 + time);
    assert_eq!((leaks(&line, "code"), line.verdict.leak), (Some(true), Some(true)), "{line:?}");
    assert_eq!(line.verdict.layer.as_deref(), Some("code"));
    let line = loads(|_| 500.0);
    assert_eq!(leaks(&line, "code"), Some(false), "{line:?}");
}

#[test]
fn a_day_of_looks_takes_bounded_memory() {
    let mut history = History::new(7);
    let mut seen = Observation {
        sampled: true,
        layers: (0..22).map(|layer| (format!("layer {layer}"), MB)).collect(),
        counters: [(Counter::Anonymous, MB), (Counter::Files, MB), (Counter::Shared, MB)].into(),
        shared_bound: Some(MB),
        java_heap: Some(java(1.0, 0, 1.0)),
        ..Observation::default()
    };
    seen.code_data = Some([MB; 2]);
    for second in 0..86_400u32 {
        seen.rss = MB * f64::from(second % 7);
        seen.java_heap = Some(java(1.0, second.into(), 1.0));
        history.observe(second.into(), &seen);
        // RSS, counters, layers, what they hold together, the bound, both times, data of code and the old generation:
        // 33 series of 2,048 points; and the times of looks and of collections.
        assert!(history.points() <= 33 * 2048 + 512, "{} after {second} s", history.points());
    }
}

#[test]
fn retention_that_grows_leaves_no_question_open() {
    // What is live comes and goes; the allocator keeps ever more.
    let mut history = History::new(7);
    for time in (0..=90).map(f64::from) {
        let rss = (8.0 + (time / 5.0).floor() * 0.9) * MB;
        let live = (1.0 + (time * 7.3) % 6.0) * MB;
        history.observe(
            time,
            &Observation {
                rss,
                counters: [(Counter::Anonymous, rss)].into(),
                sampled: true,
                layers: [
                    ("heap_in_use".to_owned(), live),
                    ("heap_retained".to_owned(), rss - live),
                ]
                .into(),
                ..Observation::default()
            },
        );
    }
    let line = history.line(|| None, true);
    assert_eq!(line.verdict.leak, Some(false), "{line:?}");
}

#[test]
fn memory_that_a_child_copies_grows_though_what_is_resident_does_not() {
    let copying = |rate: f64, leak: f64| {
        watched(80, |time| {
            let rss = (200.0 + leak * time) * MB;
            Observation {
                rss,
                counters: [(Counter::Anonymous, rss)].into(),
                sampled: true,
                layers: [("heap_in_use".to_owned(), rss)].into(),
                private_share: Some([rss / 2.0 + rate * time * MB, rss]),
                ..Observation::default()
            }
        })
    };
    let line = copying(1.0, 0.0);
    assert_eq!((line.verdict.kind, line.verdict.leak), (Kind::Growing, Some(false)), "{line:?}");
    assert!(line.verdict.why.contains("fork"), "{line:?}");
    assert!((line.verdict.bytes_per_s.expect("a rate") / MB - 1.0).abs() < 0.02, "{line:?}");
    assert_eq!(copying(0.0, 0.0).verdict.kind, Kind::Flat);
    // What is resident grows: that is the news.
    assert_eq!(copying(1.0, 1.0).verdict.leak, Some(true));
}

/// A process that is dear to sample holds ever more files in memory by descriptor: layers at the ends of a
/// minute, what its descriptors hold at every look.
#[test]
fn memory_that_moves_no_counter_is_judged_between_rare_samples_and_replayed() {
    let (mut history, mut record) = (History::new(7), Vec::new());
    for time in (0..=60).map(f64::from) {
        let sampled = time == 0.0 || time == 60.0;
        let mut layers: BTreeMap<_, _> = [("memfd_unmapped".to_owned(), time * MB)].into();
        layers.extend(sampled.then(|| ("heap_in_use".to_owned(), 400.0 * MB)));
        let rss = 400.0 * MB;
        history.observe(time, &Observation { rss, layers, sampled, ..Observation::default() });
        let line = history.line(|| None, false);
        assert_eq!(line.counted.is_empty(), sampled);
        serde_json::to_writer(&mut record, &line).expect("written");
        record.push(b'\n');
    }
    let line = history.line(|| None, true);
    assert_eq!((leaks(&line, "memfd_unmapped"), line.verdict.leak), (Some(true), Some(true)));
    let replayed = Replay::read(record.as_slice(), None).expect("a record");
    assert_eq!(leaks(&replayed[0], "memfd_unmapped"), Some(true));
    assert_eq!(replayed[0].verdict.bytes_per_s, line.verdict.bytes_per_s);
}

/// Two looks in 20 s, between which it grew by 30 MB: RSS, which stands still, does not answer for it.
#[test]
fn memory_beyond_rss_that_was_looked_at_twice_is_an_open_question() {
    let line = watched(20, |time| {
        let sampled = time == 0.0 || time == 20.0;
        let layers = sampled.then(|| ("memfd_unmapped".to_owned(), (10.0 + 1.5 * time) * MB));
        let layers = layers.into_iter().collect();
        Observation { rss: 2.0 * MB, layers, sampled, ..Observation::default() }
    });
    assert_eq!(line.verdict.leak, None, "{line:?}");
    assert_eq!(line.verdict.layer.as_deref(), Some("memfd_unmapped"));
}

#[test]
fn of_a_table_with_several_processes_the_worst_comes_last_and_comments_are_no_head() {
    let rows =
        (0..120u64).map(|t| format!("{t},7,{}\n{t},8,50000000\n", 100_000_000 + t * 1_000_000));
    let table = format!("# by a tool\n# of a host\ntime,pid,rss\n{}", rows.collect::<String>());
    let lines = Replay::read(table.as_bytes(), None).expect("a table");
    assert_eq!(lines.iter().map(|line| line.pid).collect::<Vec<_>>(), [8, 7]);
    assert_eq!(lines[1].verdict.leak, Some(true), "{:?}", lines[1]);
    // Rows in any order are no fault; of those that go back in time nothing is known.
    let shuffled = (0..120u64).map(|t| format!("{},{}\n", t * 7 % 120, 100_000_000 + t));
    Replay::read(shuffled.collect::<String>().as_bytes(), None).expect("a table");
}
