//! Sends the traffic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::ask::{Answer, Server, ask};
use crate::traffic::{self, Arrivals, Bound, Traffic};

/// Whom to ask for what.
#[derive(Debug, Clone)]
pub struct Options {
    /// `http://host:port`, with or without `/v1`.
    pub url: String,
    /// The model's name; the first that the server lists where there is none.
    pub model: Option<String>,
    /// Sent as a bearer token.
    pub key: Option<String>,
    /// The requests.
    pub traffic: Traffic,
}

/// Why nothing was sent at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another scheme.
    #[error("{0}: only plain http:// is spoken here; give the address of the server itself")]
    Scheme(String),
    /// The list of models cannot be read.
    #[error("{url}/v1/models cannot be read ({why}): is the server up? or name a --model")]
    Models {
        /// The server.
        url: String,
        /// What happened.
        why: String,
    },
}

/// How far the run is; told whenever an answer ends.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Answers that ended.
    pub ended: usize,
    /// Of them, those that failed.
    pub failed: usize,
    /// Requests in flight.
    pub in_flight: usize,
    /// Seconds since the start.
    pub seconds: f64,
}

/// Sends all requests and gives their answers, in the order in which they ended.
///
/// # Errors
/// Only if nothing could be sent; a request that fails is an answer with a failure.
pub async fn run(options: &Options, mut tell: impl FnMut(Progress)) -> Result<Vec<Answer>, Error> {
    let server = Arc::new(server(options).await?);
    let traffic = &options.traffic;
    let start = Instant::now();
    let mut requests = numbered(traffic, start);
    let mut flying = JoinSet::new();
    let mut answers: Vec<Answer> = Vec::new();
    let mut failed = 0;
    let mut next = requests.next();
    loop {
        let room = match traffic.arrivals {
            Arrivals::Open(_) => true,
            Arrivals::Closed(clients) => flying.len() < clients,
        };
        if room && let Some(request) = next.take_if(|r| is_due(r, start)) {
            let due = match traffic.arrivals {
                Arrivals::Open(_) => start + Duration::from_secs_f64(request.due_s),
                Arrivals::Closed(_) => Instant::now(),
            };
            let server = server.clone();
            flying.spawn(async move {
                let due_s = (due - start).as_secs_f64();
                ask(&server, &request.prompt, request.max_tokens, due, due_s).await
            });
            next = requests.next();
            continue;
        }
        let wait = next.as_ref().filter(|_| room).map(|r| start + Duration::from_secs_f64(r.due_s));
        tokio::select! {
            Some(answer) = flying.join_next() => {
                // A task that panicked is a defect of ours, and is not to be counted as an answer.
                let answer = answer.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
                failed += usize::from(answer.failure.is_some());
                answers.push(answer);
                let seconds = start.elapsed().as_secs_f64();
                tell(Progress { ended: answers.len(), failed, in_flight: flying.len(), seconds });
            }
            () = sleep_until(wait), if wait.is_some() => {}
            else => return Ok(answers),
        }
    }
}

async fn sleep_until(when: Option<Instant>) {
    if let Some(when) = when {
        tokio::time::sleep_until(when.into()).await;
    }
}

fn is_due(request: &traffic::Request, start: Instant) -> bool {
    start.elapsed().as_secs_f64() >= request.due_s
}

/// The requests until the bound.
fn numbered(traffic: &Traffic, start: Instant) -> impl Iterator<Item = traffic::Request> + use<> {
    let bound = traffic.bound;
    traffic.requests().enumerate().map_while(move |(index, request)| {
        let more = match bound {
            Bound::Requests(count) => index < count,
            Bound::Time(time) => request.due_s < time.as_secs_f64() && start.elapsed() < time,
        };
        more.then_some(request)
    })
}

async fn server(options: &Options) -> Result<Server, Error> {
    let url = options.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
    if !url.starts_with("http://") {
        return Err(Error::Scheme(url));
    }
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http = Client::builder(TokioExecutor::new()).build(connector);
    let mut server = Server { http, url, model: String::new(), key: options.key.clone() };
    server.model = match &options.model {
        Some(model) => model.clone(),
        None => first_model(&server).await?,
    };
    Ok(server)
}

async fn first_model(server: &Server) -> Result<String, Error> {
    let failed = |why: String| Error::Models { url: server.url.clone(), why };
    let mut request = Request::get(format!("{}/v1/models", server.url));
    if let Some(key) = &server.key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let request = request.body(Full::default()).map_err(|e| failed(e.to_string()))?;
    let response = server.http.request(request).await.map_err(|e| failed(root(&e)))?;
    let status = response.status();
    let body = response.collect().await.map_err(|e| failed(e.to_string()))?.to_bytes();
    let models: Option<Value> = serde_json::from_slice(&body).ok();
    let first = models.as_ref().and_then(|m| m["data"][0]["id"].as_str());
    first.map(str::to_owned).ok_or_else(|| failed(format!("HTTP {status}, no model listed")))
}

/// The innermost reason: "connection refused" says more than "client error".
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
