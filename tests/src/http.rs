//! A plain HTTP client for tests: one request a call, statuses are values and not errors.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The router's `x-plumb-route`, empty where there is none.
    pub route: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.body))
    }

    /// The data of each server-sent event, `[DONE]` included.
    pub fn events(&self) -> Vec<&str> {
        self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect()
    }

    /// The text of all chunks of a stream, or of the only choice of a whole answer.
    pub fn text(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        if !self.body.starts_with("data:") {
            return choice_text(&self.json()["choices"][0]);
        }
        let events = self.events();
        assert_eq!(events.last(), Some(&"[DONE]"), "the stream was cut: {:?}", self.body);
        events[..events.len() - 1]
            .iter()
            .map(|event| {
                let chunk: Value = serde_json::from_str(event).expect("a chunk is JSON");
                assert!(chunk["error"].is_null(), "{event}");
                choice_text(&chunk["choices"][0])
            })
            .collect()
    }
}

fn choice_text(choice: &Value) -> String {
    let text = choice["text"].as_str();
    let text = text.or_else(|| choice["message"]["content"].as_str());
    text.or_else(|| choice["delta"]["content"].as_str()).unwrap_or_default().to_owned()
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(100)))
        .build()
        .into()
}

fn answer(result: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Option<Answer> {
    let mut response = result.ok()?;
    let route = response.headers().get("x-plumb-route").and_then(|v| v.to_str().ok());
    let route = route.unwrap_or_default().to_owned();
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().ok()?;
    Some(Answer { status, route, body: String::from_utf8_lossy(&body).into_owned() })
}

/// GET; `None` where nobody answered.
pub fn get(url: &str) -> Option<Answer> {
    answer(agent().get(url).call())
}

/// DELETE; `None` where nobody answered.
pub fn delete(url: &str) -> Option<Answer> {
    answer(agent().delete(url).call())
}

/// POST of any bytes as JSON; `None` where the answer was cut.
pub fn post_bytes(url: &str, body: &[u8]) -> Option<Answer> {
    answer(agent().post(url).header("content-type", "application/json").send(body))
}

/// POST of JSON; `None` where the answer was cut.
pub fn try_post(url: &str, body: &Value) -> Option<Answer> {
    post_bytes(url, body.to_string().as_bytes())
}

/// POST of JSON that must be answered.
pub fn post(url: &str, body: &Value) -> Answer {
    try_post(url, body).unwrap_or_else(|| panic!("{url} did not answer"))
}

/// A request whose answer is read bit by bit, or never: what a client that leaves does.
#[derive(Debug)]
pub struct Open {
    stream: BufReader<TcpStream>,
}

impl Open {
    /// Sends the request and returns without waiting for the answer.
    pub fn post(base: &str, path: &str, body: &Value) -> Self {
        let host = base.strip_prefix("http://").expect("a http URL");
        let mut stream = TcpStream::connect(host).expect("the server listens");
        let body = body.to_string();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("the server reads");
        Self { stream: BufReader::new(stream) }
    }

    /// Reads lines until one contains `text`; false where the stream ends first.
    pub fn read_until(&mut self, text: &str) -> bool {
        let mut line = String::new();
        while self.stream.read_line(&mut line).is_ok_and(|n| n > 0) {
            if line.contains(text) {
                return true;
            }
            line.clear();
        }
        false
    }

    /// Reads to the end of what the server sends.
    pub fn rest(mut self) -> String {
        let mut rest = Vec::new();
        let _cut = self.stream.read_to_end(&mut rest);
        String::from_utf8_lossy(&rest).into_owned()
    }
}
