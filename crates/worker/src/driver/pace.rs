//! How many prompt tokens a step may have, so that steps stay short on any machine.
//!
//! Between steps requests arrive and are given up, and running answers get their tokens: a step's
//! time bounds how late any of that is. Answers do not depend on how prompts are cut.

use std::time::Duration;

/// What a step with prompts should take at most: a third of the second within which everything that
/// a client leaves behind must be gone.
const LONGEST_STEP: Duration = Duration::from_millis(300);
/// Fewer would spend a step on reading the weights.
const FEWEST: usize = 16;
/// The newest step's weight in the mean.
const NEWEST: f64 = 0.3;

/// The time that a token of a prompt takes, as seen lately.
#[derive(Debug, Default)]
pub struct Pace {
    seconds_a_token: Option<f64>,
}

impl Pace {
    /// A step of so many tokens took so long. Steps of few tokens tell nothing of prompts.
    pub fn observe(&mut self, took: Duration, tokens: usize) {
        if tokens < FEWEST {
            return;
        }
        let now = took.as_secs_f64() / tokens as f64;
        let mean = self.seconds_a_token.map_or(now, |mean| mean + NEWEST * (now - mean));
        self.seconds_a_token = Some(mean);
    }

    /// Prompt tokens for the next step, at most `most`.
    pub fn prompt_tokens(&self, most: usize) -> usize {
        let Some(seconds) = self.seconds_a_token else { return most };
        let fit = (LONGEST_STEP.as_secs_f64() / seconds) as usize;
        (fit / FEWEST * FEWEST).clamp(FEWEST, most.max(FEWEST)).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_gets_short_steps() {
        let mut pace = Pace::default();
        assert_eq!(pace.prompt_tokens(128), 128, "nothing is known yet");
        pace.observe(Duration::from_millis(128), 128);
        assert_eq!(pace.prompt_tokens(128), 128);
        for _ in 0..20 {
            pace.observe(Duration::from_millis(1280), 128);
        }
        assert_eq!(pace.prompt_tokens(128), 16);
        for _ in 0..20 {
            pace.observe(Duration::from_millis(80), 16);
        }
        assert_eq!(pace.prompt_tokens(128), 48, "5 ms a token");
        pace.observe(Duration::from_secs(9), 1);
        assert_eq!(pace.prompt_tokens(128), 48, "a decode tells nothing");
        assert_eq!(pace.prompt_tokens(8), 8);
    }
}
