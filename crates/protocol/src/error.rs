//! The error body of OpenAI's API in the form that vLLM answers:
//! `{"error":{"message","type","param","code"}}`, `code` being the HTTP status.

use std::fmt;

use serde_json::{Value, json};

/// An answer that is not a success: an HTTP status and the body that explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// HTTP status, and the body's `code`.
    pub status: u16,
    /// For a person: what failed and what to do about it.
    pub message: String,
    /// The body's `type`, as vLLM names it (`BadRequestError`, ...).
    pub kind: &'static str,
    /// The request's field that is at fault, if one is.
    pub param: Option<String>,
    /// Seconds after which to try again: the `Retry-After` header.
    pub retry_after: Option<u32>,
}

impl ApiError {
    /// An error with this status; its `type` follows from the status.
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind: kind(status), param: None, retry_after: None }
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// 404: no such thing here.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(404, message)
    }

    /// 500: our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// 502: an instance behind us failed.
    pub fn bad_gateway(message: impl Into<String>) -> Self {
        Self::new(502, message)
    }

    /// 429: more than we take at once; try again after `seconds`.
    pub fn too_many(message: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(429, message) }
    }

    /// 503: cannot be served now; try again after `seconds`.
    pub fn unavailable(message: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(503, message) }
    }

    /// Names the request's field that is at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The body.
    pub fn to_value(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.status,
        }})
    }

    /// The body as sent.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.kind, self.message)
    }
}

impl std::error::Error for ApiError {}

fn kind(status: u16) -> &'static str {
    match status {
        401 => "AuthenticationError",
        403 => "PermissionDeniedError",
        404 => "NotFoundError",
        405 => "MethodNotAllowedError",
        408 => "RequestTimeoutError",
        409 => "ConflictError",
        413 => "PayloadTooLargeError",
        429 => "RateLimitError",
        501 => "NotImplementedError",
        502 => "BadGatewayError",
        503 => "ServiceUnavailableError",
        504 => "GatewayTimeoutError",
        400..=499 => "BadRequestError",
        _ => "InternalServerError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_shape_that_vllm_answers() {
        let recorded: Value = serde_json::from_str(include_str!(
            "../../../tests/fixtures/nixl-protocol/vllm-0.32/err_unknown_model.response.json"
        ))
        .unwrap();
        let ours = ApiError::not_found("The model `nope` does not exist. Valid aliases: tiny.")
            .param("model");
        assert_eq!(serde_json::from_str::<Value>(&ours.to_json()).unwrap(), recorded);
    }
}
