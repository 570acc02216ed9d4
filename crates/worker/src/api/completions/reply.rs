//! From a completion's tokens to what its client reads.

use axum::response::Response;
use plumb_protocol::ApiError;
use plumb_protocol::openai::{
    CompletionChoice, CompletionChunk, CompletionChunkChoice, CompletionLogprobs,
    CompletionRequest, CompletionResponse,
};

use super::writer::{Increment, Writer};
use crate::api::answer::Answer;
use crate::api::events;
use crate::instance::Instance;
use crate::output::Ended;

/// What of the request its answer depends on.
#[derive(Debug, Clone)]
pub struct Settings {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    stream: bool,
    include_usage: bool,
    logprobs: bool,
    token_ids: bool,
}

impl Settings {
    /// The settings of a request that will be known by `id`.
    pub fn of(request: &CompletionRequest, id: String, instance: &Instance) -> Self {
        let fields = &request.sampling;
        Self {
            id,
            created: events::unix_seconds(),
            model: instance.model_name.clone(),
            fingerprint: instance.fingerprint.clone(),
            stream: fields.stream == Some(true),
            include_usage: fields.stream_options.is_some_and(|o| o.include_usage == Some(true)),
            logprobs: request.logprobs.is_some(),
            token_ids: fields.return_token_ids == Some(true),
        }
    }

    /// Whether the client wants events.
    pub fn streams(&self) -> bool {
        self.stream
    }

    fn chunk(&self, choices: Vec<CompletionChunkChoice>) -> CompletionChunk {
        CompletionChunk {
            id: self.id.clone(),
            object: "text_completion".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: None,
            system_fingerprint: None,
        }
    }

    /// The event of one increment; empty if a client need not be told.
    fn event(&self, new: Increment, prompt: &[u32]) -> String {
        if new.text.is_empty() && new.ended.is_none() && !self.logprobs && !self.token_ids {
            return String::new();
        }
        let (reason, stop_reason) = new.ended.map(|e| (e.reason, e.stop_reason)).unzip();
        let choice = CompletionChunkChoice {
            index: new.index,
            text: new.text,
            logprobs: new.logprobs,
            finish_reason: reason.map(str::to_owned),
            stop_reason: stop_reason.filter(|r| !r.is_null()),
            prompt_token_ids: (self.token_ids && new.first).then(|| prompt.to_vec()),
            token_ids: self.token_ids.then(|| vec![new.token]),
        };
        events::event(&self.chunk(vec![choice]))
    }
}

/// One choice, gathered.
#[derive(Debug, Default)]
struct Gathered {
    text: String,
    logprobs: CompletionLogprobs,
    tokens: Vec<u32>,
    ended: Option<Ended>,
}

impl Gathered {
    fn add(&mut self, new: Increment) {
        self.text.push_str(&new.text);
        self.tokens.push(new.token);
        self.ended = new.ended;
        if let Some(mut new) = new.logprobs {
            self.logprobs.text_offset.append(&mut new.text_offset);
            self.logprobs.token_logprobs.append(&mut new.token_logprobs);
            self.logprobs.tokens.append(&mut new.tokens);
            self.logprobs.top_logprobs.append(&mut new.top_logprobs);
        }
    }

    fn choice(self, index: u32, prompt: &[u32], settings: &Settings) -> CompletionChoice {
        let (reason, stop_reason) = self.ended.map(|e| (e.reason, e.stop_reason)).unzip();
        CompletionChoice {
            index,
            text: self.text,
            logprobs: settings.logprobs.then_some(self.logprobs),
            finish_reason: reason.map(str::to_owned),
            stop_reason: stop_reason.filter(|r| !r.is_null()),
            token_ids: settings.token_ids.then_some(self.tokens),
            prompt_logprobs: None,
            prompt_token_ids: settings.token_ids.then(|| prompt.to_vec()),
            routed_experts: None,
        }
    }
}

/// The answer as one body.
///
/// # Errors
/// What the client should be told.
pub async fn whole(
    mut answer: Answer,
    mut writer: Writer,
    settings: Settings,
) -> Result<Response, ApiError> {
    let mut gathered: Vec<Gathered> = (0..writer.choices()).map(|_| Gathered::default()).collect();
    while let Some(update) = answer.next().await {
        if let Some(new) = writer.add(update?) {
            gathered[new.index as usize].add(new);
        }
    }
    let prompt = |index| answer.prompts()[writer.prompt_of(index)].as_slice();
    let choices = gathered.into_iter().zip(0..);
    let choices = choices.map(|(g, index)| g.choice(index, prompt(index), &settings)).collect();
    events::json(&CompletionResponse {
        choices,
        id: settings.id,
        object: "text_completion".into(),
        created: settings.created,
        model: settings.model,
        service_tier: None,
        system_fingerprint: Some(settings.fingerprint),
        usage: answer.usage().into(),
        kv_transfer_params: answer.hand_over(),
        ec_transfer_params: None,
        metrics: None,
    })
}

/// The answer as events. Waits for the first token, so that what fails before it has a status.
///
/// # Errors
/// What the client should be told.
pub async fn stream(
    mut answer: Answer,
    mut writer: Writer,
    settings: Settings,
) -> Result<Response, ApiError> {
    let first = answer.next().await.transpose()?;
    let last = settings.chunk(Vec::new());
    let last = settings.include_usage.then_some((last, settings.fingerprint.clone()));
    let tail = move |answer: &Answer| {
        last.map_or_else(String::new, |(mut chunk, fingerprint)| {
            chunk.usage = Some(answer.usage());
            chunk.system_fingerprint = Some(fingerprint);
            events::event(&chunk)
        })
    };
    let prompts = answer.prompts().to_vec();
    let mut each = move |update| {
        let Some(new) = writer.add(update) else { return String::new() };
        let prompt = &prompts[writer.prompt_of(new.index)];
        settings.event(new, prompt)
    };
    let head = first.map_or_else(String::new, &mut each);
    Ok(events::stream(head, answer, each, tail))
}
