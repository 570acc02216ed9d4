//! Growth in steps of random sizes at random times.

mod worlds;

use plumb_ledger::series::Series;
use plumb_ledger::verdict::{Nature, When, judge};
use worlds::{Looks, Noise, Random, Shape, series};

/// Of so many watches, how many end with a leak.
fn leaks(seconds: f64, make: impl Fn(&mut Random) -> Shape) -> usize {
    let ends = (0..60).map(|seed| {
        let mut random = Random::new(seed);
        let (shape, noise) = (make(&mut random), Noise::White(0.1));
        let points: Series =
            series(shape, noise, Looks::EverySecond, seconds, &mut random).into_iter().collect();
        judge(&points, Nature::Held, When::Ending).leak
    });
    ends.filter(|leak| *leak == Some(true)).count()
}

#[test]
fn what_comes_in_random_bursts_is_a_leak_though_the_late_ones_are_fewer_by_chance() {
    let found = leaks(240.0, |r| Shape::RandomBursts(r.within(0.5, 4.0), r.within(1.0, 5.0)));
    assert!(found >= 50, "{found} of 60");
}

#[test]
fn a_cache_of_large_items_that_fills_is_none() {
    let places = |r: &mut Random| r.within(10.0, 60.0).floor();
    let found = leaks(400.0, |r| {
        let places = places(r);
        Shape::Cache(places, r.within(1.0, 8.0), r.within(10.0, 40.0) / places)
    });
    assert_eq!(found, 0);
}
