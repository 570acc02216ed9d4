//! The sampler of one request.

use super::cut::{Candidate, cut, descending};
use super::{Params, Sampled, greedy, logprobs, penalties, random};

/// Below it vLLM takes a temperature for 0.
const COLDEST: f32 = 1e-5;

/// Chooses the tokens of one request.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: Params,
    seed: u64,
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// A sampler for a request with these parameters.
    #[must_use]
    pub fn new(params: Params) -> Self {
        let seed = params.seed.unwrap_or_else(random::fresh_seed);
        Self { params, seed, candidates: Vec::new() }
    }

    /// The parameters.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Chooses the token after `prompt` and `output` from the logits of its row, which are changed.
    pub fn next(&mut self, logits: &mut [f32], prompt: &[u32], output: &[u32]) -> Sampled {
        // The row before changes is kept only where somebody asked for its probabilities.
        let raw = self.params.logprobs.map(|top| (top, logits.to_vec()));
        penalties::apply(&self.params, prompt, output, logits);
        let token = if self.params.temperature < COLDEST {
            greedy(logits)
        } else {
            self.draw(logits, output.len())
        };
        match raw {
            Some((top, raw)) => {
                let (logprob, top) = logprobs(&raw, token, top);
                Sampled { token, logprob: Some(logprob), top }
            }
            None => Sampled { token, logprob: None, top: Vec::new() },
        }
    }

    fn draw(&mut self, logits: &[f32], index: usize) -> u32 {
        cut(&self.params, logits, &mut self.candidates);
        let candidates = &mut self.candidates;
        // An order that does not depend on how the cuts selected.
        candidates.sort_unstable_by_key(|candidate| candidate.1);
        let sum: f64 = candidates.iter().map(|candidate| f64::from(candidate.0)).sum();
        let mut left = random::uniform(self.seed, index) * sum;
        for &(weight, token) in candidates.iter() {
            left -= f64::from(weight);
            if left < 0.0 {
                return token;
            }
        }
        // Rounding can leave a crumb: it belongs to the most probable token.
        candidates
            .iter()
            .min_by(|a, b| descending(a, b))
            .map_or_else(|| greedy(logits), |best| best.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_lowest_id_of_equals() {
        let mut sampler = Sampler::new(Params { temperature: 0.0, ..Params::default() });
        assert_eq!(sampler.next(&mut [1.0, 3.0, 3.0, f32::NAN], &[], &[]).token, 1);
        assert_eq!(sampler.next(&mut [f32::NAN; 4], &[], &[]).token, 0);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let p = [0.5f32, 0.2, 0.25, 0.05];
        let mut sampler = Sampler::new(Params { seed: Some(7), ..Params::default() });
        let mut counts = [0u32; 4];
        let output = vec![0; 40_000];
        for index in 0..output.len() {
            let mut logits = p.map(f32::ln);
            counts[sampler.next(&mut logits, &[], &output[..index]).token as usize] += 1;
        }
        for (count, p) in counts.iter().zip(p) {
            let expected = p * 40_000.0;
            let deviation = (expected * (1.0 - p)).sqrt();
            assert!((*count as f32 - expected).abs() < 5.0 * deviation, "{counts:?}");
        }
    }

    #[test]
    fn a_seed_repeats_its_draws_wherever_they_are_made() {
        let logits: Vec<f32> = (0..500).map(|i| (i * 31 % 17) as f32 / 4.0).collect();
        let draws = |seed| {
            let params =
                Params { seed, temperature: 0.8, top_p: 0.9, top_k: 50, ..Params::default() };
            let output = [0; 20];
            let tokens = (0..20).map(|i| {
                // A new sampler every time: nothing is carried from draw to draw.
                Sampler::new(params.clone()).next(&mut logits.clone(), &[], &output[..i]).token
            });
            tokens.collect::<Vec<_>>()
        };
        assert_eq!(draws(Some(1)), draws(Some(1)));
        assert_ne!(draws(Some(1)), draws(Some(2)));
    }

    #[test]
    fn log_probabilities_are_of_the_models_own_logits() {
        let params = Params {
            temperature: 0.0,
            logit_bias: vec![(0, 100.0)],
            logprobs: Some(2),
            ..Params::default()
        };
        let sampled = Sampler::new(params).next(&mut [1.0, 2.0, 3.0], &[], &[]);
        assert_eq!(sampled.token, 0);
        assert_eq!(sampled.top.iter().map(|t| t.0).collect::<Vec<_>>(), [2, 1]);
        assert!((sampled.logprob.unwrap() + 2.407_606).abs() < 1e-5, "{sampled:?}");
    }
}
