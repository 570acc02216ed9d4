//! Verdicts on series whose truth is known, looked at as a watch does: after every second.

use plumb_ledger::series::{Point, Series};
use plumb_ledger::verdict::{Kind, Nature, Verdict, When, judge};
use proptest::prelude::{prop, prop_assert, proptest};
use proptest::test_runner::Config;
use worlds::{Looks, MB, Noise, Random, Shape};

mod worlds;

/// Watches `bytes_at(t)` once a second for `seconds`, judging after every look.
fn watch(seconds: usize, mut bytes_at: impl FnMut(f64) -> f64) -> Vec<Verdict> {
    let mut series = Series::default();
    (0..=seconds)
        .map(|t| {
            let time_s = t as f64;
            series.push(Point { time_s, bytes: bytes_at(time_s).max(0.0) });
            judge(&series, Nature::Held, When::Watching)
        })
        .collect()
}

fn first_leak(verdicts: &[Verdict]) -> Option<usize> {
    verdicts.iter().position(|v| v.leak == Some(true))
}

fn never(name: &str, verdicts: &[Verdict]) {
    if let Some(at) = first_leak(verdicts) {
        panic!("{name}: called a leak after {at} s: {:?}", verdicts[at]);
    }
}

fn at_the_end(verdicts: &[Verdict]) -> &Verdict {
    verdicts.last().expect("something was watched")
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]

    #[test]
    fn flat_with_noise_is_never_a_leak(
        seed in 0u64.., level in 1e6..1e10, noise in 0.0..0.2f64, memory in 0.0..0.9f64,
    ) {
        // `memory` makes the noise autocorrelated, on which tests of significance fail.
        let (mut random, mut off) = (Random::new(seed), 0.0);
        let verdicts = watch(400, |_| {
            off = memory * off + (1.0 - memory * memory).sqrt() * random.normal();
            level * (1.0 + noise * off)
        });
        prop_assert!(first_leak(&verdicts).is_none(), "{:?}", verdicts[first_leak(&verdicts).unwrap()]);
    }

    #[test]
    fn steady_growth_is_a_leak_in_bounded_time(
        seed in 0u64.., rate in 0.5..50.0f64, noise in 0.0..8.0f64,
    ) {
        let mut random = Random::new(seed);
        let verdicts = watch(400, |t| (200.0 + rate * t + noise * random.normal()) * MB);
        // Noise of one deviation is outgrown after so many seconds.
        let bound = 60.0 + 20.0 * noise / rate;
        let at = first_leak(&verdicts);
        prop_assert!(at.is_some_and(|at| (at as f64) < bound.min(400.0)), "{at:?}, bound {bound}");
        let last = at_the_end(&verdicts);
        prop_assert!(last.leak == Some(true), "{last:?}");
        let slope = last.bytes_per_s.expect("a rate");
        prop_assert!((slope - rate * MB).abs() < 0.1 * rate * MB + 0.05 * noise * MB, "{last:?}");
    }

    #[test]
    fn when_growth_stops_the_judgement_is_withdrawn_within_one_window(
        seed in 0u64.., rate in 0.5..50.0f64, grows in 60usize..200,
    ) {
        let mut random = Random::new(seed);
        let end = grows as f64;
        let verdicts = watch(3 * grows, |t| (100.0 + rate * t.min(end) + 0.05 * random.normal()) * MB);
        prop_assert!(verdicts[grows].leak == Some(true), "{:?}", verdicts[grows]);
        let late = verdicts[2 * grows..].iter().find(|v| v.leak == Some(true));
        prop_assert!(late.is_none(), "{late:?}");
        let last = at_the_end(&verdicts);
        prop_assert!(last.leak == Some(false), "{last:?}");
    }

    #[test]
    fn any_series_at_all_is_judged_without_panic(
        points in prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY), 0..200),
    ) {
        let series: Series = points.into_iter().collect();
        let _any = judge(&series, Nature::Held, When::Watching);
    }

    #[test]
    fn bursts_are_a_leak(seed in 0u64.., rate in 0.5..20.0f64, every in 1usize..10) {
        let every = every as f64;
        let mut random = Random::new(seed);
        let verdicts = watch(400, |t| {
            (80.0 + rate * every * (t / every).floor() + 0.2 * random.uniform()) * MB
        });
        let at = first_leak(&verdicts);
        prop_assert!(at.is_some_and(|at| at < 200), "{at:?} for bursts every {every} s");
        prop_assert!(at_the_end(&verdicts).leak == Some(true));
    }

    #[test]
    fn a_leak_under_a_sawtooth_is_found(
        seed in 0u64.., rate in 0.5..10.0f64, height in 1.0..60.0f64, period in 3.0..25.0f64,
    ) {
        let mut random = Random::new(seed);
        let verdicts = watch(900, |t| {
            (50.0 + rate * t + height * (t / period).fract() + 0.1 * random.uniform()) * MB
        });
        prop_assert!(at_the_end(&verdicts).leak == Some(true), "{:?}", at_the_end(&verdicts));
    }

    #[test]
    fn a_sawtooth_alone_is_none(
        seed in 0u64.., height in 1.0..200.0f64, period in 3.0..18.0f64,
    ) {
        let mut random = Random::new(seed);
        let verdicts = watch(600, |t| {
            // A look is never in step with a tooth: else their beat is a slow tooth of its own.
            let tooth = ((t + random.within(0.0, 0.9)) / period).fract();
            (50.0 + height * tooth) * MB
        });
        prop_assert!(first_leak(&verdicts).is_none(), "{:?}", verdicts[first_leak(&verdicts).unwrap()]);
        prop_assert!(at_the_end(&verdicts).leak == Some(false), "{:?}", at_the_end(&verdicts));
    }

    #[test]
    fn warming_up_is_none(size in 5.0..2000.0f64, slowness in 2.0..20.0f64) {
        let verdicts = watch(300, |t| (30.0 + size * (1.0 - (-t / slowness).exp())) * MB);
        prop_assert!(first_leak(&verdicts).is_none(), "{:?}", verdicts[first_leak(&verdicts).unwrap()]);
        prop_assert!(at_the_end(&verdicts).leak == Some(false), "{:?}", at_the_end(&verdicts));
    }
}

/// A compiler's pieces, each a quarter of `unit` times its number squared after the one before. Of few
/// steps, how many lie early and late is chance: three of them and two were called a leak.
#[test]
fn few_steps_that_come_ever_later_are_never_a_leak_whenever_the_watch_ends() {
    for (unit, piece, every) in [0.25, 0.1, 0.5, 1.0]
        .into_iter()
        .flat_map(|u| [1.0, 5.0].map(|p| (u, p, 1.0)))
        .chain([(0.25, 1.0, 2.0), (0.5, 3.0, 2.0)])
    {
        let due: Vec<f64> = (1..40)
            .scan(0.0, |at, i| {
                *at += unit * f64::from(i * i) / 4.0;
                Some(*at)
            })
            .collect();
        for begun in 0..60 {
            let begun = f64::from(begun) * 0.25;
            let mut series = Series::default();
            for look in 0..(70.0 / every) as u32 {
                let time_s = f64::from(look) * every;
                let pieces = due.iter().filter(|at| **at <= begun + time_s).count();
                series.push(Point { time_s, bytes: (1.0 + piece * pieces as f64) * MB });
                let verdict = judge(&series, Nature::Held, When::Ending);
                assert_ne!(verdict.leak, Some(true), "{unit} {piece} {every} {begun}: {verdict:?}");
            }
        }
    }
}

#[test]
fn a_cache_that_fills_and_stops_is_none() {
    for fills in [4.0_f64, 8.0, 16.0, 24.0, 32.0, 40.0] {
        let verdicts = watch(100, |t| (20.0 + 200.0 * (t / fills).min(1.0)) * MB);
        never(&format!("filled in {fills} s"), &verdicts);
        assert_eq!(at_the_end(&verdicts).leak, Some(false), "{:?}", at_the_end(&verdicts));
        assert_ne!(at_the_end(&verdicts).kind, Kind::Growing);
    }
}

#[test]
fn one_step_is_none() {
    let verdicts = watch(120, |t| if t < 50.0 { 30.0 * MB } else { 300.0 * MB });
    never("a step", &verdicts);
    assert_eq!(verdicts[70].kind, Kind::Step);
    assert_eq!(at_the_end(&verdicts).leak, Some(false));
}

#[test]
fn a_steady_leak_is_called_within_50_seconds() {
    for rate in [0.5, 1.0, 8.0] {
        let verdicts = watch(60, |t| (50.0 + rate * t) * MB);
        let at = first_leak(&verdicts).expect("a leak");
        assert!(at <= 50, "{rate} MB/s took {at} s");
        let [low, high] = verdicts[60].interval.expect("an interval");
        assert!(low <= rate * MB * 1.01 && rate * MB * 0.99 <= high, "{low} to {high}");
    }
}

#[test]
fn a_leak_after_an_hour_of_nothing_is_called_within_a_minute() {
    let mut random = Random::new(1);
    let verdicts =
        watch(3720, |t| (500.0 + 0.2 * random.normal() + (t - 3600.0).max(0.0) * 2.0) * MB);
    never("the hour", &verdicts[..3600]);
    assert!(first_leak(&verdicts).is_some_and(|at| at <= 3660), "{:?}", first_leak(&verdicts));
}

#[test]
fn a_large_start_does_not_hide_a_steady_leak() {
    let verdicts = watch(400, |t| (400.0 * (1.0 - (-t / 3.0).exp()) + t) * MB);
    assert_eq!(at_the_end(&verdicts).leak, Some(true), "{:?}", at_the_end(&verdicts));
}

#[test]
fn harmless_growth_keeps_its_rate() {
    let series: Series = (0..60).map(|t| (f64::from(t), f64::from(t) * 4.0 * MB)).collect();
    let verdict =
        judge(&series, Nature::Harmless("clean file pages can be read again"), When::Watching);
    assert_eq!((verdict.kind, verdict.leak), (Kind::Growing, Some(false)));
    assert!((verdict.bytes_per_s.expect("a rate") - 4.0 * MB).abs() < 1.0);
    assert!(verdict.why.contains("read again"));
}

#[test]
fn before_there_is_enough_it_says_how_much_is_missing() {
    let verdicts = watch(10, |t| t * 8.0 * MB);
    assert_eq!((at_the_end(&verdicts).kind, at_the_end(&verdicts).leak), (Kind::Undecided, None));
    assert!(at_the_end(&verdicts).why.contains("8 s longer"), "{:?}", at_the_end(&verdicts));
}

/// Judges while a series grows, every other look, and at its end.
fn watch_points(points: &[(f64, f64)]) -> (Option<f64>, Verdict) {
    let (mut series, mut first) = (Series::default(), None);
    for (index, &(time_s, bytes)) in points.iter().enumerate() {
        series.push(Point { time_s, bytes });
        let leaks =
            index % 2 == 0 && judge(&series, Nature::Held, When::Watching).leak == Some(true);
        first = first.or(leaks.then_some(time_s));
    }
    (first, judge(&series, Nature::Held, When::Ending))
}

fn any_noise(random: &mut Random, most: f64) -> Noise {
    let size = random.within(0.0, most);
    match random.within(0.0, 5.0) as u32 {
        0 => Noise::None,
        1 => Noise::White(size),
        2 => Noise::Alike(size, random.within(0.3, 0.95)),
        3 => Noise::HeavyTails(size),
        _ => Noise::Steps(size.max(0.1)),
    }
}

fn any_looks(random: &mut Random) -> Looks {
    match random.within(0.0, 3.0) as u32 {
        0 => Looks::Irregular(random.within(0.5, 3.0)),
        1 => Looks::Missing,
        _ => Looks::EverySecond,
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, ..Config::default() })]

    #[test]
    fn noise_of_every_kind_however_it_is_looked_at_is_never_a_leak(seed in 0u64..) {
        let mut random = Random::new(seed);
        let (noise, looks) = (any_noise(&mut random, 40.0), any_looks(&mut random));
        let points = worlds::series(Shape::Flat, noise, looks, 300.0, &mut random);
        let (first, last) = watch_points(&points);
        prop_assert!(first.is_none() && last.leak != Some(true), "{noise:?} {looks:?} {first:?} {last:?}");
    }

    #[test]
    fn what_fills_within_half_a_minute_is_never_a_leak_and_is_none_at_the_end(
        seed in 0u64.., rate in 0.5..16.0f64, full in 3.0..30.0f64,
    ) {
        let mut random = Random::new(seed);
        let noise = any_noise(&mut random, 0.3);
        let points = worlds::series(Shape::Fill(rate, full), noise, Looks::EverySecond, 90.0, &mut random);
        let (first, last) = watch_points(&points);
        prop_assert!(first.is_none() && last.leak != Some(true), "{noise:?} {first:?} {last:?}");
    }

    #[test]
    fn a_leak_under_noise_of_every_kind_is_found_however_it_is_looked_at(
        seed in 0u64.., rate in 0.5..8.0f64,
    ) {
        let mut random = Random::new(seed);
        let (noise, looks) = (any_noise(&mut random, rate), any_looks(&mut random));
        let points = worlds::series(Shape::Line(rate), noise, looks, 180.0, &mut random);
        let (_, last) = watch_points(&points);
        let found = last.bytes_per_s.unwrap_or(0.0) / MB / rate;
        prop_assert!(last.leak == Some(true) && (found - 1.0).abs() < 0.1, "{noise:?} {looks:?} {last:?}");
    }

    #[test]
    fn a_load_that_rose_and_fell_is_no_leak_the_next_time(
        seed in 0u64.., amplitude in 5.0..200.0f64, period in 100.0..400.0f64,
    ) {
        let mut random = Random::new(seed);
        let noise = any_noise(&mut random, 0.2);
        let shape = Shape::Wave(amplitude, period);
        let points = worlds::series(shape, noise, Looks::EverySecond, 3.0 * period, &mut random);
        let mut series = Series::default();
        for (time_s, bytes) in points {
            series.push(Point { time_s, bytes });
            let verdict = judge(&series, Nature::Held, When::Watching);
            prop_assert!(time_s < period || verdict.leak != Some(true), "{noise:?} {time_s} {verdict:?}");
        }
    }
}

#[test]
fn at_the_end_of_a_short_watch_a_plain_leak_is_called() {
    let series: Series = (0..25).map(|t| (f64::from(t), f64::from(t) * MB)).collect();
    assert_eq!(judge(&series, Nature::Held, When::Watching).leak, None);
    assert_eq!(judge(&series, Nature::Held, When::Ending).leak, Some(true));
}

#[test]
fn a_collectors_heap_is_watched_longer() {
    let grown = |seconds: u32| -> Series {
        (0..seconds).map(|t| (f64::from(t), f64::from(t) * MB)).collect()
    };
    for when in [When::Watching, When::Ending] {
        let early = judge(&grown(60), Nature::Collected, when);
        assert_eq!((early.leak, early.why.contains("collector")), (None, true), "{early:?}");
        assert_eq!(judge(&grown(100), Nature::Collected, when).leak, Some(true));
    }
}

/// A young heap whose objects all stay: its first seconds are its fastest.
#[test]
fn a_collectors_heap_that_slows_down_is_not_called_harmless_before_it_was_collected() {
    let slows = |seconds: u32| -> Series {
        let bytes = |t: f64| (30.0 + 12.0 * t - 0.15 * t * t) * MB;
        (0..seconds).map(|t| (f64::from(t), bytes(f64::from(t)))).collect()
    };
    let held = judge(&slows(30), Nature::Held, When::Ending);
    assert_eq!((held.kind, held.leak), (Kind::WarmingUp, Some(false)), "{held:?}");
    let early = judge(&slows(30), Nature::Collected, When::Ending);
    assert_eq!((early.leak, early.why.contains("collector")), (None, true), "{early:?}");
}

#[test]
fn a_table_that_doubles_is_not_called_over_before_its_next_step() {
    // It grew at 16, 32 and 64 s: the next step is due at 128 s.
    let verdicts = watch(120, |t| (1.0 + 2.0_f64.powf(t.max(8.0).log2().floor())) * MB);
    assert_eq!(verdicts[90].leak, None, "{:?}", verdicts[90]);
}

/// As a machine with too much to do lets a watch look: 4 to 8 s apart.
fn watch_rarely(seed: u64, seconds: f64, bytes_at: impl Fn(f64) -> f64) -> (bool, Verdict) {
    let (mut random, mut series) = (Random::new(seed), Series::default());
    let (mut time_s, mut ever) = (0.0, false);
    while time_s < seconds {
        series.push(Point { time_s, bytes: bytes_at(time_s) * (1.0 + 0.003 * random.uniform()) });
        ever |= judge(&series, Nature::Held, When::Watching).leak == Some(true);
        time_s += random.within(4.0, 8.0);
    }
    (ever, judge(&series, Nature::Held, When::Ending))
}

#[test]
fn what_is_looked_at_rarely_is_judged_all_the_same() {
    for seed in 0..40 {
        let part = seed as f64 / 40.0;
        let rate = 0.5 + 8.0 * part;
        let (_, last) = watch_rarely(seed, 150.0, |t| (30.0 + rate * t) * MB);
        assert_eq!(last.leak, Some(true), "{rate} MB/s: {last:?}");
        let (fills, slow, size) = (10.0 + 25.0 * part, 3.0 + 20.0 * part, 20.0 + 300.0 * part);
        let look_alikes: [(&str, &dyn Fn(f64) -> f64); 3] = [
            ("fills", &|t| (30.0 + rate * t.min(fills)) * MB),
            ("warms up", &|t| (30.0 + size * (1.0 - (-t / slow).exp())) * MB),
            ("one step", &|t| (30.0 + if t < fills { 0.0 } else { size }) * MB),
        ];
        for (name, bytes_at) in look_alikes {
            let (ever, last) = watch_rarely(seed, 150.0, bytes_at);
            assert!(!ever && last.leak != Some(true), "{name} {seed}: {ever} {last:?}");
        }
    }
}

/// Looks that come at odd times see odd steps of an even rate.
#[test]
fn what_lies_on_a_line_is_even_however_it_is_looked_at() {
    let ending = |shape: Shape, seed: u64| {
        let mut random = Random::new(seed);
        let noise = Noise::White(0.02);
        let points = worlds::series(shape, noise, Looks::Irregular(2.2), 30.0, &mut random);
        (points.len() >= 12).then(|| watch_points(&points).1)
    };
    let lines: Vec<Verdict> = (0..60).filter_map(|seed| ending(Shape::Line(0.5), seed)).collect();
    let rarely = |v: &&Verdict| v.why.contains("too rarely");
    let missed: Vec<&Verdict> =
        lines.iter().filter(|v| v.leak != Some(true) && !rarely(v)).collect();
    assert!(
        lines.len() > 30 && missed.is_empty(),
        "{} of {}: {missed:?}",
        missed.len(),
        lines.len()
    );
    for seed in 0..60 {
        for shape in
            [Shape::WarmUp(20.0, 12.0), Shape::WarmUp(60.0, 25.0), Shape::Logarithm(10.0, 3.0)]
        {
            let verdict = ending(shape, seed);
            assert!(verdict.as_ref().is_none_or(|v| v.leak != Some(true)), "{shape:?} {verdict:?}");
        }
    }
}

/// Smoothed, a walk looked like growth that never falls: one was called a leak after 26 s of its rise.
#[test]
fn a_working_set_that_walks_at_random_is_no_leak_as_a_sample_sees_it() {
    let mut called = Vec::new();
    for seed in 0..150 {
        let mut random = Random::new(seed);
        let (mut live, mut series) = (Vec::<f64>::new(), Series::default());
        for look in 0..75 {
            for _ in 0..6 {
                if random.uniform() < 0.0 && live.len() < 60 {
                    live.push(random.within(0.1, 0.9));
                } else if !live.is_empty() {
                    live.swap_remove(random.within(0.0, live.len() as f64) as usize);
                }
            }
            let bytes = (2.0 + live.iter().sum::<f64>()) * MB;
            series.push(Point { time_s: f64::from(look), bytes });
        }
        let verdict = judge(&series.without_glitches(), Nature::Held, When::Ending);
        called.extend((verdict.leak == Some(true)).then_some((seed, verdict)));
    }
    // One in a hundred walks like a line.
    assert!(called.len() <= 2, "{} of 150: {called:?}", called.len());
}
