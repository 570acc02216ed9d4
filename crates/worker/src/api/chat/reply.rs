//! From a chat's tokens to what its client reads.

use std::sync::Arc;

use axum::response::Response;
use plumb_protocol::ApiError;
use plumb_protocol::openai::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatDelta, ChatMessage, ChatRequest, ChatResponse,
};

use crate::api::answer::{Answer, Update};
use crate::api::{events, logprobs};
use crate::generation::Scored;
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
    n: u32,
}

impl Settings {
    /// The settings of a request that will be known by `id`.
    pub fn of(request: &ChatRequest, id: String, instance: &Instance) -> Self {
        let fields = &request.sampling;
        Self {
            id,
            created: events::unix_seconds(),
            model: instance.model_name.clone(),
            fingerprint: instance.fingerprint.clone(),
            stream: fields.stream == Some(true),
            include_usage: fields.stream_options.is_some_and(|o| o.include_usage == Some(true)),
            logprobs: request.logprobs == Some(true),
            token_ids: fields.return_token_ids == Some(true),
            n: fields.n.unwrap_or(1),
        }
    }

    /// The request's public name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether the client wants events.
    pub fn streams(&self) -> bool {
        self.stream
    }

    fn chunk(&self, choices: Vec<ChatChunkChoice>) -> ChatChunk {
        ChatChunk {
            id: self.id.clone(),
            object: "chat.completion.chunk".into(),
            created: self.created,
            model: self.model.clone(),
            choices,
            usage: None,
            prompt_token_ids: None,
            prompt_text: None,
            system_fingerprint: None,
        }
    }
}

/// One choice, gathered.
#[derive(Debug, Default)]
struct Gathered {
    text: String,
    scored: Vec<Scored>,
    ended: Option<Ended>,
}

/// The answer as one body.
///
/// # Errors
/// What the client should be told.
pub async fn whole(
    mut answer: Answer,
    settings: &Settings,
    instance: &Instance,
) -> Result<Response, ApiError> {
    let mut gathered: Vec<Gathered> = (0..settings.n).map(|_| Gathered::default()).collect();
    while let Some(update) = answer.next().await {
        let Update::Token { index, scored, piece } = update? else { continue };
        let choice = &mut gathered[index as usize];
        choice.text.push_str(&piece.text);
        choice.ended = piece.ended;
        choice.scored.push(scored);
    }
    let choices = gathered.into_iter().zip(0..);
    events::json(&ChatResponse {
        id: settings.id.clone(),
        object: "chat.completion".into(),
        created: settings.created,
        model: settings.model.clone(),
        choices: choices.map(|(g, index)| choice(g, index, settings, instance)).collect(),
        service_tier: None,
        system_fingerprint: Some(settings.fingerprint.clone()),
        usage: answer.usage().into(),
        prompt_logprobs: None,
        prompt_token_ids: settings.token_ids.then(|| answer.prompt().to_vec()),
        prompt_text: None,
        kv_transfer_params: answer.hand_over(),
        ec_transfer_params: None,
        metrics: None,
    })
}

fn choice(gathered: Gathered, index: u32, settings: &Settings, instance: &Instance) -> ChatChoice {
    let (reason, stop_reason) = gathered.ended.map(|e| (e.reason, e.stop_reason)).unzip();
    let scored = &gathered.scored;
    ChatChoice {
        index,
        message: ChatMessage::assistant(gathered.text),
        logprobs: settings.logprobs.then(|| logprobs::chat(&instance.tokenizer, scored)),
        finish_reason: reason.map(str::to_owned),
        stop_reason: stop_reason.filter(|r| !r.is_null()),
        token_ids: settings.token_ids.then(|| scored.iter().map(|s| s.token).collect()),
        routed_experts: None,
    }
}

/// The answer as events. Waits for the first token, so that what fails before it has a status.
///
/// # Errors
/// What the client should be told.
pub async fn stream(
    mut answer: Answer,
    settings: Settings,
    instance: Arc<Instance>,
) -> Result<Response, ApiError> {
    let first = answer.next().await.transpose()?;
    let mut head = String::new();
    for index in 0..settings.n {
        head.push_str(&events::event(&opening(index, &answer, &settings)));
    }
    if let Some(update) = first {
        head.push_str(&chunk_of(update, &settings, &instance));
    }
    let last = settings.chunk(Vec::new());
    let last = settings.include_usage.then_some((last, settings.fingerprint.clone()));
    let tail = move |answer: &Answer| {
        last.map_or_else(String::new, |(mut chunk, fingerprint)| {
            chunk.usage = Some(answer.usage());
            chunk.system_fingerprint = Some(fingerprint);
            events::event(&chunk)
        })
    };
    let each = move |update| chunk_of(update, &settings, &instance);
    Ok(events::stream(head, answer, each, tail))
}

/// A choice's first chunk: the role, and no text.
fn opening(index: u32, answer: &Answer, settings: &Settings) -> ChatChunk {
    let delta = ChatDelta { role: Some("assistant".into()), content: Some(String::new()) };
    let choice = ChatChunkChoice {
        index,
        delta,
        logprobs: None,
        finish_reason: None,
        stop_reason: None,
        token_ids: None,
    };
    let ids = settings.token_ids.then(|| answer.prompt().to_vec());
    ChatChunk {
        prompt_token_ids: Some(ids),
        prompt_text: Some(None),
        ..settings.chunk(vec![choice])
    }
}

/// The event of one more token; empty if nothing of it may be shown yet.
fn chunk_of(update: Update, settings: &Settings, instance: &Instance) -> String {
    let Update::Token { index, scored, piece } = update else { return String::new() };
    if piece.is_silent() && !settings.logprobs && !settings.token_ids {
        return String::new();
    }
    let (reason, stop_reason) = piece.ended.map(|e| (e.reason, e.stop_reason)).unzip();
    let scored = std::slice::from_ref(&scored);
    let choice = ChatChunkChoice {
        index,
        delta: ChatDelta { role: None, content: Some(piece.text) },
        logprobs: settings.logprobs.then(|| logprobs::chat(&instance.tokenizer, scored)),
        finish_reason: reason.map(str::to_owned),
        stop_reason: stop_reason.map(|r| Some(r).filter(|r| !r.is_null())),
        token_ids: Some(settings.token_ids.then(|| scored.iter().map(|s| s.token).collect())),
    };
    events::event(&settings.chunk(vec![choice]))
}
