//! What a completion request must be before anything is computed for it.

use plumb_protocol::ApiError;
use plumb_protocol::openai::{CompletionRequest, Prompt};

use crate::api::body::check_model;
use crate::api::refused::{self, refuse};
use crate::api::sampling::{self, MAX_LOGPROBS};
use crate::instance::Instance;

/// Prompts in one request.
const MAX_PROMPTS: usize = 256;

/// # Errors
/// 404 for an unknown model, 400 naming the field for all else.
pub fn check(request: &CompletionRequest, instance: &Instance) -> Result<(), ApiError> {
    check_model(instance, request.model.as_deref())?;
    refused::check(&request.extra)?;
    sampling::validate(&request.sampling, instance.bounds())?;
    if request.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(refuse("suffix", "the model completes text at its end only"));
    }
    let n = request.sampling.n.unwrap_or(1);
    if request.best_of.is_some_and(|best_of| best_of != n) {
        return Err(refuse("best_of", "leave it out, or equal to `n`"));
    }
    if request.logprobs.is_some_and(|logprobs| logprobs > MAX_LOGPROBS) {
        let message = format!("`logprobs` must be at most {MAX_LOGPROBS}.");
        return Err(ApiError::bad_request(message).param("logprobs"));
    }
    prompt(&request.prompt, instance.tokenizer.len())
}

fn prompt(prompt: &Prompt, vocab: usize) -> Result<(), ApiError> {
    let bad = |why: String| Err(ApiError::bad_request(why).param("prompt"));
    let lists = match prompt {
        Prompt::Text(_) => return Ok(()),
        Prompt::Texts(texts) if texts.is_empty() || texts.len() > MAX_PROMPTS => {
            return bad(format!("`prompt` must hold 1 to {MAX_PROMPTS} texts."));
        }
        Prompt::Texts(_) => return Ok(()),
        Prompt::Tokens(tokens) => std::slice::from_ref(tokens),
        Prompt::TokenLists(lists) => lists.as_slice(),
    };
    if lists.is_empty() || lists.len() > MAX_PROMPTS || lists.iter().any(Vec::is_empty) {
        return bad(format!("`prompt` must hold 1 to {MAX_PROMPTS} lists of at least one token."));
    }
    if let Some(id) = lists.iter().flatten().find(|&&id| id as usize >= vocab) {
        return bad(format!("Token {id} is outside the vocabulary of {vocab}."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_tokens_of_the_vocabulary() {
        assert!(prompt(&Prompt::Tokens(vec![0, 9]), 10).is_ok());
        assert!(prompt(&Prompt::TokenLists(vec![vec![1], vec![2]]), 10).is_ok());
        for bad in [
            Prompt::Tokens(vec![10]),
            Prompt::Tokens(vec![]),
            Prompt::Texts(vec![]),
            Prompt::TokenLists(vec![vec![1], vec![]]),
            Prompt::Texts(vec![String::new(); MAX_PROMPTS + 1]),
        ] {
            let refused = prompt(&bad, 10).unwrap_err();
            assert_eq!(refused.param.as_deref(), Some("prompt"));
        }
    }
}
