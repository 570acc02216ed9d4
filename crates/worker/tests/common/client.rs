//! HTTP as a client sees it: statuses are values and not errors.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::Instance;

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<String>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// The chunks of a stream, which must end with `[DONE]`.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events: Vec<&str> =
            self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(events.pop(), Some("[DONE]"), "{}", self.body);
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// The text of choice `index`, of a stream or a whole answer.
    pub fn text(&self, index: usize) -> String {
        assert_eq!(self.status, 200, "{}", self.body);
        let of = |choice: &Value| {
            let text = choice["text"].as_str().or(choice["message"]["content"].as_str());
            text.or(choice["delta"]["content"].as_str()).unwrap_or_default().to_owned()
        };
        if !self.body.starts_with("data:") {
            return of(&self.json()["choices"][index]);
        }
        let chunks = self.chunks();
        let choices = chunks.iter().filter_map(|chunk| chunk["choices"].get(0));
        choices.filter(|choice| choice["index"] == index).map(of).collect()
    }
}

fn answer(sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = sent.unwrap();
    let retry_after = response.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().unwrap().to_owned());
    let status = response.status().as_u16();
    Answer { status, retry_after, body: response.body_mut().read_to_string().unwrap() }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

impl Instance {
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string())
    }

    pub fn post_text(&self, path: &str, body: &str) -> Answer {
        answer(agent().post(format!("{}{path}", self.url)).send(body))
    }

    pub fn complete(&self, body: &Value) -> Answer {
        self.post("/v1/completions", body)
    }

    pub fn chat(&self, body: &Value) -> Answer {
        self.post("/v1/chat/completions", body)
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(agent().get(format!("{}{path}", self.url)).call())
    }

    pub fn delete(&self, path: &str) -> Answer {
        answer(agent().delete(format!("{}{path}", self.url)).call())
    }

    /// A sample of the metrics page, by its whole name.
    pub fn metric(&self, sample: &str) -> f64 {
        let page = self.get("/metrics").body;
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in\n{page}")).parse().unwrap()
    }

    /// A request whose answer is still to be read. Dropping it is leaving.
    pub fn open(&self, path: &str, body: &Value) -> BufReader<TcpStream> {
        let host = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        let body = body.to_string();
        let length = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + &body).as_bytes()).unwrap();
        BufReader::new(stream)
    }
}

/// Reads events of a stream up to the `n`-th.
pub fn read_events(stream: &mut BufReader<TcpStream>, n: usize) {
    let mut seen = 0;
    let mut line = String::new();
    while seen < n {
        line.clear();
        assert_ne!(stream.read_line(&mut line).unwrap(), 0, "the stream ended");
        seen += usize::from(line.starts_with("data: "));
    }
}
