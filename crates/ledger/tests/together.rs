//! What processes hold together: leaks that are spread over many, and what only looks so.

use std::io::Cursor;

use plumb_ledger::watch::{Line, Replay};

const MB: f64 = 1e6;

/// A process: from when to when it runs, what it has from its parent, and what it holds of its own, and of
/// that what its allocator keeps, at so many seconds of its life.
struct Process {
    life: [f64; 2],
    inherited: f64,
    holds: Box<dyn Fn(f64) -> [f64; 2]>,
}

fn process(from: f64, to: f64, holds: impl Fn(f64) -> [f64; 2] + 'static) -> Process {
    Process { life: [from, to], inherited: 0.0, holds: Box::new(holds) }
}

/// The final lines of a watch of so many seconds, that of all together first.
fn watched(seconds: u32, processes: &[Process]) -> (Line, Vec<Line>) {
    let mut record = String::new();
    for time in (0..=seconds).map(f64::from) {
        for (pid, process) in (1..).zip(processes) {
            let [from, to] = process.life;
            if time < from || time >= to {
                continue;
            }
            let [used, kept] = (process.holds)(time - from);
            let all = process.inherited + used + kept;
            let (inherited, used, kept) = (process.inherited * MB, used * MB, kept * MB);
            let sampled = (time as u32 + pid).is_multiple_of(10);
            let row = |layer: &str, bytes: f64| {
                format!(
                    r#"{{"layer":"{layer}","resident_bytes":{bytes:.0},"bytes_per_s":null,"kind":"flat","leak":null}}"#
                )
            };
            let layers = match sampled {
                true => {
                    [row("heap_in_use", inherited + used), row("heap_retained", kept)].join(",")
                }
                false => String::new(),
            };
            record += &format!(
                r#"{{"time_s":{time},"pid":{pid},"rss_bytes":{0:.0},"counters":{{"anonymous":{0:.0}}},"sampled":{sampled},"inherited_bytes":{inherited:.0},"layers":[{layers}],"verdict":{{"kind":"flat","leak":null,"layer":null,"bytes_per_s":null,"interval":null,"oom_in_s":null,"why":""}}}}"#,
                all * MB
            );
            record.push('\n');
        }
    }
    let mut lines = Replay::read(Cursor::new(record), None).expect("a record");
    let together = lines.iter().position(|line| line.processes.is_some()).expect("a line of all");
    (lines.remove(together), lines)
}

fn of_all(seconds: u32, processes: &[Process]) -> Line {
    watched(seconds, processes).0
}

/// Numbers from 0 to 1, the same for the same seed.
fn random(mut seed: u64) -> impl FnMut() -> f64 {
    move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as f64 / f64::from(1_u32 << 31)
    }
}

#[test]
fn a_leak_of_many_none_of_which_leaks_enough_is_one() {
    let many: Vec<Process> =
        (0..10).map(|_| process(0.0, 99.0, |age| [5.0 + 0.06 * age, 0.0])).collect();
    let (line, each) = watched(50, &many);
    assert_eq!((line.verdict.leak, line.pid, line.processes), (Some(true), 0, Some(10)));
    assert!((line.verdict.bytes_per_s.expect("a rate") / 0.6 / MB - 1.0).abs() < 0.05, "{line:?}");
    assert!(each.iter().all(|line| line.verdict.leak != Some(true)));
    let kept: Vec<Process> =
        (0..10).map(|_| process(0.0, 99.0, |age| [5.0, 1.0 + 0.06 * age])).collect();
    assert_ne!(of_all(50, &kept).verdict.leak, Some(true), "allocators keep it");
}

#[test]
fn a_leak_of_one_among_many_is_that_ones() {
    let mut many: Vec<Process> = (0..10).map(|_| process(0.0, 99.0, |_| [5.0, 0.0])).collect();
    many.push(process(0.0, 99.0, |age| [5.0 + age, 0.0]));
    let (line, each) = watched(60, &many);
    assert_eq!(each.last().map(|line| (line.pid, line.verdict.leak)), Some((11, Some(true))));
    assert_ne!(line.verdict.leak, Some(true), "{line:?}");
}

#[test]
fn a_child_that_leaked_until_all_ended_is_told_and_one_that_ended_before_is_not() {
    let leaking = |to: f64| process(0.0, to, |age| [5.0 + age, 0.0]);
    let (_, each) = watched(
        30,
        &[
            process(0.0, 99.0, |_| [5.0, 0.0]),
            leaking(30.0),
            leaking(30.0),
            leaking(30.0),
            leaking(25.0),
            leaking(99.0),
        ],
    );
    let told: Vec<_> = each.iter().map(|line| (line.pid, line.verdict.leak, line.ended)).collect();
    let leaks = |pid, ended| (pid, Some(true), ended);
    let expected = [leaks(2, true), leaks(3, true), leaks(4, true), leaks(6, false)];
    assert_eq!(told[0], (1, Some(false), false));
    assert_eq!(told[1..], expected, "a moment before all, or with them");
}

#[test]
fn ever_more_processes_of_which_none_ends_are_a_leak_of_processes() {
    let leaking: Vec<Process> =
        (0..220).map(|n| process(f64::from(n), 999.0, |_| [1.0, 0.0])).collect();
    let (line, each) = watched(200, &leaking);
    assert_eq!(line.verdict.leak, Some(true), "{line:?}");
    assert!((line.verdict.bytes_per_s.expect("a rate") / MB - 1.0).abs() < 0.05, "{line:?}");
    assert!(line.verdict.why.contains("ever more processes"), "{line:?}");
    assert!(each.iter().all(|line| line.verdict.leak != Some(true)));
    // A script that starts them starts others between, which end.
    let (line, _) = watched(200, &{
        let mut with = leaking;
        with.extend((0..220).map(|n| process(f64::from(n), f64::from(n) + 2.0, |_| [0.3, 0.0])));
        with
    });
    assert_eq!(line.verdict.leak, Some(true), "{line:?}");
    let leaking: Vec<Process> =
        (0..220).map(|n| process(f64::from(n), 999.0, |_| [1.0, 0.0])).collect();
    let early = of_all(100, &leaking);
    assert!(early.verdict.leak.is_none() && early.verdict.why.contains("longer"), "{early:?}");
    // A pool that grows to its size, connections that come ever more slowly, and a fleet that fills.
    let connections = |n: f64| -60.0 * (1.0 - n / 60.0).ln();
    for pool in [
        (0..60).map(|n| process(2.5 * f64::from(n), 999.0, |_| [4.0, 0.0])).collect::<Vec<_>>(),
        (0..60).map(|n| process(connections(f64::from(n)), 999.0, |_| [4.0, 0.0])).collect(),
        (0..8)
            .map(|n| process(30.0 * f64::from(n), 999.0, |age| [(2.0 * age).min(60.0), 0.0]))
            .collect(),
    ] {
        for seconds in [60, 120, 145, 200, 300] {
            let line = of_all(seconds, &pool);
            assert_ne!(line.verdict.leak, Some(true), "{seconds} s: {line:?}");
        }
    }
}

#[test]
fn a_memfd_that_many_hold_grows_once() {
    // Too slow to be judged in one of them.
    let of_all = |counted_once: bool| {
        let mut record = String::new();
        for (time, pid) in (0..=50).flat_map(|time| (1..=10).map(move |pid| (time, pid))) {
            let bytes = 60_000 * time;
            let others = if counted_once && pid > 1 { bytes } else { 0 };
            record += &format!(
                r#"{{"time_s":{time},"pid":{pid},"rss_bytes":5000000,"counters":{{"anonymous":5000000}},"sampled":false,"counted":["memfd_unmapped"],"memfd_of_others_bytes":{others},"layers":[{{"layer":"memfd_unmapped","resident_bytes":{bytes},"bytes_per_s":null,"kind":"flat","leak":null}}],"verdict":{{"kind":"flat","leak":null,"layer":null,"bytes_per_s":null,"interval":null,"oom_in_s":null,"why":""}}}}"#
            );
            record.push('\n');
        }
        let lines = Replay::read(Cursor::new(record), None).expect("a record");
        lines.into_iter().find(|line| line.processes.is_some()).expect("a line of all")
    };
    let (once, each) = (of_all(true).verdict, of_all(false).verdict);
    assert_ne!(once.leak, Some(true), "{once:?}");
    assert_eq!((each.leak, each.layer.as_deref()), (Some(true), Some("memfd_unmapped")));
}

/// One a second, each of which lives ten.
fn turnover(holds: impl Fn(u32, f64) -> f64 + Clone + 'static) -> Vec<Process> {
    let one = |number: u32| {
        let holds = holds.clone();
        process(f64::from(number), f64::from(number) + 10.0, move |age| [holds(number, age), 0.0])
    };
    let parent = process(0.0, 999.0, |_| [30.0, 0.0]);
    std::iter::once(parent).chain((0..400).map(one)).collect()
}

#[test]
fn children_that_come_and_go_and_take_ever_more_leak_together() {
    let (line, each) = watched(130, &turnover(|number, _| 2.0 + 0.05 * f64::from(number)));
    assert_eq!(each.len(), 11, "children that ended leave no open question");
    assert_eq!(line.verdict.leak, Some(true), "{line:?}");
    assert!((line.verdict.bytes_per_s.expect("a rate") / 0.5 / MB - 1.0).abs() < 0.15, "{line:?}");
    for children in [
        turnover(|_, _| 20.0),
        turnover(|_, age| 2.0 * age),
        turnover(|number, _| 2.0 + f64::from(number * 7919 % 31)),
        // They take ever more until they have what they need.
        turnover(|number, _| 2.0 + 0.5 * f64::from(number.min(60))),
    ] {
        for seconds in [60, 100, 130, 180] {
            let line = of_all(seconds, &children);
            assert_ne!(line.verdict.leak, Some(true), "{seconds} s: {line:?}");
        }
    }
}

#[test]
fn what_a_fork_shares_is_nobodys_growth() {
    let mut children = turnover(|_, _| 3.0);
    for child in &mut children[1..] {
        child.inherited = 500.0;
    }
    let line = of_all(130, &children);
    assert_ne!(line.verdict.leak, Some(true), "{line:?}");
    // Ever more of them, to the end.
    let ever_more: Vec<Process> = (0..130)
        .map(|n| Process { inherited: 500.0, ..process(f64::from(n), 999.0, |_| [0.1, 0.0]) })
        .collect();
    assert_ne!(of_all(130, &ever_more).verdict.leak, Some(true));
}

#[test]
fn workers_that_start_one_after_another_and_a_rolling_restart_are_no_leak() {
    let start = |number: u32| process(3.0 * f64::from(number), 999.0, |_| [20.0, 0.0]);
    let starting: Vec<Process> = (0..40).map(start).collect();
    // Each is replaced by one that takes more, one after another, twice.
    let mut replaced = Vec::new();
    for worker in 0..8 {
        let at = |round: u32| 5.0 + 10.0 * f64::from(worker) + 80.0 * f64::from(round);
        replaced.push(process(0.0, at(0), |_| [50.0, 0.0]));
        replaced.push(process(at(0) - 1.0, at(1), |_| [70.0, 0.0]));
        replaced.push(process(at(1) - 1.0, 999.0, |_| [90.0, 0.0]));
    }
    for seconds in [30, 60, 90, 120, 160, 200, 300] {
        for processes in [&starting, &replaced] {
            let line = of_all(seconds, processes);
            assert_ne!(line.verdict.leak, Some(true), "{seconds} s: {line:?}");
        }
    }
    assert_eq!(of_all(300, &starting).verdict.leak, Some(false), "they have all started");
}

#[test]
fn lives_of_random_length_hide_neither() {
    let mut random = random(1);
    let mut watched = |rate: f64, spread: f64| {
        let mut all = vec![process(0.0, 999.0, |_| [30.0, 0.0])];
        for from in (0..160).map(|number| 1.25 * f64::from(number)) {
            let size = (10.0 + rate * from / 10.0) * (1.0 + spread * (random() - 0.5));
            all.push(process(from, from + 5.0 + 15.0 * random(), move |_| [size, 0.0]));
        }
        of_all(150, &all).verdict.leak
    };
    for _ in 0..10 {
        assert_eq!(watched(4.0, 0.0), Some(true));
        assert_ne!(watched(0.0, 0.0), Some(true));
        assert_ne!(watched(0.0, 1.5), Some(true));
    }
}

#[test]
fn a_child_that_grows_until_it_is_replaced_is_no_leak_when_the_watch_ends() {
    // Three at a time grow, and end after 24 s; the last began 21 s before the end.
    let worker = |from: f64| process(from, from + 24.0, |age| [5.0 + 0.6 * age, 0.0]);
    let mut processes = vec![process(0.0, 999.0, |_| [30.0, 0.0])];
    processes.extend((0..12).map(|number| worker(8.0 * f64::from(number))));
    let (line, each) = watched(93, &processes);
    assert_ne!(line.verdict.leak, Some(true), "{line:?}");
    for line in &each {
        assert_ne!(line.verdict.leak, Some(true), "{line:?}");
        assert_eq!(line.severity(), 0, "{line:?}");
    }
    // One that lives on leaks all the same.
    processes.push(process(40.0, 999.0, |age| [5.0 + 0.6 * age, 0.0]));
    let (_, each) = watched(93, &processes);
    assert_eq!(each.last().map(|line| line.verdict.leak), Some(Some(true)), "{each:?}");
}

#[test]
fn of_many_that_rise_and_fall_or_fill_in_turn_none_is_chosen() {
    for seed in 1..=12 {
        let mut random = random(seed);
        let mut within = |low: f64, high: f64| low + (high - low) * random();
        let many = within(3.0, 20.0) as u32;
        let saws = (0..many).map(|_| {
            let (height, period, from) = (within(1.0, 30.0), within(3.0, 60.0), within(0.0, 1.0));
            process(0.0, 999.0, move |age| [5.0 + height * (age / period + from).fract(), 0.0])
        });
        let saws: Vec<Process> = saws.collect();
        let fills = (0..many).map(|number| {
            let (size, at) = (within(1.0, 15.0), f64::from(number) * within(1.0, 5.0));
            let time = within(2.0, 20.0);
            process(0.0, 999.0, move |age| [5.0 + size * ((age - at) / time).clamp(0.0, 1.0), 0.0])
        });
        let fills: Vec<Process> = fills.collect();
        let mut replaced = vec![process(0.0, 999.0, |_| [30.0, 0.0])];
        for _ in 0..many {
            let (life, rate, mut from) = (within(8.0, 40.0), within(0.05, 1.0), within(0.0, 30.0));
            while from < 130.0 {
                let to = from + life * within(0.7, 1.3);
                replaced.push(process(from, to, move |age| [5.0 + rate * age, 0.0]));
                from = to;
            }
        }
        for seconds in [30, 50, 70, 100, 130] {
            for processes in [&saws, &fills, &replaced] {
                let line = of_all(seconds, processes);
                assert_ne!(line.verdict.leak, Some(true), "seed {seed}, {seconds} s: {line:?}");
            }
        }
    }
}
