//! The paths that the router serves.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use plumb_http::{REQUEST_ID, Refusal, request_id, with_fallbacks};
use plumb_protocol::ApiError;
use plumb_protocol::body::Body;
use serde_json::{Value, json};

use crate::failure::{self, Tried};
use crate::front::Front;
use crate::legs::{Call, LegError};
use crate::upstream::Ask;
use crate::{decision, headers, health, relay};

type Shared = State<Arc<Front>>;

pub(crate) fn app(front: Arc<Front>) -> Router {
    let app = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route(
            "/health",
            get(async |State(front): Shared| health::can_serve(&front).map_err(Refusal)),
        )
        .route("/metrics", get(async |State(front): Shared| front.meters.page.page()));
    with_fallbacks(app).with_state(front)
}

async fn chat(State(front): Shared, request: Request) -> Response {
    generate(front, "/v1/chat/completions", request).await
}

async fn completions(State(front): Shared, request: Request) -> Response {
    generate(front, "/v1/completions", request).await
}

async fn tokenize(State(front): Shared, request: Request) -> Response {
    ask_one(front, "/tokenize", request).await.unwrap_or_else(refused)
}

async fn detokenize(State(front): Shared, request: Request) -> Response {
    ask_one(front, "/detokenize", request).await.unwrap_or_else(refused)
}

/// The answer to what never came to an instance.
fn refused(error: ApiError) -> Response {
    let reason = match error.status {
        429 | 503 => "no_place",
        _ => "refused",
    };
    relay::unrouted(Refusal(error).into_response(), reason)
}

/// A request that an engine answers. Whatever becomes of it, its id is in the answer.
async fn generate(front: Arc<Front>, path: &'static str, request: Request) -> Response {
    let started = Instant::now();
    let (head, body) = request.into_parts();
    let id = request_id(&head.headers);
    let mut headers = headers::for_instance(&head.headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let id = HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("-"));
    headers.insert(REQUEST_ID, id.clone());

    let mut response = match admitted(&front, path, headers, body, started).await {
        Ok(response) => response,
        Err(error) => {
            front.meters.answered(error.status);
            refused(error)
        }
    };
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

async fn admitted(
    front: &Arc<Front>,
    path: &'static str,
    headers: HeaderMap,
    body: HttpBody,
    started: Instant,
) -> Result<Response, ApiError> {
    let read = front.reader.read(body).await?;
    let client = Body::parse(&read)?;
    if client.get("kv_transfer_params").is_some() {
        // It would let a stranger steer instances.
        let message = "kv_transfer_params is between the router and its instances.";
        return Err(ApiError::bad_request(message).param("kv_transfer_params"));
    }
    let queued = front.meters.enter("queued");
    let place = front.admission.enter().await?;
    drop(queued);
    let call = Call { path, headers, raw: read.bytes(), client: &client };
    Ok(failure::serve(front, &call, place, started).await)
}

/// A request that any instance of the model can answer, relayed to one.
async fn ask_one(
    front: Arc<Front>,
    path: &'static str,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let body = front.reader.read(body).await?;
    let mut headers = headers::for_instance(&head.headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let ask = Ask { method: Method::POST, path: path.into(), headers, body: body.bytes() };
    let mut tried = Tried::default();
    loop {
        let route = decision::decide(&front, &body, Some("any_instance"), &tried)?;
        match route.decode.upstream.ask(&ask, front.options.first_byte_timeout).await {
            Ok(answer) => return Ok(relay::whole(answer, Some(&route))),
            Err(error) => tried.failed(&front, &route.decode, LegError::Upstream(error)),
        }
    }
}

async fn models(State(front): Shared, headers: HeaderMap) -> Response {
    match all_models(&front, &headers).await {
        Ok(data) => axum::Json(json!({"object": "list", "data": data})).into_response(),
        Err(answer) => answer,
    }
}

async fn model(State(front): Shared, Path(name): Path<String>, headers: HeaderMap) -> Response {
    match all_models(&front, &headers).await {
        Ok(data) => match data.into_iter().find(|model| model["id"] == name.as_str()) {
            Some(model) => axum::Json(model).into_response(),
            None => {
                let message = format!("The model `{name}` does not exist.");
                Refusal(ApiError::not_found(message).param("model")).into_response()
            }
        },
        Err(answer) => answer,
    }
}

/// The models of all instances that can answer, each once; else the answer that says why not.
async fn all_models(front: &Front, headers: &HeaderMap) -> Result<Vec<Value>, Response> {
    let mut headers = headers::for_instance(headers);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let ask = Ask { method: Method::GET, path: "/v1/models".into(), headers, body: Bytes::new() };
    let up = front.decode.iter().filter(|i| i.is_up());
    let limit = front.options.health_timeout;
    let answers = join_all(up.map(|i| i.upstream.ask(&ask, limit))).await;

    let mut data: Vec<Value> = Vec::new();
    let (mut answered, mut refusal) = (false, None);
    for answer in answers.into_iter().flatten() {
        if !answer.status.is_success() {
            refusal = Some(answer);
            continue;
        }
        let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { continue };
        answered = true;
        for model in body["data"].as_array().into_iter().flatten() {
            if !data.iter().any(|known| known["id"] == model["id"]) {
                data.push(model.clone());
            }
        }
    }
    if let Some(refusal) = refusal.filter(|_| !answered) {
        return Err(relay::whole(refusal, None));
    }
    if !answered {
        let error = ApiError::unavailable("No decode instance tells its models.", 1);
        return Err(Refusal(error).into_response());
    }
    Ok(data)
}
