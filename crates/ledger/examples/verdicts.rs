//! Verdicts on thousands of synthetic series: false alarms, misses, time to verdict.
//!
//! `cargo run --release -p plumb-ledger --example verdicts -- [SEEDS]`

#[path = "../tests/worlds/mod.rs"]
mod worlds;

use plumb_ledger::series::{Point, Series};
use plumb_ledger::verdict::{Nature, When, judge};
use worlds::{Looks, MB, Noise, Random, Shape, series};

struct Outcome {
    first: Option<f64>,
    /// Looks that said leak, after the first.
    said: usize,
    last: Option<bool>,
    rate: f64,
    interval: [f64; 2],
}

fn watch(points: &[(f64, f64)]) -> Outcome {
    let mut series = Series::default();
    let (mut first, mut said, mut next) = (None, 0, 0.0);
    for &(time_s, bytes) in points {
        series.push(Point { time_s, bytes });
        if time_s >= next {
            next = time_s + 2.0;
            if judge(&series, Nature::Held, When::Watching).leak == Some(true) {
                first.get_or_insert(time_s);
                said += 1;
            }
        }
    }
    let last = judge(&series, Nature::Held, When::Ending);
    Outcome {
        first,
        said,
        last: last.leak,
        rate: last.bytes_per_s.unwrap_or(0.0) / MB,
        interval: last.interval.unwrap_or([0.0; 2]).map(|b| b / MB),
    }
}

fn noise(random: &mut Random, most: f64) -> Noise {
    let size = random.within(0.0, most);
    match (random.within(0.0, 5.0)) as u32 {
        0 => Noise::None,
        1 => Noise::White(size),
        2 => Noise::Alike(size, random.within(0.3, 0.95)),
        3 => Noise::HeavyTails(size),
        _ => Noise::Steps(size.max(0.1)),
    }
}

fn looks(random: &mut Random) -> Looks {
    match (random.within(0.0, 4.0)) as u32 {
        0 => Looks::Irregular(random.within(0.5, 3.0)),
        1 => Looks::Missing,
        _ => Looks::EverySecond,
    }
}

type Make = fn(&mut Random) -> (Shape, Noise);

const LOOK_ALIKES: [(&str, f64, Make); 16] = [
    ("flat", 400.0, |r| (Shape::Flat, noise(r, 40.0))),
    ("queue or working set that wanders", 600.0, |r| {
        (Shape::Wander(r.within(5.0, 60.0), r.within(2.0, 120.0)), noise(r, 1.0))
    }),
    ("working set that walks at random", 75.0, |r| {
        (Shape::Walk(r.within(20.0, 200.0), r.within(2.0, 12.0)), Noise::None)
    }),
    ("sawtooth, periods 3-20 s", 400.0, |r| {
        (Shape::Sawtooth(r.within(2.0, 200.0), r.within(3.0, 20.0)), noise(r, 2.0))
    }),
    ("sawtooth, periods 20-40 s", 400.0, |r| {
        (Shape::Sawtooth(r.within(2.0, 200.0), r.within(20.0, 32.0)), noise(r, 2.0))
    }),
    ("fills in 3-20 s and stops", 90.0, |r| {
        (Shape::Fill(r.within(0.5, 16.0), r.within(3.0, 20.0)), noise(r, 1.0))
    }),
    ("fills in 20-40 s and stops", 120.0, |r| {
        (Shape::Fill(r.within(0.5, 16.0), r.within(20.0, 40.0)), noise(r, 1.0))
    }),
    ("warms up, time constant 2-40 s", 300.0, |r| {
        (Shape::WarmUp(r.within(5.0, 500.0), r.within(2.0, 40.0)), noise(r, 1.0))
    }),
    ("warms up, time constant 40-80 s", 600.0, |r| {
        (Shape::WarmUp(r.within(5.0, 500.0), r.within(40.0, 80.0)), noise(r, 1.0))
    }),
    ("logarithm", 600.0, |r| {
        (Shape::Logarithm(r.within(5.0, 100.0), r.within(1.0, 15.0)), noise(r, 1.0))
    }),
    ("cache of 10-60 large items, filled in 30-90 s", 300.0, |r| {
        let places = r.within(10.0, 60.0).floor();
        (Shape::Cache(places, r.within(1.0, 8.0), r.within(10.0, 30.0) / places), noise(r, 0.5))
    }),
    ("cache of 10-60 large items, filled in 90-180 s", 500.0, |r| {
        let places = r.within(10.0, 60.0).floor();
        (Shape::Cache(places, r.within(1.0, 8.0), r.within(30.0, 60.0) / places), noise(r, 0.5))
    }),
    ("one step", 200.0, |r| {
        (Shape::Step(r.within(5.0, 500.0), r.within(5.0, 190.0)), noise(r, 4.0))
    }),
    ("load in waves, periods 20-80 s", 400.0, |r| {
        (Shape::Wave(r.within(5.0, 200.0), r.within(20.0, 80.0)), noise(r, 1.0))
    }),
    ("load in waves, periods 80-600 s", 1200.0, |r| {
        (Shape::Wave(r.within(5.0, 200.0), r.within(80.0, 600.0)), noise(r, 1.0))
    }),
    ("retention of a load that changes", 400.0, |r| {
        (Shape::Retention(r.within(10.0, 300.0), r.within(1.0, 10.0)), noise(r, 1.0))
    }),
];

const LEAKS: [(&str, f64, Make); 12] = [
    ("8 MB/s", 120.0, |r| (Shape::Line(8.0), noise(r, 4.0))),
    ("1 MB/s", 120.0, |r| (Shape::Line(1.0), noise(r, 1.0))),
    ("0.5 MB/s", 120.0, |r| (Shape::Line(0.5), noise(r, 0.5))),
    ("0.5 MB/s, 30 s seen", 30.0, |r| (Shape::Line(0.5), noise(r, 0.3))),
    ("0.5 MB/s, noise up to 3 MB", 300.0, |r| (Shape::Line(0.5), noise(r, 3.0))),
    ("0.5 MB/s, bursts every 5 s", 120.0, |r| (Shape::Bursts(0.5, 5.0), noise(r, 0.3))),
    ("0.5 MB/s, bursts every 10 s", 120.0, |r| (Shape::Bursts(0.5, 10.0), noise(r, 0.3))),
    ("0.5-8 MB/s, bursts every 2-12 s", 120.0, |r| {
        (Shape::Bursts(r.within(0.5, 8.0), r.within(2.0, 12.0)), noise(r, 0.5))
    }),
    ("0.5-4 MB/s, random bursts", 240.0, |r| {
        (Shape::RandomBursts(r.within(0.5, 4.0), r.within(0.2, 5.0)), noise(r, 0.3))
    }),
    ("0.5-4 MB/s under a sawtooth of 5-40 MB", 400.0, |r| {
        let height = r.within(5.0, 40.0);
        (Shape::LineUnderSawtooth(r.within(0.5, 4.0), height, r.within(3.0, 20.0)), noise(r, 0.5))
    }),
    ("0.5-8 MB/s after 300-3000 s of nothing", 3100.0, |r| {
        (Shape::LineAfter(r.within(0.5, 8.0), r.within(300.0, 2980.0)), noise(r, 0.5))
    }),
    ("0.5-8 MB/s after a start that gave back 20-500 MB", 120.0, |r| {
        (Shape::LineAfterStart(r.within(0.5, 8.0), r.within(20.0, 500.0)), noise(r, 0.5))
    }),
];

fn rate_of(shape: Shape) -> (f64, f64) {
    match shape {
        Shape::LineAfter(rate, start) => (rate, start),
        Shape::Line(rate)
        | Shape::Bursts(rate, _)
        | Shape::RandomBursts(rate, _)
        | Shape::LineUnderSawtooth(rate, ..)
        | Shape::LineAfterStart(rate, _) => (rate, 0.0),
        _ => (0.0, 0.0),
    }
}

fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    if values.is_empty() { f64::NAN } else { values[((values.len() - 1) as f64 * part) as usize] }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let seeds: u64 = arguments.get(1).map_or(200, |n| n.parse().expect("a number of seeds"));
    let only = arguments.get(2).cloned().unwrap_or_default();
    let verbose = arguments.len() > 3;
    println!(
        "| look-alike | watched | series | ever called a leak | called one at the end | of true looks |"
    );
    println!("|---|---|---|---|---|---|");
    for (name, seconds, make) in LOOK_ALIKES.iter().filter(|l| l.0.contains(&only)) {
        let (mut ever, mut at_end, mut said) = (0, 0, 0);
        for seed in 0..seeds {
            let mut random = Random::new(seed);
            let (shape, noise) = make(&mut random);
            let looks = looks(&mut random);
            let outcome = watch(&series(shape, noise, looks, *seconds, &mut random));
            ever += usize::from(outcome.first.is_some());
            at_end += usize::from(outcome.last == Some(true));
            said += outcome.said;
            if verbose && (outcome.first.is_some() || outcome.last == Some(true)) {
                eprintln!(
                    "{seed} {shape:?} {noise:?} {looks:?} {:?} {}",
                    outcome.first, outcome.said
                );
            }
        }
        println!("| {name} | {seconds:.0} s | {seeds} | {ever} | {at_end} | {said} |");
    }
    println!();
    println!(
        "| leak | watched | series | missed at the end | first called: median, 95 %, last | rate off, median, 95 % | rate in its interval |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (name, seconds, make) in LEAKS.iter().filter(|l| l.0.contains(&only)) {
        let (mut missed, mut inside, mut times, mut off) = (0, 0, Vec::new(), Vec::new());
        for seed in 0..seeds {
            let mut random = Random::new(seed);
            let (shape, noise) = make(&mut random);
            let looks = looks(&mut random);
            let outcome = watch(&series(shape, noise, looks, *seconds, &mut random));
            let (rate, start) = rate_of(shape);
            if outcome.last == Some(true) {
                off.push((outcome.rate / rate - 1.0).abs() * 100.0);
                let [low, high] = outcome.interval;
                inside += usize::from(low <= rate && rate <= high);
            } else {
                missed += 1;
                if verbose {
                    eprintln!("{seed} {shape:?} {noise:?} {looks:?} {:?}", outcome.first);
                }
            }
            times.push(outcome.first.map_or(f64::INFINITY, |first| first - start));
        }
        let time = [0.5, 0.95, 1.0].map(|part| percentile(&mut times, part));
        let rate = [0.5, 0.95].map(|part| percentile(&mut off, part));
        println!(
            "| {name} | {seconds:.0} s | {seeds} | {missed} | {:.0} s, {:.0} s, {:.0} s | {:.1} %, {:.1} % | {:.0} % |",
            time[0],
            time[1],
            time[2],
            rate[0],
            rate[1],
            100.0 * inside as f64 / off.len().max(1) as f64
        );
    }
}
