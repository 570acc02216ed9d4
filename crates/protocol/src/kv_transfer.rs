//! `kv_transfer_params`: how a prefill instance says where a prompt's KV blocks are.
//!
//! A router passes the object on as it came: newer versions add keys. A worker reads it through
//! [`Request`] and writes its own through [`RemotePrefill::to_map`]. Two forms were recorded from
//! vLLM: 0.13 lists block ids flat, 0.32 lists them once a KV-cache group.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::body::Body;

/// The object itself, every key kept in its order.
pub type Params = Map<String, Value>;

/// Takes the object out of a prefill instance's answer, verbatim; none where it is absent or null
/// (the answer did not end by length or stop, or the instance keeps nothing).
pub fn of_answer<'a>(answer: &Body<'a>) -> Option<&'a RawValue> {
    answer.given("kv_transfer_params")
}

/// What a request's `kv_transfer_params` asks of a worker.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Nothing: compute here, keep nothing.
    Local,
    /// Compute the prompt and keep its blocks under a lease (`do_remote_decode`).
    Keep,
    /// Pull the prompt's blocks from the instance that computed them (`do_remote_prefill`).
    Pull(Box<RemotePrefill>),
    /// A pull was asked for, but this field is missing or malformed. vLLM computes the prompt
    /// itself then, and logs it.
    Incomplete(&'static str),
}

/// Where a prompt's blocks are: the typed view of a prefill instance's answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RemotePrefill {
    /// Block ids, one list a KV-cache group (a flat list is read as one group).
    pub block_ids: Vec<Vec<u32>>,
    /// The engine that holds them; another one after a restart.
    pub engine_id: String,
    /// The lease: unguessable, good for one pull.
    pub request_id: String,
    /// Host of the side channel.
    pub host: String,
    /// Port of the side channel.
    pub port: u16,
    /// Tensor-parallel ranks of the prefill instance.
    pub tp_size: u32,
    /// Tokens of the prompt that the blocks hold; none in the older form.
    pub num_tokens: Option<u32>,
    /// Unix time in seconds at which the lease ends, where it is told.
    pub expiry_time: Option<f64>,
    /// Prompt tokens that prefill found in its own cache: what a client should see as cached.
    pub cached_tokens: Option<u32>,
    /// The token that prefill sampled, a list a choice (proposed for vLLM, sent by our workers).
    pub first_token_ids: Option<Vec<u32>>,
    /// Keys that this version does not know.
    pub other: Params,
}

const KNOWN: [&str; 14] = [
    "do_remote_prefill",
    "do_remote_decode",
    "remote_block_ids",
    "remote_engine_id",
    "remote_request_id",
    "remote_host",
    "remote_port",
    "tp_size",
    "dcp_size",
    "pp_size",
    "remote_num_tokens",
    "remote_blocks_expiry_time",
    "transfer_mode",
    "remote_prefill_cached_tokens",
];

impl Request {
    /// Reads the object of a request; `None` is the field's absence. Anything but an object asks
    /// for nothing.
    pub fn read(params: Option<&Value>) -> Self {
        let Some(map) = params.and_then(Value::as_object) else { return Self::Local };
        if map.get("do_remote_prefill") == Some(&Value::Bool(true)) {
            return match RemotePrefill::from_map(map) {
                Ok(remote) => Self::Pull(Box::new(remote)),
                Err(field) => Self::Incomplete(field),
            };
        }
        if map.get("do_remote_decode") == Some(&Value::Bool(true)) {
            return Self::Keep;
        }
        Self::Local
    }
}

impl RemotePrefill {
    /// Reads the object; the error names the field that is missing or malformed.
    pub fn from_map(map: &Params) -> Result<Self, &'static str> {
        Ok(Self {
            block_ids: block_ids(map).ok_or("remote_block_ids")?,
            engine_id: field(map, "remote_engine_id").ok_or("remote_engine_id")?,
            request_id: field(map, "remote_request_id").ok_or("remote_request_id")?,
            host: field(map, "remote_host").ok_or("remote_host")?,
            port: field(map, "remote_port").ok_or("remote_port")?,
            tp_size: field(map, "tp_size").unwrap_or(1),
            num_tokens: field(map, "remote_num_tokens"),
            expiry_time: field(map, "remote_blocks_expiry_time"),
            cached_tokens: field(map, "remote_prefill_cached_tokens"),
            first_token_ids: field(map, "first_token_ids"),
            other: map
                .iter()
                .filter(|(name, _)| !KNOWN.contains(&name.as_str()) && *name != "first_token_ids")
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
        })
    }

    /// The object for an answer, in the newer recorded form.
    pub fn to_map(&self) -> Params {
        let mut map = Params::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        put("do_remote_prefill", true.into());
        put("do_remote_decode", false.into());
        put("remote_block_ids", self.block_ids.clone().into());
        put("remote_engine_id", self.engine_id.clone().into());
        put("remote_request_id", self.request_id.clone().into());
        put("remote_host", self.host.clone().into());
        put("remote_port", self.port.into());
        put("tp_size", self.tp_size.into());
        put("dcp_size", 1.into());
        put("pp_size", 1.into());
        put("remote_num_tokens", self.num_tokens.into());
        put("remote_blocks_expiry_time", self.expiry_time.into());
        put("transfer_mode", "pull".into());
        put("remote_prefill_cached_tokens", self.cached_tokens.into());
        if let Some(ids) = &self.first_token_ids {
            put("first_token_ids", ids.clone().into());
        }
        map.extend(self.other.clone());
        map
    }
}

fn field<T: DeserializeOwned>(map: &Params, name: &str) -> Option<T> {
    T::deserialize(map.get(name)?).ok()
}

/// Block ids in either form.
fn block_ids(map: &Params) -> Option<Vec<Vec<u32>>> {
    let lists = map.get("remote_block_ids")?.as_array()?;
    if lists.iter().all(Value::is_array) && !lists.is_empty() {
        return field(map, "remote_block_ids");
    }
    Some(vec![field(map, "remote_block_ids")?])
}
