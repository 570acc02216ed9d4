//! Which headers travel.

use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, DATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName};

/// From the client to both legs.
const PASSED: [HeaderName; 5] = [
    AUTHORIZATION,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("x-data-parallel-rank"),
    HeaderName::from_static("x-session-id"),
];

/// Not from an instance to the client: they are about the connection, or written anew.
const KEPT: [HeaderName; 8] = [
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// What of a client's headers an instance is sent.
pub(crate) fn for_instance(client: &HeaderMap) -> HeaderMap {
    let passed = PASSED.into_iter().filter_map(|name| {
        let value = client.get(&name)?.clone();
        Some((name, value))
    });
    passed.collect()
}

/// What of an instance's headers the client is sent.
pub(crate) fn for_client(instance: &HeaderMap) -> HeaderMap {
    let mut headers = instance.clone();
    for name in KEPT {
        headers.remove(name);
    }
    headers
}
