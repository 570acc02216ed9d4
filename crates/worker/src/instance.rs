//! What the API knows of its instance, and how it asks the engine's thread.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::Instant;

use plumb_http::BodyReader;
use plumb_kv::transfer::{Claim, PeerAddress, PullError, Puller, Remote, Server};
use plumb_kv::{Leases, Pool};
use plumb_protocol::ApiError;
use plumb_protocol::kv_transfer::{self, RemotePrefill};
use plumb_text::{ChatTemplate, Tokenizer};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::sampling::Bounds;
use crate::driver::{Command, LoadFailure, Submission};
use crate::generation::{Event, Generation};
use crate::metrics::Metrics;
use crate::scheduler::SeqId;

/// Resident bytes by layer, asked for at each scrape of the metrics.
pub type MemoryLayers = dyn Fn() -> Vec<(String, u64)> + Send + Sync;

/// One instance, as its API sees it.
pub struct Instance {
    /// The name that requests give.
    pub model_name: String,
    /// The model's file.
    pub model_path: String,
    /// Names build and model in answers.
    pub fingerprint: String,
    /// Prompt and answer together, in tokens.
    pub context: usize,
    /// Sequences that run at once: the most answers to one prompt.
    pub max_seqs: usize,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// None for a base model.
    pub template: Option<ChatTemplate>,
    /// Reads bodies within bounds.
    pub bodies: BodyReader,
    /// Whose turn it is to read a large one.
    pub large_bodies: Semaphore,
    /// All KV blocks.
    pub pool: Arc<Pool>,
    /// Blocks kept for peers.
    pub leases: Arc<Leases>,
    /// Gives blocks to peers.
    pub server: Server,
    /// Gets blocks from peers.
    pub puller: Puller,
    /// What a pull that cannot even begin means.
    pub on_load_failure: LoadFailure,
    /// The engine's counters.
    pub metrics: Arc<Metrics>,
    /// Where the engine's thread listens.
    pub commands: Sender<Command>,
    /// Whether it lives.
    pub alive: Arc<AtomicBool>,
    /// Places for answers, running and waiting.
    pub places: Arc<Semaphore>,
    /// How many places there are.
    pub max_answers: usize,
    /// Generations whose client still waits.
    pub in_flight: Arc<AtomicUsize>,
    /// The next request's number.
    pub next_request: AtomicU64,
    /// When it started, in seconds since 1970.
    pub created: u64,
    /// Resident bytes by layer.
    pub memory: Box<MemoryLayers>,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("model", &self.model_name).finish_non_exhaustive()
    }
}

impl Instance {
    /// What sampling fields are checked against.
    pub fn bounds(&self) -> Bounds {
        let max_n = u32::try_from(self.max_seqs).unwrap_or(u32::MAX);
        Bounds { vocab: self.tokenizer.len(), max_n }
    }

    /// Hands the prompts of one request to the engine's thread.
    ///
    /// # Errors
    /// 400 if there never is a place for them, 503 if there is none now, 500 if their KV cannot be claimed and policy says so.
    pub fn submit(&self, generations: Vec<Generation>) -> Result<Ticket, ApiError> {
        let answers: u32 = generations.iter().map(|g| g.n).sum();
        if answers as usize > self.max_answers {
            let message = format!(
                "This asks for {answers} answers at once; this instance takes {} at most.",
                self.max_answers
            );
            return Err(ApiError::bad_request(message).param("n"));
        }
        let places = Arc::clone(&self.places).try_acquire_many_owned(answers).map_err(|_| {
            ApiError::unavailable("This instance has as many requests as it can queue.", 1)
        })?;
        let (sender, events) = unbounded_channel();
        let mut ticket = Ticket {
            events,
            commands: self.commands.clone(),
            parts: Vec::with_capacity(generations.len()),
            in_flight: Arc::clone(&self.in_flight),
            _places: places,
        };
        for generation in generations {
            let request = self.next_request.fetch_add(1, Ordering::Relaxed);
            let claim = self.claim(&generation)?;
            let (first_index, n) = (generation.first_index, generation.n);
            let (events, arrived) = (sender.clone(), Instant::now());
            let submission = Submission { request, generation, claim, events, arrived };
            ticket.add(Part { request, first_index, n });
            let submitted = self.commands.send(Command::Submit(Box::new(submission)));
            submitted.map_err(|_| ApiError::unavailable("The engine has stopped.", 1))?;
        }
        Ok(ticket)
    }

    /// The blocks at a peer that a request names, and how many of its tokens they hold. What is
    /// missing or foreign is computed here, as vLLM does.
    fn claim(&self, generation: &Generation) -> Result<Option<(Claim, usize)>, ApiError> {
        let name = &generation.name;
        let remote = match &generation.transfer {
            kv_transfer::Request::Pull(remote) => remote,
            kv_transfer::Request::Incomplete(field) => {
                tracing::warn!(request = name, field, "cannot pull: computing the prompt here");
                return Ok(None);
            }
            _ => return Ok(None),
        };
        match self.claim_at_peer(remote) {
            Ok(claim) => Ok(Some((claim, self.held_tokens(remote)))),
            Err(error) => {
                tracing::warn!(request = name, %error, "cannot pull");
                match self.on_load_failure {
                    LoadFailure::Recompute => Ok(None),
                    LoadFailure::Fail => Err(ApiError::internal(error.to_string())),
                }
            }
        }
    }

    fn claim_at_peer(&self, remote: &RemotePrefill) -> Result<Claim, PullError> {
        self.puller.claim(Remote {
            peer: PeerAddress { host: remote.host.clone(), port: remote.port },
            engine_id: remote.engine_id.clone(),
            request_id: remote.request_id.clone(),
        })
    }

    /// Tokens that the named blocks hold; blocks in several groups or over several ranks are not
    /// ours to read.
    fn held_tokens(&self, remote: &RemotePrefill) -> usize {
        let ([ids], 1) = (remote.block_ids.as_slice(), remote.tp_size) else { return 0 };
        let most = ids.len() * self.pool.shape().tokens;
        remote.num_tokens.map_or(most, |tokens| most.min(tokens as usize))
    }
}

/// The answers to one request, under way. Dropping it ends them.
#[derive(Debug)]
pub struct Ticket {
    events: UnboundedReceiver<Event>,
    commands: Sender<Command>,
    parts: Vec<Part>,
    in_flight: Arc<AtomicUsize>,
    _places: OwnedSemaphorePermit,
}

/// One prompt's share of a request.
#[derive(Debug, Clone, Copy)]
struct Part {
    request: u64,
    first_index: u32,
    n: u32,
}

impl Ticket {
    /// What happens next; none once nothing more can.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// This answer's text has ended.
    pub fn stop(&self, index: u32) {
        let part =
            self.parts.iter().find(|p| (p.first_index..p.first_index + p.n).contains(&index));
        if let Some(part) = part {
            let id = SeqId { request: part.request, index: index - part.first_index };
            self.commands.send(Command::Stop(id)).ok();
        }
    }

    fn add(&mut self, part: Part) {
        self.parts.push(part);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.parts.len(), Ordering::Relaxed);
        for part in &self.parts {
            self.commands.send(Command::Abort(part.request)).ok();
        }
    }
}
