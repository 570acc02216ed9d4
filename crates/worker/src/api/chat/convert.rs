//! From a chat request to a generation.

use std::sync::Arc;

use plumb_protocol::ApiError;
use plumb_protocol::kv_transfer;
use plumb_protocol::openai::{ChatRequest, Extra};
use plumb_text::{ChatTemplate, Special};
use serde_json::Value;

use crate::api::answer::Answer;
use crate::api::body::{check_length, check_text, off_thread};
use crate::api::refused::refuse;
use crate::api::sampling;
use crate::generation::Generation;
use crate::instance::Instance;
use crate::output::Choice;

/// Renders, tokenizes and submits.
///
/// # Errors
/// What the client should be told.
pub async fn submit(
    request: ChatRequest,
    id: &str,
    instance: &Arc<Instance>,
) -> Result<Answer, ApiError> {
    let (id, of) = (id.to_owned(), Arc::clone(instance));
    let (generation, choices) = off_thread(move || convert(request, id, &of)).await?;
    let prompt = generation.prompt.clone();
    let ticket = instance.submit(vec![generation])?;
    Ok(Answer::new(ticket, choices, vec![prompt]))
}

fn convert(
    request: ChatRequest,
    name: String,
    instance: &Instance,
) -> Result<(Generation, Vec<Choice>), ApiError> {
    check_effort(&request, instance)?;
    let prompt = render(instance, &Chat::of(&request))?;
    check_length(instance, prompt.len())?;
    let fields = request.sampling;
    let room = instance.context - prompt.len();
    let wanted = request
        .max_completion_tokens
        .map(|n| ("max_completion_tokens", n))
        .or(request.max_tokens.map(|n| ("max_tokens", n)));
    let limits = sampling::limits(&fields, wanted, room, room, instance.context)?;
    let logprobs = (request.logprobs == Some(true)).then(|| request.top_logprobs.unwrap_or(0));
    let n = fields.n.unwrap_or(1);
    let choice = || Choice::new(&instance.tokenizer, sampling::text_options(&fields));
    let choices = (0..n).map(|_| choice()).collect();
    let generation = Generation {
        name,
        prompt,
        sampling: sampling::params(&fields, &limits, logprobs, &instance.tokenizer),
        n,
        first_index: 0,
        limits,
        prompt_logprobs: None,
        salt: fields.cache_salt.as_deref().unwrap_or("").as_bytes().into(),
        transfer: kv_transfer::Request::read(fields.kv_transfer_params.as_ref()),
    };
    Ok((generation, choices))
}

/// What a template shows.
#[derive(Debug)]
pub struct Chat<'a> {
    /// Checked messages.
    pub messages: &'a [Value],
    /// Functions offered to the model.
    pub tools: Option<&'a [Value]>,
    /// Whether the assistant's turn is opened.
    pub add_generation_prompt: bool,
    /// Further variables.
    pub kwargs: Extra,
    /// Whether the tokenizer adds its own special tokens to the template's.
    pub add_special: bool,
}

impl<'a> Chat<'a> {
    fn of(request: &'a ChatRequest) -> Self {
        let mut kwargs = request.chat_template_kwargs.clone().unwrap_or_default();
        // As in vLLM: some templates know it.
        if let Some(effort) = request.extra.get("reasoning_effort").filter(|e| !e.is_null()) {
            kwargs.entry("reasoning_effort").or_insert_with(|| effort.clone());
        }
        // Tools that may not be used are not shown.
        let may_call = request.tool_choice.as_ref().is_none_or(|choice| choice != "none");
        Self {
            messages: &request.messages,
            tools: request.tools.as_deref().filter(|_| may_call),
            add_generation_prompt: request.add_generation_prompt != Some(false),
            kwargs,
            add_special: request.add_special_tokens == Some(true),
        }
    }
}

/// A chat's tokens, by the model's own template.
///
/// # Errors
/// 400 if the model has no template, or its template refuses the messages or shows no tools.
pub fn render(instance: &Instance, chat: &Chat<'_>) -> Result<Vec<u32>, ApiError> {
    let Some(template) = &instance.template else {
        let message = format!(
            "The model `{}` has no chat template in its file: it is a base model. Use \
             /v1/completions.",
            instance.model_name
        );
        return Err(ApiError::bad_request(message).param("messages"));
    };
    let tools = chat.tools.filter(|tools| !tools.is_empty());
    let tools = tools.map(|tools| Value::Array(tools.to_vec()));
    let text = rendered(template, chat, tools.as_ref())?;
    if tools.is_some() && text == rendered(template, chat, None)? {
        let message = "`tools` are not supported here: the model's template does not show them.";
        return Err(ApiError::bad_request(message).param("tools"));
    }
    check_text(instance, &text)?;
    Ok(instance.tokenizer.encode(&text, Special { add: chat.add_special, parse: true }))
}

fn rendered(
    template: &ChatTemplate,
    chat: &Chat<'_>,
    tools: Option<&Value>,
) -> Result<String, ApiError> {
    let render = |messages: &[Value]| {
        template.render(messages, tools, chat.add_generation_prompt, Some(&chat.kwargs))
    };
    render(chat.messages)
        .or_else(|error| render(&with_content(chat.messages).ok_or(error)?))
        .map_err(|e| ApiError::bad_request(e.to_string()).param("messages"))
}

/// The messages with an empty text where the assistant only called a tool: OpenAI's form of that
/// has no content, and templates written without tools in mind fail on it.
fn with_content(messages: &[Value]) -> Option<Vec<Value>> {
    let lacks = |m: &Value| m["role"] == "assistant" && m["content"].is_null();
    messages.iter().any(lacks).then(|| {
        let mut messages = messages.to_vec();
        for message in messages.iter_mut().filter(|m| lacks(m)) {
            message["content"] = "".into();
        }
        messages
    })
}

fn check_effort(request: &ChatRequest, instance: &Instance) -> Result<(), ApiError> {
    let asked = request.extra.get("reasoning_effort");
    let asked = asked.is_some_and(|effort| !effort.is_null() && effort != "none");
    if asked && instance.template.as_ref().is_some_and(|t| !t.knows("reasoning_effort")) {
        return Err(refuse("reasoning_effort", "the model's template does not know it"));
    }
    Ok(())
}
