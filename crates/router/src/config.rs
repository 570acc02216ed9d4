//! What the router is told: flags and a TOML file become [`Settings`], and these, once,
//! [`Options`].

use std::path::Path;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use plumb_http::Limits;
use serde::Deserialize;

/// How one instance is chosen among several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyName {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest requests in flight.
    #[default]
    LeastLoaded,
}

/// What follows when no prefill instance can take a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenPrefillFails {
    /// The decode instance computes the prompt itself.
    #[default]
    Recompute,
    /// The client gets an error.
    Fail,
}

/// What flags or a file may say; what is not said is the default. Times are in seconds.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Address to listen on.
    pub host: Option<String>,
    /// Port to listen on.
    pub port: Option<u16>,
    /// URLs of prefill instances.
    pub prefill: Option<Vec<String>>,
    /// URLs of decode instances.
    pub decode: Option<Vec<String>>,
    /// How an instance is chosen.
    pub policy: Option<PolicyName>,
    /// What follows when no prefill instance can take a prompt.
    pub when_prefill_fails: Option<WhenPrefillFails>,
    /// Requests served at once.
    pub max_in_flight: Option<usize>,
    /// Requests that may wait for a place.
    pub max_queued: Option<usize>,
    /// How long one may wait.
    pub queue_timeout: Option<f64>,
    /// Times that one request is tried, in all.
    pub max_attempts: Option<usize>,
    /// For a connection to an instance.
    pub connect_timeout: Option<f64>,
    /// For the whole answer of a prefill instance.
    pub prefill_timeout: Option<f64>,
    /// For the first byte of a decode instance's answer.
    pub first_byte_timeout: Option<f64>,
    /// For each later piece of it.
    pub idle_timeout: Option<f64>,
    /// Between two health checks of one instance.
    pub health_interval: Option<f64>,
    /// For the answer to one.
    pub health_timeout: Option<f64>,
    /// Bytes of one request's body.
    pub max_body_bytes: Option<usize>,
    /// Connections of clients at once.
    pub max_connections: Option<usize>,
    /// For requests in flight when the router is told to stop.
    pub drain_timeout: Option<f64>,
}

/// What the router runs by.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address to listen on.
    pub host: String,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Prefill instances; none means that decode instances compute prompts.
    pub prefill: Vec<Uri>,
    /// Decode instances, at least one.
    pub decode: Vec<Uri>,
    /// How an instance is chosen.
    pub policy: PolicyName,
    /// What follows when no prefill instance can take a prompt.
    pub when_prefill_fails: WhenPrefillFails,
    /// Requests served at once.
    pub max_in_flight: usize,
    /// Requests that may wait for a place.
    pub max_queued: usize,
    /// How long one may wait.
    pub queue_timeout: Duration,
    /// Times that one request is tried, in all.
    pub max_attempts: usize,
    /// For a connection to an instance.
    pub connect_timeout: Duration,
    /// For the whole answer of a prefill instance.
    pub prefill_timeout: Duration,
    /// For the first byte of a decode instance's answer.
    pub first_byte_timeout: Duration,
    /// For each later piece of it.
    pub idle_timeout: Duration,
    /// Between two health checks of one instance.
    pub health_interval: Duration,
    /// For the answer to one.
    pub health_timeout: Duration,
    /// Bounds of the listener.
    pub limits: Limits,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration {path} is wrong: {source}")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// An instance's URL cannot be used.
    #[error("`{0}` is not the URL of an instance: give it as http://HOST:PORT")]
    Url(String),
    /// There is nobody to decode.
    #[error("no decode instance: give at least one with --decode http://HOST:PORT")]
    NoDecode,
    /// A time that is negative or no number.
    #[error("{name} = {value} is no number of seconds")]
    Seconds {
        /// The setting.
        name: &'static str,
        /// What it was given.
        value: f64,
    },
}

impl Settings {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: name.clone(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: name, source: Box::new(source) })
    }

    /// These settings, and below them those of `base`.
    #[must_use]
    pub fn over(self, base: Self) -> Self {
        Self {
            host: self.host.or(base.host),
            port: self.port.or(base.port),
            prefill: self.prefill.or(base.prefill),
            decode: self.decode.or(base.decode),
            policy: self.policy.or(base.policy),
            when_prefill_fails: self.when_prefill_fails.or(base.when_prefill_fails),
            max_in_flight: self.max_in_flight.or(base.max_in_flight),
            max_queued: self.max_queued.or(base.max_queued),
            queue_timeout: self.queue_timeout.or(base.queue_timeout),
            max_attempts: self.max_attempts.or(base.max_attempts),
            connect_timeout: self.connect_timeout.or(base.connect_timeout),
            prefill_timeout: self.prefill_timeout.or(base.prefill_timeout),
            first_byte_timeout: self.first_byte_timeout.or(base.first_byte_timeout),
            idle_timeout: self.idle_timeout.or(base.idle_timeout),
            health_interval: self.health_interval.or(base.health_interval),
            health_timeout: self.health_timeout.or(base.health_timeout),
            max_body_bytes: self.max_body_bytes.or(base.max_body_bytes),
            max_connections: self.max_connections.or(base.max_connections),
            drain_timeout: self.drain_timeout.or(base.drain_timeout),
        }
    }

    /// The options that these settings give.
    pub fn options(self) -> Result<Options, ConfigError> {
        let limits = Limits::default();
        let decode = urls(self.decode)?;
        if decode.is_empty() {
            return Err(ConfigError::NoDecode);
        }
        Ok(Options {
            host: self.host.unwrap_or_else(|| "127.0.0.1".into()),
            port: self.port.unwrap_or(8000),
            prefill: urls(self.prefill)?,
            decode,
            policy: self.policy.unwrap_or_default(),
            when_prefill_fails: self.when_prefill_fails.unwrap_or_default(),
            max_in_flight: self.max_in_flight.unwrap_or(4096),
            max_queued: self.max_queued.unwrap_or(4096),
            queue_timeout: seconds("queue-timeout", self.queue_timeout, 10)?,
            max_attempts: self.max_attempts.unwrap_or(4).max(1),
            connect_timeout: seconds("connect-timeout", self.connect_timeout, 2)?,
            prefill_timeout: seconds("prefill-timeout", self.prefill_timeout, 600)?,
            first_byte_timeout: seconds("first-byte-timeout", self.first_byte_timeout, 600)?,
            idle_timeout: seconds("idle-timeout", self.idle_timeout, 120)?,
            health_interval: seconds("health-interval", self.health_interval, 1)?,
            health_timeout: seconds("health-timeout", self.health_timeout, 5)?,
            limits: Limits {
                max_body_bytes: self.max_body_bytes.unwrap_or(limits.max_body_bytes),
                max_connections: self.max_connections.unwrap_or(limits.max_connections),
                drain_timeout: seconds("drain-timeout", self.drain_timeout, 30)?,
                ..limits
            },
        })
    }
}

fn urls(given: Option<Vec<String>>) -> Result<Vec<Uri>, ConfigError> {
    given.unwrap_or_default().into_iter().map(url).collect()
}

fn url(given: String) -> Result<Uri, ConfigError> {
    given
        .parse::<Uri>()
        .ok()
        .filter(|uri| uri.scheme() == Some(&Scheme::HTTP) && uri.authority().is_some())
        .filter(|uri| uri.path() == "/" && uri.query().is_none())
        .ok_or(ConfigError::Url(given))
}

fn seconds(name: &'static str, given: Option<f64>, default: u64) -> Result<Duration, ConfigError> {
    let Some(value) = given else { return Ok(Duration::from_secs(default)) };
    Duration::try_from_secs_f64(value).map_err(|_| ConfigError::Seconds { name, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_lie_over_the_file_and_defaults_below() {
        let file: Settings = toml::from_str(
            "port = 1\nhost = '::1'\ndecode = ['http://d:1']\npolicy = 'round_robin'\nidle-timeout = 0.5",
        )
        .unwrap();
        let flags = Settings { port: Some(2), ..Settings::default() };
        let options = flags.over(file).options().unwrap();
        assert_eq!((options.port, options.host.as_str()), (2, "::1"));
        assert_eq!(options.policy, PolicyName::RoundRobin);
        assert_eq!(options.idle_timeout, Duration::from_millis(500));
        assert_eq!(options.max_in_flight, 4096);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with =
            |decode: &str| Settings { decode: Some(vec![decode.into()]), ..Settings::default() };
        for bad in ["", "d:1", "https://d:1", "http://d:1/v1", "http://d:1?x=1"] {
            assert!(with(bad).options().unwrap_err().to_string().starts_with(&format!("`{bad}`")));
        }
        assert!(matches!(Settings::default().options(), Err(ConfigError::NoDecode)));
        let negative = Settings { idle_timeout: Some(-1.0), ..with("http://d:1") };
        assert!(negative.options().unwrap_err().to_string().contains("idle-timeout = -1"));
        assert!(toml::from_str::<Settings>("no-such = 1").is_err());
    }
}
