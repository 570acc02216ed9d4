//! From rows of logits to tokens.

use std::sync::Arc;
use std::time::Instant;

use plumb_engine::Logits;
use plumb_engine::sampling::{Sampled, logprobs};
use plumb_text::Tokenizer;

use super::Job;
use crate::generation::{Event, Finish, Scored};
use crate::metrics::Metrics;
use crate::scheduler::{Scheduler, Work};

/// What choosing the tokens of one step needs.
pub struct Sampling<'a> {
    pub scheduler: &'a mut Scheduler<Job>,
    pub metrics: &'a Metrics,
    pub tokenizer: &'a Tokenizer,
    pub now: Instant,
}

impl Sampling<'_> {
    /// The next token of a sequence, and, where its prompt is done, those of its siblings.
    pub fn sample(&mut self, work: &Work, row: &mut [f32]) {
        let slot = work.slot;
        self.count_prompt(slot);
        for index in 1..=self.scheduler.running(slot).siblings() {
            // The sampler changes its row.
            self.sample_sibling(slot, index, &mut row.to_vec());
        }
        let sequence = self.scheduler.running_mut(slot);
        let index = sequence.id().index;
        let (prompt, output, job) = sequence.parts_mut();
        let token = choose(job, index, row, (prompt, output), self.tokenizer);
        self.metrics.token(job, self.now);
        sequence.push(token);
    }

    fn sample_sibling(&mut self, slot: usize, index: u32, row: &mut [f32]) {
        let sequence = self.scheduler.running(slot);
        let shared = Arc::clone(&sequence.payload.shared);
        let mut job = Job::new(shared, index, None);
        let token = choose(&mut job, index, row, (sequence.tokens(), &[]), self.tokenizer);
        self.metrics.token(&mut job, self.now);
        self.scheduler.fork(slot, index, token, job);
    }

    /// Where a prompt's tokens came from, told once.
    fn count_prompt(&self, slot: usize) {
        let sequence = self.scheduler.running(slot);
        if sequence.payload.generated == 0 {
            let block = self.scheduler.pool().shape().tokens;
            let cached = sequence.cached_blocks() * block;
            let pulled = sequence.pulled_blocks() * block;
            self.metrics.prompt(sequence.prompt_len(), cached, pulled);
        }
    }

    /// Log-probabilities of the prompt's tokens that follow the rows of `work`.
    pub fn score_prompt(&mut self, work: &Work, logits: &mut Logits<'_>, first_row: usize) {
        let sequence = self.scheduler.running_mut(work.slot);
        let (tokens, prompt) = (sequence.tokens().to_vec(), sequence.prompt_len());
        let job = &mut sequence.payload;
        let Some(top) = job.shared.prompt_logprobs else { return };
        let mut scored = Vec::new();
        if work.start == 0 && job.scored == 0 {
            scored.push(None);
            job.scored = 1;
        }
        for i in 0..work.count {
            let next = work.start + i + 1;
            // After a preemption, what was told before is computed again, and not told again.
            if next == job.scored && next < prompt {
                scored.push(Some(score(logits.row(first_row + i), tokens[next], top as usize)));
                job.scored += 1;
            }
        }
        if !scored.is_empty() {
            job.tell(Event::Prompt { index: job.shared.first_index, scored });
        }
    }
}

fn score(row: &[f32], token: u32, top: usize) -> Scored {
    let (logprob, top) = logprobs(row, token, top);
    Scored { token, logprob, top }
}

/// Chooses the token after prompt and output. The last one is told when the sequence leaves, the
/// others at once.
fn choose(
    job: &mut Job,
    index: u32,
    row: &mut [f32],
    (prompt, output): (&[u32], &[u32]),
    tokenizer: &Tokenizer,
) -> u32 {
    let Sampled { token, logprob, top } = job.sampler.next(row, prompt, output);
    let scored = Scored { token, logprob: logprob.unwrap_or(0.0), top };
    job.generated += 1;
    match finish(job, token, tokenizer) {
        Some(finish) => job.last = Some((scored, finish)),
        None => {
            let index = job.shared.first_index + index;
            job.tell(Event::Token { index, scored, finish: None });
        }
    }
    token
}

fn finish(job: &Job, token: u32, tokenizer: &Tokenizer) -> Option<Finish> {
    let limits = &job.shared.limits;
    if job.generated >= limits.min_tokens.max(1) {
        if limits.stop_ids.contains(&token) {
            return Some(Finish::StopToken(token));
        }
        if !limits.ignore_eos && tokenizer.is_end(token) {
            return Some(Finish::End);
        }
    }
    (job.generated >= limits.max_tokens).then_some(Finish::Length)
}
