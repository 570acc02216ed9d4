//! What is asked, and when: all of it from a seed.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// When requests are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// At so many a second on average, with exponential gaps, whatever the server does.
    Open(f64),
    /// By so many clients, each asking again as soon as it was answered.
    Closed(usize),
}

/// When no more requests are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// After so many.
    Requests(usize),
    /// After so long.
    Time(Duration),
}

/// The requests of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Traffic {
    /// When they are sent.
    pub arrivals: Arrivals,
    /// How many.
    pub bound: Bound,
    /// Median words of a prompt, beside the shared ones.
    pub prompt_words: usize,
    /// Words that all prompts begin with, as a system prompt does.
    pub shared_words: usize,
    /// Median of `max_tokens`.
    pub output_tokens: usize,
    /// Standard deviation of the logarithm of both lengths; 0 makes all requests alike.
    pub spread: f64,
    /// The same seed gives the same requests at the same times.
    pub seed: u64,
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    /// Seconds from the start of the run at which it is due; 0 in a closed loop.
    pub due_s: f64,
    pub prompt: String,
    pub max_tokens: usize,
}

/// Common words, most of which are one token of most vocabularies.
const WORDS: [&str; 64] = [
    "the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "as", "with",
    "they", "at", "be", "this", "from", "have", "or", "by", "one", "had", "not", "but", "what",
    "all", "were", "when", "we", "there", "can", "an", "your", "which", "their", "said", "if",
    "do", "will", "each", "about", "how", "up", "out", "them", "then", "she", "many", "some", "so",
    "these", "would", "other", "into", "has", "more", "her", "two", "like", "him", "see", "time",
];

impl Traffic {
    /// Request `index`, for which all earlier ones have been drawn.
    pub(crate) fn requests(&self) -> impl Iterator<Item = Request> + use<> {
        let traffic = self.clone();
        let mut rng = SmallRng::seed_from_u64(self.seed);
        let shared = words(&mut rng, self.shared_words);
        let mut due_s = 0.0;
        std::iter::from_fn(move || {
            if let Arrivals::Open(rate) = traffic.arrivals {
                due_s += -(1.0 - rng.random::<f64>()).ln() / rate;
            }
            let own = traffic.length(&mut rng, traffic.prompt_words);
            let own = words(&mut rng, own);
            let prompt = [shared.as_str(), &own].join(" ").trim().to_owned();
            let max_tokens = traffic.length(&mut rng, traffic.output_tokens);
            Some(Request { due_s, prompt, max_tokens })
        })
    }

    /// A length around `median`: logarithms of lengths are normal (Box and Muller, 1958), at most
    /// eight times the median.
    fn length(&self, rng: &mut SmallRng, median: usize) -> usize {
        let (a, b) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        let length = (median as f64 * (normal * self.spread).exp()).round() as usize;
        length.clamp(1, (median * 8).max(1))
    }
}

fn words(rng: &mut SmallRng, count: usize) -> String {
    let words: Vec<&str> = (0..count).map(|_| WORDS[rng.random_range(0..WORDS.len())]).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAFFIC: Traffic = Traffic {
        arrivals: Arrivals::Open(10.0),
        bound: Bound::Requests(0),
        prompt_words: 100,
        shared_words: 20,
        output_tokens: 30,
        spread: 0.5,
        seed: 7,
    };

    #[test]
    fn a_seed_gives_the_same_requests_and_another_one_others() {
        let first = |traffic: &Traffic| traffic.requests().take(50).collect::<Vec<_>>();
        assert_eq!(first(&TRAFFIC), first(&TRAFFIC));
        assert_ne!(first(&TRAFFIC), first(&Traffic { seed: 8, ..TRAFFIC }));
    }

    #[test]
    fn lengths_and_gaps_are_those_asked_for() {
        let all: Vec<Request> = TRAFFIC.requests().take(4000).collect();
        let rate = all.len() as f64 / all[all.len() - 1].due_s;
        assert!((rate / 10.0 - 1.0).abs() < 0.05, "{rate} a second");
        let mut outputs: Vec<usize> = all.iter().map(|r| r.max_tokens).collect();
        outputs.sort_unstable();
        assert!((28..=32).contains(&outputs[2000]), "median {}", outputs[2000]);
        assert!(outputs[400] < 20 && outputs[3600] > 50, "a tenth and nine tenths");
        let shared: Vec<&str> = all[0].prompt.split(' ').take(20).collect();
        assert!(all.iter().all(|r| r.prompt.split(' ').take(20).eq(shared.iter().copied())));
    }

    #[test]
    fn without_spread_all_requests_are_alike() {
        let traffic = Traffic { spread: 0.0, arrivals: Arrivals::Closed(2), ..TRAFFIC };
        for request in traffic.requests().take(20) {
            assert_eq!(request.prompt.split(' ').count(), 120);
            assert_eq!((request.max_tokens, request.due_s), (30, 0.0));
        }
    }
}
