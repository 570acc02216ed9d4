//! The name that one request has in every log: `X-Request-Id`.

use axum::http::{HeaderMap, HeaderName};

/// The header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer names are not taken: they are copied into every log line and both legs.
const MAX_LEN: usize = 256;

/// The client's own id if it is printable and not absurdly long, else a new one.
pub fn request_id(headers: &HeaderMap) -> String {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= MAX_LEN)
        .map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn of(value: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        request_id(&headers)
    }

    #[test]
    fn takes_the_clients_or_makes_one() {
        assert_eq!(of(b"abc-1"), "abc-1");
        let long = "x".repeat(257);
        for bad in [b"".as_slice(), b"caf\xe9", long.as_bytes()] {
            let made = of(bad);
            assert!(made.len() == 32 && made.bytes().all(|b| b.is_ascii_hexdigit()), "{made}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }
}
