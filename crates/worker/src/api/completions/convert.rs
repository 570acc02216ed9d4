//! From a completion request to generations, one a prompt.

use std::sync::Arc;

use plumb_protocol::ApiError;
use plumb_protocol::kv_transfer;
use plumb_protocol::openai::{CompletionRequest, Prompt};
use plumb_text::Special;

use super::writer::{Echo, Writer};
use crate::api::answer::Answer;
use crate::api::body::{check_length, check_text, off_thread};
use crate::api::sampling;
use crate::generation::Generation;
use crate::instance::Instance;
use crate::output::Choice;

/// OpenAI's.
const DEFAULT_MAX_TOKENS: usize = 16;

/// Tokenizes and submits.
///
/// # Errors
/// What the client should be told.
pub async fn submit(
    request: CompletionRequest,
    id: String,
    instance: &Arc<Instance>,
) -> Result<(Answer, Writer), ApiError> {
    let of = Arc::clone(instance);
    let (prompts, request) = off_thread(move || Ok((prompts(&request, &of)?, request))).await?;
    for (tokens, _) in &prompts {
        check_length(instance, tokens.len())?;
    }
    let n = request.sampling.n.unwrap_or(1);
    let generations = prompts.iter().zip(0..);
    let generations = generations
        .map(|((tokens, _), at)| {
            generation(&request, tokens, format!("{id}-{at}"), at * n, instance)
        })
        .collect::<Result<_, _>>()?;
    let options = sampling::text_options(&request.sampling);
    let all = prompts.len() * n as usize;
    let choices = (0..all).map(|_| Choice::new(&instance.tokenizer, options.clone())).collect();
    let ticket = instance.submit(generations)?;
    let (tokens, texts): (Vec<_>, Vec<_>) = prompts.into_iter().unzip();
    let echoes = texts.into_iter().zip(&tokens).map(|(text, tokens)| Echo::new(text, tokens));
    let writer = Writer::new(&request, echoes.collect(), Arc::clone(&instance.tokenizer));
    Ok((Answer::new(ticket, choices, tokens), writer))
}

/// A prompt's tokens, and its text where it is to be echoed.
type Prompted = (Vec<u32>, Option<String>);

fn prompts(request: &CompletionRequest, instance: &Instance) -> Result<Vec<Prompted>, ApiError> {
    let tokenizer = &instance.tokenizer;
    let add = request.add_special_tokens != Some(false);
    let echo = request.echo == Some(true);
    let of_text = |text: &String| {
        check_text(instance, text)?;
        let tokens = tokenizer.encode(text, Special { add, parse: true });
        Ok((tokens, echo.then(|| text.clone())))
    };
    let of_tokens =
        |tokens: &Vec<u32>| Ok((tokens.clone(), echo.then(|| tokenizer.decode(tokens, true))));
    match &request.prompt {
        Prompt::Text(text) => Ok(vec![of_text(text)?]),
        Prompt::Texts(texts) => texts.iter().map(of_text).collect(),
        Prompt::Tokens(tokens) => Ok(vec![of_tokens(tokens)?]),
        Prompt::TokenLists(lists) => lists.iter().map(of_tokens).collect(),
    }
}

fn generation(
    request: &CompletionRequest,
    prompt: &[u32],
    name: String,
    first_index: u32,
    instance: &Instance,
) -> Result<Generation, ApiError> {
    let fields = &request.sampling;
    let room = instance.context - prompt.len();
    let wanted = request.max_tokens.map(|n| ("max_tokens", n));
    let limits = sampling::limits(fields, wanted, DEFAULT_MAX_TOKENS, room, instance.context)?;
    Ok(Generation {
        name,
        prompt: prompt.to_vec(),
        sampling: sampling::params(fields, &limits, request.logprobs, &instance.tokenizer),
        n: fields.n.unwrap_or(1),
        first_index,
        limits,
        prompt_logprobs: request.logprobs.filter(|_| request.echo == Some(true)),
        salt: fields.cache_salt.as_deref().unwrap_or("").as_bytes().into(),
        transfer: kv_transfer::Request::read(fields.kv_transfer_params.as_ref()),
    })
}
