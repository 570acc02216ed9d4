//! One request, and what its client felt.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use plumb_protocol::sse;
use serde::Serialize;
use serde_json::{Value, json};

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// In bytes; an event carries a token or two.
const LONGEST_EVENT: usize = 1 << 20;
/// In bytes: enough of an error's body to be told.
const LONGEST_ERROR: usize = 300;

/// Where and how requests are sent.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub http: Http,
    pub url: String,
    pub model: String,
    /// Sent as a bearer token where there is one.
    pub key: Option<String>,
}

/// An answer as its client saw it; seconds from the moment its request was due.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Answer {
    /// Seconds from the start of the run at which it was due.
    pub due_s: f64,
    /// To the first text; none where the answer has no text.
    pub ttft_s: Option<f64>,
    /// Between two events with text.
    pub itl_s: Vec<f64>,
    /// To the end.
    pub total_s: f64,
    /// Tokens of the prompt, as the server counts them.
    pub prompt_tokens: u64,
    /// Tokens of the answer, as the server counts them.
    pub output_tokens: u64,
    /// What the router said of its way, where there is one.
    pub route: Option<String>,
    /// Why it is no whole answer.
    pub failure: Option<Failure>,
}

impl Answer {
    /// Seconds an output token after the first.
    pub fn tpot_s(&self) -> Option<f64> {
        let after_first = self.itl_s.iter().sum::<f64>();
        let tokens = self.output_tokens.checked_sub(1).filter(|&tokens| tokens > 0)?;
        self.ttft_s.map(|_| after_first / tokens as f64)
    }
}

/// Why a request got no whole answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "kind", content = "message")]
pub enum Failure {
    /// The server cannot be spoken with.
    #[error("no connection: {0}")]
    Unreached(String),
    /// A status that is not success.
    #[error("{0}")]
    Refused(String),
    /// The stream carried an error, or ended without saying that it is whole.
    #[error("cut short: {0}")]
    Cut(String),
}

/// Asks and reads the stream to its end. `due` is where its clock starts.
pub(crate) async fn ask(
    server: &Server,
    prompt: &str,
    max_tokens: usize,
    due: Instant,
    due_s: f64,
) -> Answer {
    let mut answer = Answer { due_s, ..Answer::default() };
    answer.failure = stream(server, prompt, max_tokens, due, &mut answer).await.err();
    answer.total_s = due.elapsed().as_secs_f64();
    answer
}

async fn stream(
    server: &Server,
    prompt: &str,
    max_tokens: usize,
    due: Instant,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let body = json!({
        "model": server.model, "max_tokens": max_tokens, "temperature": 0, "stream": true,
        "stream_options": {"include_usage": true}, "prompt": prompt,
    });
    let mut request = Request::post(format!("{}/v1/completions", server.url))
        .header("content-type", "application/json");
    if let Some(key) = &server.key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let unreached = |e: &dyn std::fmt::Display| Failure::Unreached(e.to_string());
    let request = request.body(Full::from(body.to_string())).map_err(|e| unreached(&e))?;
    let response = server.http.request(request).await.map_err(|e| unreached(&e))?;
    let route = response.headers().get("x-plumb-route").and_then(|v| v.to_str().ok());
    answer.route = route.map(str::to_owned);
    if !response.status().is_success() {
        return Err(refused(response).await);
    }
    read(response, due, answer).await
}

async fn refused(response: Response<Incoming>) -> Failure {
    let status: StatusCode = response.status();
    let body = response.collect().await.map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_default();
    let told = serde_json::from_slice::<Value>(&body).ok();
    let message = told.as_ref().and_then(|v| v["error"]["message"].as_str()).map(str::to_owned);
    let text = || String::from_utf8_lossy(&body[..body.len().min(LONGEST_ERROR)]).into_owned();
    Failure::Refused(format!("{status}: {}", message.unwrap_or_else(text)))
}

async fn read(
    mut response: Response<Incoming>,
    due: Instant,
    answer: &mut Answer,
) -> Result<(), Failure> {
    let cut = |e: &dyn std::fmt::Display| Failure::Cut(e.to_string());
    let mut decoder = sse::Decoder::new(LONGEST_EVENT);
    let mut last = None;
    while let Some(frame) = response.frame().await {
        let Ok(data) = frame.map_err(|e| cut(&e))?.into_data() else { continue };
        let now = Instant::now();
        for event in decoder.push(&data).map_err(|e| cut(&e))? {
            if event.is_done() {
                return Ok(());
            }
            let chunk: Value = serde_json::from_str(&event.data).map_err(|e| cut(&e))?;
            if let Some(error) = chunk.get("error") {
                let message = error["message"].as_str().map_or(error.to_string(), str::to_owned);
                return Err(Failure::Cut(message));
            }
            answer.count(&chunk);
            if chunk["choices"][0]["text"].as_str().is_none_or(str::is_empty) {
                continue;
            }
            match last.replace(now) {
                None => answer.ttft_s = Some((now - due).as_secs_f64()),
                Some(before) => answer.itl_s.push((now - before).as_secs_f64()),
            }
        }
    }
    Err(Failure::Cut("the stream ended without [DONE]".into()))
}

impl Answer {
    fn count(&mut self, chunk: &Value) {
        let tokens = |key: &str| chunk["usage"][key].as_u64();
        self.prompt_tokens = tokens("prompt_tokens").unwrap_or(self.prompt_tokens);
        self.output_tokens = tokens("completion_tokens").unwrap_or(self.output_tokens);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;

    use hyper_util::rt::TokioExecutor;

    use super::*;

    const TEXT: &str = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
    const USAGE: &str =
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";

    /// Asks a server that answers one request with these bytes and closes the connection.
    fn answer_to(bytes: String, due: Instant) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            assert!(client.read(&mut request).unwrap() > 0);
            client.write_all(bytes.as_bytes()).unwrap();
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let http = Client::builder(TokioExecutor::new()).build_http();
            let server = Server { http, url, model: "m".into(), key: None };
            ask(&server, "hello", 2, due, 0.0).await
        });
        serving.join().unwrap();
        answer
    }

    fn streamed(events: &[&str]) -> String {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        head.to_owned() + &events.concat()
    }

    #[test]
    fn a_request_that_was_due_long_ago_waited_since_then() {
        let due = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let answer = answer_to(streamed(&[TEXT, TEXT, USAGE, sse::DONE]), due);
        assert_eq!(answer.failure, None);
        assert!(answer.ttft_s.unwrap() >= 5.0 && answer.total_s >= 5.0, "{answer:?}");
        assert_eq!((answer.prompt_tokens, answer.output_tokens, answer.itl_s.len()), (3, 2, 1));
    }

    #[test]
    fn what_is_no_whole_answer_is_a_failure_with_its_reason() {
        let cut = answer_to(streamed(&[TEXT, USAGE]), Instant::now());
        assert!(matches!(cut.failure, Some(Failure::Cut(why)) if why.contains("[DONE]")));
        let error = "data: {\"error\":{\"message\":\"decode died\"}}\n\n";
        let told = answer_to(streamed(&[TEXT, error]), Instant::now());
        assert_eq!(told.failure, Some(Failure::Cut("decode died".into())));
        let body = "{\"error\":{\"message\":\"queue is full\"}}";
        let head = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: ";
        let refused = answer_to(format!("{head}{}\r\n\r\n{body}", body.len()), Instant::now());
        let Some(Failure::Refused(why)) = refused.failure else { panic!("{refused:?}") };
        assert_eq!(why, "503 Service Unavailable: queue is full");
    }
}
