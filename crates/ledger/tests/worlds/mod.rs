//! Synthetic series whose truth is known: what leaks, what only seems to, and noise of many kinds.
#![allow(dead_code)]

/// A million bytes.
pub const MB: f64 = 1e6;

/// A small, seeded generator: the same series for the same seed, everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d);
        for _ in 0..4 {
            random.uniform();
        }
        random
    }

    /// Uniform in -1..1.
    pub fn uniform(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// Uniform between two values.
    pub fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * f64::midpoint(self.uniform(), 1.0)
    }

    /// Roughly normal, standard deviation 1.
    pub fn normal(&mut self) -> f64 {
        (0..6).map(|_| self.uniform()).sum::<f64>() / 2.0_f64.sqrt()
    }

    /// Exponential, mean 1.
    pub fn exponential(&mut self) -> f64 {
        -self.within(1e-12, 1.0).ln()
    }
}

/// What a series does apart from its noise; amounts in MB, times in seconds.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    Flat,
    /// Rate.
    Line(f64),
    /// Rate, seconds apart.
    Bursts(f64, f64),
    /// Rate, mean seconds apart; sizes and gaps exponential.
    RandomBursts(f64, f64),
    /// Rate, height and period of a sawtooth above it.
    LineUnderSawtooth(f64, f64, f64),
    /// Rate, from this time on.
    LineAfter(f64, f64),
    /// Rate, from a start that took so much and gave it back.
    LineAfterStart(f64, f64),
    /// Rate, and when it is full.
    Fill(f64, f64),
    /// Size and slowness of an exponential approach.
    WarmUp(f64, f64),
    /// Size and slowness of a logarithm.
    Logarithm(f64, f64),
    /// Places of a cache for items of this mean size, one of which is used each so many seconds.
    Cache(f64, f64, f64),
    /// Size, and when.
    Step(f64, f64),
    /// Mean height, mean period: every tooth is another.
    Sawtooth(f64, f64),
    /// Amplitude, period.
    Wave(f64, f64),
    /// The highest so far of a load of this mean size that changes every so many seconds: retention.
    Retention(f64, f64),
    /// Deviation, and the time in which it is forgotten: a queue, a working set.
    Wander(f64, f64),
    /// Pieces that come and go with equal chance: at most so many, so many each second.
    Walk(f64, f64),
}

/// Noise on top; amounts in MB.
#[derive(Debug, Clone, Copy)]
pub enum Noise {
    None,
    White(f64),
    /// Deviation, and how much of it a second keeps.
    Alike(f64, f64),
    /// Rare peaks without bound.
    HeavyTails(f64),
    /// Rounded to so much.
    Steps(f64),
}

/// When it is looked at.
#[derive(Debug, Clone, Copy)]
pub enum Looks {
    EverySecond,
    /// Mean seconds, exponential.
    Irregular(f64),
    /// One in four is missing, and now and then fifteen seconds.
    Missing,
}

/// Time and bytes of one such process, watched for so many seconds.
pub fn series(
    shape: Shape,
    noise: Noise,
    looks: Looks,
    seconds: f64,
    random: &mut Random,
) -> Vec<(f64, f64)> {
    let level = random.within(20.0, 400.0);
    let mut source = Source { shape, at: 0.0, held: 0.0, next: 0.0, tooth: (0.0, 1.0, 0.0) };
    let (mut points, mut time, mut off, mut hole) = (Vec::new(), 0.0, 0.0, 0.0);
    while time <= seconds {
        let mut value = level + source.value(time, random);
        value += match noise {
            Noise::None => 0.0,
            Noise::White(deviation) => deviation * random.normal(),
            Noise::Alike(deviation, kept) => {
                off = kept * off + (1.0 - kept * kept).sqrt() * random.normal();
                deviation * off
            }
            Noise::HeavyTails(size) => size * random.exponential().powi(2),
            Noise::Steps(_) => 0.0,
        };
        if let Noise::Steps(size) = noise {
            value = (value / size).floor() * size;
        }
        let look = match looks {
            Looks::Missing => {
                if random.within(0.0, 1.0) < 0.01 {
                    hole = time + 15.0;
                }
                time >= hole && random.within(0.0, 1.0) > 0.25
            }
            _ => true,
        };
        if look {
            points.push((time, value.max(0.1) * MB));
        }
        time += match looks {
            Looks::Irregular(mean) => (mean * random.exponential()).max(0.05),
            _ => 1.0,
        };
    }
    points
}

struct Source {
    shape: Shape,
    at: f64,
    held: f64,
    next: f64,
    tooth: (f64, f64, f64),
}

impl Source {
    fn value(&mut self, time: f64, random: &mut Random) -> f64 {
        let past = std::mem::replace(&mut self.at, time);
        match self.shape {
            Shape::Flat => 0.0,
            Shape::Line(rate) => rate * time,
            Shape::Bursts(rate, every) => rate * every * (time / every).floor(),
            Shape::RandomBursts(rate, mean) => {
                while self.next <= time {
                    self.held +=
                        if self.next > 0.0 { rate * mean * random.exponential() } else { 0.0 };
                    self.next += mean * random.exponential();
                }
                self.held
            }
            Shape::LineUnderSawtooth(rate, height, period) => {
                rate * time + self.saw(height, period, time, random)
            }
            Shape::LineAfter(rate, start) => rate * (time - start).max(0.0),
            Shape::LineAfterStart(rate, size) => {
                rate * time + if time < 4.0 { size * time / 4.0 } else { 0.0 }
            }
            Shape::Fill(rate, full) => rate * time.min(full),
            Shape::WarmUp(size, slowness) => size * (1.0 - (-time / slowness).exp()),
            Shape::Logarithm(size, slowness) => size * (1.0 + time / slowness).ln(),
            Shape::Cache(places, size, every) => {
                while self.next <= time {
                    let filled = self.tooth.2 / places;
                    if random.within(0.0, 1.0) > filled {
                        self.tooth.2 += 1.0;
                        self.held += size * random.exponential();
                    }
                    self.next += every * random.exponential();
                }
                self.held
            }
            Shape::Step(size, when) => {
                if time < when {
                    0.0
                } else {
                    size
                }
            }
            Shape::Sawtooth(height, period) => self.saw(height, period, time, random),
            Shape::Wave(amplitude, period) => {
                amplitude * (1.0 - (time / period * std::f64::consts::TAU).cos())
            }
            Shape::Retention(size, every) => {
                while self.next <= time {
                    self.held = self.held.max(size * (1.0 + 0.3 * random.normal()));
                    self.next += every;
                }
                self.held
            }
            Shape::Walk(most, each) => {
                while self.next <= time {
                    let pieces = self.tooth.2;
                    if random.uniform() < 0.0 && pieces < most {
                        self.tooth.2 += 1.0;
                        self.held += random.within(0.1, 0.9);
                    } else if pieces > 0.0 {
                        // What goes is any of them: their mean, more or less.
                        let mean = self.held / pieces;
                        self.tooth.2 -= 1.0;
                        self.held -= mean * random.within(0.2, 1.8);
                        self.held = if pieces > 1.0 { self.held.max(0.0) } else { 0.0 };
                    }
                    self.next += 1.0 / each;
                }
                self.held
            }
            Shape::Wander(deviation, slowness) => {
                let kept = (-(time - past) / slowness).exp();
                self.held = kept * self.held + (1.0 - kept * kept).sqrt() * random.normal();
                deviation * (self.held + 3.0).max(0.0)
            }
        }
    }

    fn saw(&mut self, height: f64, period: f64, time: f64, random: &mut Random) -> f64 {
        while time >= self.tooth.0 + self.tooth.1 {
            let start = if self.tooth.2 > 0.0 { self.tooth.0 + self.tooth.1 } else { 0.0 };
            self.tooth =
                (start, period * random.within(0.7, 1.3), height * random.within(0.7, 1.3));
        }
        self.tooth.2 * ((time - self.tooth.0) / self.tooth.1).clamp(0.0, 1.0)
    }
}
