//! Where a request runs, and why: told to the client in `x-plumb-route`, to the log, and counted.

use std::sync::Arc;

use http::HeaderValue;
use plumb_protocol::ApiError;
use plumb_protocol::body::Body;
use serde_json::value::RawValue;

use crate::config::WhenPrefillFails;
use crate::failure::Tried;
use crate::front::Front;
use crate::instances::Instance;
use crate::policy::Policy;

/// Where a request runs.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    /// Computes the prompt; none where decode does.
    pub(crate) prefill: Option<Arc<Instance>>,
    pub(crate) decode: Arc<Instance>,
    pub(crate) reason: &'static str,
}

impl Route {
    pub(crate) fn name(&self) -> &'static str {
        if self.prefill.is_some() { "pd" } else { "local" }
    }

    /// The value of `x-plumb-route`, such as `pd;prefill=URL;decode=URL;reason=disaggregated`.
    pub(crate) fn header(&self) -> HeaderValue {
        let prefill = self.prefill.as_ref().map(|p| format!("prefill={};", p.url));
        let text = format!(
            "{};{}decode={};reason={}",
            self.name(),
            prefill.unwrap_or_default(),
            self.decode.url,
            self.reason
        );
        HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unprintable"))
    }
}

/// Why a request must not be split, if so: its answer needs more of the prompt than its KV blocks.
pub(crate) fn must_be_whole(client: &Body<'_>) -> Option<&'static str> {
    // One set of parameters comes back from a prefill leg, whatever the number of prompts.
    if client.get("prompt").is_some_and(has_many_prompts) {
        return Some("many_prompts");
    }
    // Logprobs of prompt tokens come from computing them; pulled ones were computed elsewhere.
    if client.given("prompt_logprobs").is_some()
        || client.is_true("echo") && client.given("logprobs").is_some()
    {
        return Some("prompt_logprobs");
    }
    None
}

/// Chooses among the instances that are up and were not tried in vain.
pub(crate) fn decide(
    front: &Front,
    body: &[u8],
    whole: Option<&'static str>,
    tried: &Tried,
) -> Result<Route, ApiError> {
    let decode = choose(&front.decode, &*front.decode_policy, body, |i| !tried.decode_failed(i))
        .or_else(|| tried.may_recompute())
        .ok_or_else(|| tried.error("No decode instance can take the request."))?;
    let local = |reason| Ok(Route { prefill: None, decode: decode.clone(), reason });
    if let Some(reason) = whole.or(tried.local_reason()) {
        return local(reason);
    }
    if front.prefill.is_empty() {
        return local("no_prefill_instances");
    }
    let prefill =
        choose(&front.prefill, &*front.prefill_policy, body, |i| !tried.prefill_failed(i));
    match (prefill, front.options.when_prefill_fails) {
        (Some(prefill), _) => {
            let reason = if tried.is_empty() { "disaggregated" } else { "retry" };
            Ok(Route { prefill: Some(prefill), decode, reason })
        }
        (None, WhenPrefillFails::Recompute) => {
            local(if tried.is_empty() { "prefill_down" } else { "prefill_failed" })
        }
        (None, WhenPrefillFails::Fail) => {
            Err(tried.error("No prefill instance can take the request."))
        }
    }
}

fn choose(
    instances: &[Arc<Instance>],
    policy: &dyn Policy,
    body: &[u8],
    usable: impl Fn(&Arc<Instance>) -> bool,
) -> Option<Arc<Instance>> {
    let mut candidates: Vec<_> =
        instances.iter().filter(|i| i.is_up() && usable(i)).cloned().collect();
    if candidates.is_empty() {
        return None;
    }
    let chosen = policy.choose(body, &candidates);
    Some(candidates.swap_remove(chosen.min(candidates.len() - 1)))
}

/// Whether `prompt` is a list of prompts; a list of numbers is one prompt's tokens.
fn has_many_prompts(prompt: &RawValue) -> bool {
    let inner = prompt.get().strip_prefix('[').map(str::trim_start);
    let is_list = inner.is_some_and(|inner| inner.starts_with(['"', '[']));
    is_list && serde_json::from_str::<Vec<&RawValue>>(prompt.get()).is_ok_and(|all| all.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_must_be_whole_are_known() {
        for (body, expected) in [
            (r#"{"prompt":"[\"a\",\"b\"]"}"#, None),
            (r#"{"prompt":[ "a" ]}"#, None),
            (r#"{"prompt":["a","b"]}"#, Some("many_prompts")),
            (r#"{"prompt":[1,2,3]}"#, None),
            (r#"{"prompt":[[1,2],[3]]}"#, Some("many_prompts")),
            (r#"{"prompt":[]}"#, None),
            (r#"{"messages":[],"prompt_logprobs":null}"#, None),
            (r#"{"messages":[],"prompt_logprobs":0}"#, Some("prompt_logprobs")),
            (r#"{"prompt":"a","echo":true}"#, None),
            (r#"{"prompt":"a","echo":true,"logprobs":1}"#, Some("prompt_logprobs")),
        ] {
            let body = Body::parse(body.as_bytes()).unwrap();
            assert_eq!(must_be_whole(&body), expected, "{body:?}");
        }
    }
}
