//! One answer under way, as the engine's thread knows it.

use std::sync::Arc;
use std::time::Instant;

use plumb_engine::sampling::Sampler;
use plumb_kv::transfer::Claim;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use super::Driver;
use crate::generation::{AnswerLimits, Event, Finish, Generation, Scored};
use crate::scheduler::{NewSequence, SeqId};

/// A request as it arrives at the engine's thread.
#[derive(Debug)]
pub struct Submission {
    /// Its number, given once.
    pub request: u64,
    /// What to compute.
    pub generation: Generation,
    /// Blocks at a peer, kept alive until they are pulled.
    pub claim: Option<(Claim, usize)>,
    /// Where its events go. At most `max_tokens` a answer are ever sent, so this is bounded.
    pub events: UnboundedSender<Event>,
    /// When it arrived.
    pub arrived: Instant,
}

/// What siblings share.
#[derive(Debug)]
pub struct Shared {
    /// The request's public name.
    pub name: String,
    /// When an answer ends.
    pub limits: AnswerLimits,
    /// How tokens are chosen.
    pub sampling: plumb_engine::sampling::Params,
    /// Whether the blocks are kept for another instance.
    pub keep: bool,
    /// Alternatives for each token of the prompt, if they are wanted.
    pub prompt_logprobs: Option<u32>,
    /// The number of the first answer among all of the request's.
    pub first_index: u32,
    /// When the request arrived.
    pub arrived: Instant,
    events: UnboundedSender<Event>,
}

/// One answer under way.
#[derive(Debug)]
pub struct Job {
    /// What siblings share.
    pub shared: Arc<Shared>,
    /// Chooses its tokens.
    pub sampler: Sampler,
    /// Tokens so far.
    pub generated: usize,
    /// Tokens of the prompt whose log-probabilities were sent.
    pub scored: usize,
    /// Its last token, once there is one.
    pub last: Option<(Scored, Finish)>,
    /// When its last token came.
    pub token_at: Option<Instant>,
    /// What a peer holds for it, until it is pulled.
    pub claim: Option<Claim>,
    /// Its pull under way.
    pub pull: Option<AbortOnDrop>,
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct AbortOnDrop(pub AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Job {
    pub(super) fn new(shared: Arc<Shared>, index: u32, claim: Option<Claim>) -> Self {
        let mut sampling = shared.sampling.clone();
        // As in vLLM: the answers of one request differ, and each can be had again.
        sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(u64::from(index)));
        Self {
            sampler: Sampler::new(sampling),
            shared,
            generated: 0,
            scored: 0,
            last: None,
            token_at: None,
            claim,
            pull: None,
        }
    }

    /// Sends an event; a request that is gone will be aborted by its own command.
    pub fn tell(&self, event: Event) {
        self.shared.events.send(event).ok();
    }
}

impl Driver {
    pub(super) fn submit(&mut self, submission: Submission) {
        let Submission { request, generation, claim, events, arrived } = submission;
        let keep = generation.transfer == plumb_protocol::kv_transfer::Request::Keep;
        let (claim, remote_tokens) = claim.unzip();
        let shared = Arc::new(Shared {
            name: generation.name,
            limits: generation.limits,
            sampling: generation.sampling,
            keep,
            prompt_logprobs: generation.prompt_logprobs,
            first_index: generation.first_index,
            arrived,
            events,
        });
        self.scheduler.add(NewSequence {
            id: SeqId { request, index: 0 },
            prompt: generation.prompt,
            salt: generation.salt,
            siblings: generation.n - 1,
            all_rows: generation.prompt_logprobs.is_some(),
            remote_tokens,
            payload: Job::new(shared, 0, claim),
        });
    }
}
