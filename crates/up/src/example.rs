//! One question through the router, as any client would ask it.

use std::io::Write;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use plumb_protocol::sse;
use serde_json::{Value, json};

use crate::Error;
use crate::plan::Plan;

/// Long enough for a first start, in which the weights are repacked.
const READY: Duration = Duration::from_secs(300);
/// A pool of many gigabytes is not waited for any longer.
const FILLED: Duration = Duration::from_secs(10);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);
/// In bytes; an event carries a token or two.
const LONGEST_EVENT: usize = 1 << 20;
const QUESTION: &str = "What is the capital of France? Answer in one sentence.";

/// What came of the question.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub question: &'static str,
    pub answer: String,
    /// The router's `x-plumb-route`.
    pub route: String,
    /// Seconds from the request to the first text.
    pub ttft_s: f64,
    /// Seconds from the request to the last byte.
    pub total_s: f64,
    /// KV bytes that the decode instances pulled for it, by transport.
    pub pulled: Vec<(String, u64)>,
}

type Http = Client<HttpConnector, Full<bytes::Bytes>>;

/// Waits until the router can serve, asks, and returns the answer; with `echo` the answer is
/// written to standard output as it comes.
pub(crate) async fn ask(plan: &Plan, echo: bool) -> Result<Outcome, Error> {
    let http = Client::builder(TokioExecutor::new()).build_http();
    wait_until_ready(&http, plan).await?;
    let model = only_model(&http, plan).await?;
    let before = pulled(&http, plan).await;

    let started = Instant::now();
    let body = json!({
        "model": model, "stream": true, "temperature": 0, "max_completion_tokens": 48,
        "messages": [{"role": "user", "content": QUESTION}],
    });
    let request = Request::post(format!("{}/v1/chat/completions", plan.router.url))
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .map_err(example)?;
    let response = http.request(request).await.map_err(example)?;
    let status = response.status();
    let route = header(&response, "x-plumb-route");
    if !status.is_success() {
        let body = response.collect().await.map_err(example)?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        return Err(Error::Example(format!("HTTP {status}: {body}")));
    }
    let (answer, first) = read_stream(response, echo).await?;
    let total_s = started.elapsed().as_secs_f64();
    let ttft_s = first.map_or(total_s, |at| (at - started).as_secs_f64());
    let after = pulled(&http, plan).await;
    wait_until_filled(&http, plan).await;
    let pulled = after
        .into_iter()
        .map(|(transport, bytes)| {
            let old = before.iter().find(|(t, _)| *t == transport).map_or(0, |(_, b)| *b);
            (transport, bytes.saturating_sub(old))
        })
        .collect();
    Ok(Outcome { question: QUESTION, answer, route, ttft_s, total_s, pulled })
}

fn example(error: impl std::fmt::Display) -> Error {
    Error::Example(error.to_string())
}

fn header(response: &Response<Incoming>, name: &str) -> String {
    let value = response.headers().get(name).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().to_owned()
}

async fn wait_until_ready(http: &Http, plan: &Plan) -> Result<(), Error> {
    let metrics = format!("{}/metrics", plan.router.url);
    let deadline = tokio::time::Instant::now() + READY;
    loop {
        if text(http, &metrics).await.is_ok_and(|page| all_up(&page, plan)) {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Error::Example(format!("not ready after {} s", READY.as_secs())));
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// Whether the router sees every instance up. Its health is good sooner: decode alone can serve,
/// but then the question would not go through both legs.
fn all_up(page: &str, plan: &Plan) -> bool {
    plan.instances.iter().all(|instance| {
        let up = format!("plumb_router_up{{instance=\"{}\"}} 1", instance.url);
        page.lines().any(|line| line == up)
    })
}

/// Waits until every instance has all of its memory, so that what is told of it is what it will be.
async fn wait_until_filled(http: &Http, plan: &Plan) {
    let deadline = tokio::time::Instant::now() + FILLED;
    for instance in &plan.instances {
        let metrics = format!("{}/metrics", instance.url);
        while tokio::time::Instant::now() < deadline
            && !text(http, &metrics).await.is_ok_and(|page| is_filled(&page))
        {
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }
}

fn is_filled(page: &str) -> bool {
    page.lines().any(|line| line.starts_with("plumb_kv_pool_filled 1"))
}

async fn text(http: &Http, url: &str) -> Result<String, Error> {
    let response = http.get(url.parse().map_err(example)?).await.map_err(example)?;
    let body = response.collect().await.map_err(example)?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

async fn only_model(http: &Http, plan: &Plan) -> Result<String, Error> {
    let models = text(http, &format!("{}/v1/models", plan.router.url)).await?;
    let models: Value = serde_json::from_str(&models).map_err(example)?;
    models["data"][0]["id"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Example(format!("/v1/models names no model: {models}")))
}

/// Bytes pulled so far by all instances, by transport, from their metrics pages.
async fn pulled(http: &Http, plan: &Plan) -> Vec<(String, u64)> {
    let mut sums: Vec<(String, u64)> = Vec::new();
    for instance in &plan.instances {
        let page = text(http, &format!("{}/metrics", instance.url)).await.unwrap_or_default();
        for (transport, bytes) in page.lines().filter_map(pulled_line) {
            match sums.iter_mut().find(|(t, _)| *t == transport) {
                Some((_, sum)) => *sum += bytes,
                None => sums.push((transport, bytes)),
            }
        }
    }
    sums
}

fn pulled_line(line: &str) -> Option<(String, u64)> {
    let rest = line.strip_prefix("plumb_kv_pulled_bytes_total{")?;
    let (labels, value) = rest.split_once("} ")?;
    let transport = labels.split('"').nth(1)?;
    Some((transport.to_owned(), value.trim().parse::<f64>().ok()? as u64))
}

async fn read_stream(
    mut response: Response<Incoming>,
    echo: bool,
) -> Result<(String, Option<Instant>), Error> {
    let mut decoder = sse::Decoder::new(LONGEST_EVENT);
    let (mut answer, mut first) = (String::new(), None);
    while let Some(frame) = response.frame().await {
        let Ok(data) = frame.map_err(example)?.into_data() else { continue };
        for event in decoder.push(&data).map_err(example)? {
            if event.is_done() {
                return Ok((answer, first));
            }
            let chunk: Value = serde_json::from_str(&event.data).map_err(example)?;
            if let Some(message) = chunk["error"]["message"].as_str() {
                return Err(Error::Example(message.to_owned()));
            }
            let text = chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
            if !text.is_empty() {
                first.get_or_insert_with(Instant::now);
            }
            if echo {
                print!("{text}");
                let _closed = std::io::stdout().flush();
            }
            answer.push_str(text);
        }
    }
    Err(Error::Example("the stream ended without [DONE]".into()))
}

#[cfg(test)]
mod tests {
    use super::{all_up, is_filled, pulled_line};
    use crate::plan::{Plan, Spec};

    #[test]
    fn it_waits_for_every_instance() {
        let spec = |name: &str| Spec {
            name: name.into(),
            args: Vec::new(),
            url: format!("http://{name}:1"),
        };
        let plan = Plan {
            program: "plumb".into(),
            router: spec("r"),
            instances: vec![spec("p"), spec("d")],
        };
        let page = |p, d| {
            format!(
                "plumb_router_up{{instance=\"http://p:1\"}} {p}\n\
                 plumb_router_up{{instance=\"http://d:1\"}} {d}\n"
            )
        };
        assert!(all_up(&page(1, 1), &plan));
        assert!(!all_up(&page(0, 1), &plan) && !all_up(&page(1, 0), &plan) && !all_up("", &plan));
    }

    #[test]
    fn a_pool_is_filled_when_its_page_says_so() {
        assert!(is_filled("# TYPE plumb_kv_pool_filled gauge\nplumb_kv_pool_filled 1.0\n"));
        assert!(!is_filled("# TYPE plumb_kv_pool_filled gauge\nplumb_kv_pool_filled 0.0\n"));
    }

    #[test]
    fn pulled_bytes_are_read_by_transport() {
        let line = r#"plumb_kv_pulled_bytes_total{transport="shm"} 1474560"#;
        assert_eq!(pulled_line(line), Some(("shm".into(), 1_474_560)));
        assert_eq!(pulled_line("# TYPE plumb_kv_pulled_bytes_total counter"), None);
    }
}
