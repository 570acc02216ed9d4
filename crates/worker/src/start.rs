//! From options to a running instance.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use plumb_engine::{Engine, EngineOptions, LoadOptions, Model};
use plumb_gguf::Gguf;
use plumb_http::{BodyReader, Limits as HttpLimits, Metrics as Page};
use plumb_kv::transfer::{Puller, PullerOptions, Server, ServerOptions};
use plumb_kv::{Leases, Pool};
use plumb_text::{ChatTemplate, Tokenizer};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use crate::driver::{Command, Driver, Keeper, Pace, Pulls};
use crate::error::Error;
use crate::explain::Explain;
use crate::instance::{Instance, MemoryLayers};
use crate::metrics::{self, Metrics};
use crate::options::{BLOCK_TOKENS, WorkerOptions};
use crate::scheduler::{Limits, Scheduler};
use crate::{api, fill, memory};

/// An instance that listens, and serves once [`Worker::serve`] is called.
#[derive(Debug)]
pub struct Worker {
    instance: Arc<Instance>,
    page: Page,
    listener: TcpListener,
    http: HttpLimits,
    engine: JoinHandle<()>,
    engine_ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Loads the model, takes all memory but the later part of the KV pool's, listens. `layers` tells resident bytes by layer; without
    /// it the metrics page has what the kernel says of the whole process.
    ///
    /// # Errors
    /// Whatever keeps the instance from serving, with what to do about it.
    pub async fn start(
        options: WorkerOptions,
        layers: Option<Box<MemoryLayers>>,
    ) -> Result<Self, Error> {
        let listener = plumb_http::bind(&options.host, options.port)
            .await
            .map_err(|source| Error::System { what: "HTTP".into(), source })?;
        let runtime = Handle::current();
        let build = move || Parts::build(options, runtime, layers);
        let parts = tokio::task::spawn_blocking(build)
            .await
            .map_err(|e| Error::Options(format!("starting failed: {e}")))??;
        let page = Page::new();
        parts.instance.metrics.register_on(&page);
        metrics::register_gauges(&page, &parts.instance);
        Ok(Self {
            instance: parts.instance,
            page,
            listener,
            http: parts.http,
            engine: parts.engine,
            engine_ended: parts.engine_ended,
        })
    }

    /// Where HTTP listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The name that requests give.
    #[must_use]
    pub fn model_name(&self) -> &str {
        &self.instance.model_name
    }

    /// Where the KV side channel listens.
    #[must_use]
    pub fn kv_address(&self) -> SocketAddr {
        self.instance.server.address()
    }

    /// Serves until `shutdown` ends, then drains.
    ///
    /// # Errors
    /// [`Error::EngineDied`] if the engine's thread ended first.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { instance, page, listener, http, engine, mut engine_ended } = self;
        let app = api::routes(Arc::clone(&instance), page);
        let mut died = false;
        let until = async {
            tokio::select! {
                () = shutdown => {}
                _ = &mut engine_ended => died = true,
            }
        };
        let drained = plumb_http::serve(listener, app, &http, until).await;
        if drained.cut_off > 0 {
            tracing::warn!(requests = drained.cut_off, "cut off at the end of the drain");
        }
        instance.commands.send(Command::Shutdown).ok();
        let joined = tokio::task::spawn_blocking(move || engine.join()).await;
        if died || !matches!(joined, Ok(Ok(()))) { Err(Error::EngineDied) } else { Ok(()) }
    }
}

struct Parts {
    instance: Arc<Instance>,
    http: HttpLimits,
    engine: JoinHandle<()>,
    engine_ended: oneshot::Receiver<()>,
}

impl Parts {
    fn build(
        options: WorkerOptions,
        runtime: Handle,
        layers: Option<Box<MemoryLayers>>,
    ) -> Result<Self, Error> {
        let path = options.model.clone();
        let Loaded { tokenizer, template, model } = Loaded::read(&path)?;
        let shape = model.kv_shape(BLOCK_TOKENS, options.kv_type);
        let (_, block_bytes) = shape.layout().map_err(plumb_kv::Error::from)?;
        let (context, blocks) = options.sizes(model.config().context, block_bytes)?;
        WorkerOptions::check_pool(blocks, block_bytes, crate::machine::memory())?;
        let (pool, fill) = Pool::begin(&pool_name(&options), shape, blocks)?;
        let leases = Leases::new(Duration::from_secs(options.kv_lease_seconds));
        let engine_id = uuid::Uuid::new_v4().to_string();
        let server = serve_kv(&options, &model, &pool, &leases, &engine_id)?;
        let puller = puller(&options, &model, &pool);
        let (commands, inbox) = channel();
        let metrics = Arc::new(Metrics::default());
        let alive = Arc::new(AtomicBool::new(false));
        let thread = EngineThread {
            engine: engine_options(&options, context),
            limits: limits(&options),
            model: Arc::clone(&model),
            pool: Arc::clone(&pool),
            pulls: Pulls {
                runtime,
                commands: commands.clone(),
                on_failure: options.kv_load_failure,
            },
            keeper: Keeper {
                leases: Arc::clone(&leases),
                engine_id,
                host: options.kv_host.clone(),
                port: server.address().port(),
                block_tokens: BLOCK_TOKENS,
            },
            tokenizer: Arc::clone(&tokenizer),
            metrics: Arc::clone(&metrics),
            alive: Arc::clone(&alive),
            explain: Explain::new(&options),
        };
        let (engine, engine_ended) = thread.spawn(inbox)?;
        fill::start(move || fill.run(), commands.clone())?;
        let http = HttpLimits::default();
        let max_answers =
            options.max_seqs.saturating_add(options.max_waiting).min(Semaphore::MAX_PERMITS);
        let instance = Arc::new(Instance {
            model_name: options.served_name(),
            model_path: path.display().to_string(),
            fingerprint: fingerprint(&model),
            context,
            max_seqs: options.max_seqs,
            tokenizer,
            template,
            bodies: BodyReader::new(&http),
            large_bodies: Semaphore::new(1),
            pool,
            leases,
            server,
            puller,
            on_load_failure: options.kv_load_failure,
            metrics,
            commands,
            alive,
            places: Arc::new(Semaphore::new(max_answers)),
            max_answers,
            in_flight: Arc::default(),
            next_request: AtomicU64::new(0),
            created: api::unix_seconds(),
            memory: layers.unwrap_or_else(|| Box::new(whole_process)),
        });
        tracing::info!(
            model = instance.model_name,
            role = options.role.name(),
            context,
            kv_blocks = blocks,
            kv_bytes = blocks * block_bytes,
            kv = %instance.server.address(),
            "ready"
        );
        Ok(Self { instance, http, engine, engine_ended })
    }
}

/// What a model's file holds.
struct Loaded {
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    model: Arc<Model>,
}

impl Loaded {
    /// One after the other: a thread for the vocabulary would save some 15 ms and keep 2 MiB of heap.
    fn read(path: &Path) -> Result<Self, Error> {
        let text = |source| Error::Text { path: path.to_owned(), source };
        let gguf =
            Gguf::open(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Ok(Self {
            tokenizer: Arc::new(Tokenizer::from_gguf(&gguf).map_err(text)?),
            template: ChatTemplate::from_gguf(&gguf).map_err(text)?,
            model: Model::of(path, &gguf, &LoadOptions::default())
                .map_err(|source| Error::Model { path: path.to_owned(), source })?,
        })
    }
}

/// What the engine's thread is made of. The engine is made on the thread: it is pinned there.
struct EngineThread {
    engine: EngineOptions,
    limits: Limits,
    model: Arc<Model>,
    pool: Arc<Pool>,
    pulls: Pulls,
    keeper: Keeper,
    tokenizer: Arc<Tokenizer>,
    metrics: Arc<Metrics>,
    alive: Arc<AtomicBool>,
    explain: Explain,
}

impl EngineThread {
    fn spawn(
        self,
        commands: Receiver<Command>,
    ) -> Result<(JoinHandle<()>, oneshot::Receiver<()>), Error> {
        let (built, outcome): (Sender<Result<(), Error>>, _) = channel();
        let (ended, engine_ended) = oneshot::channel();
        let run = move || {
            // Dropped when the thread ends, however it ends.
            let _ended: oneshot::Sender<()> = ended;
            match Engine::new(self.model, self.engine) {
                Err(error) => drop(built.send(Err(error.into()))),
                Ok(engine) => {
                    self.explain.plan(&engine);
                    built.send(Ok(())).ok();
                    let scheduler = Scheduler::new(self.pool, self.limits);
                    let Self { pulls, keeper, tokenizer, metrics, alive, explain, .. } = self;
                    Driver {
                        engine,
                        scheduler,
                        commands,
                        pulls,
                        keeper,
                        tokenizer,
                        metrics,
                        pace: Pace::default(),
                        alive,
                        explain,
                    }
                    .run();
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(run)
            .map_err(|source| Error::System { what: "the engine's thread".into(), source })?;
        outcome.recv().map_err(|_| Error::EngineDied)??;
        Ok((thread, engine_ended))
    }
}

fn engine_options(options: &WorkerOptions, context: usize) -> EngineOptions {
    let cpus = options.cpus.clone();
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads =
        options.threads.unwrap_or_else(|| if cpus.is_empty() { all() } else { cpus.len() });
    EngineOptions {
        threads,
        max_batch_tokens: options.max_batch_tokens,
        max_seqs: options.max_seqs,
        max_logit_rows: options.max_seqs,
        max_context: context,
        block_tokens: BLOCK_TOKENS,
        kv: options.kv_type,
        profile: options.profile,
        cpus,
        ..EngineOptions::default()
    }
}

fn limits(options: &WorkerOptions) -> Limits {
    Limits {
        max_seqs: options.max_seqs,
        max_batch_tokens: options.max_batch_tokens,
        max_prompt_tokens: options.max_batch_tokens,
        max_prompt_tokens_beside_decodes: options.max_prompt_tokens_beside_decodes,
        max_logit_rows: options.max_seqs,
    }
}

fn pool_name(options: &WorkerOptions) -> String {
    format!("kv-pool-{}-{}", options.role.name(), options.port)
}

fn fingerprint(model: &Model) -> String {
    let [a, b, c, d, ..] = model.digest();
    format!("plumb-{}-{a:02x}{b:02x}{c:02x}{d:02x}", env!("CARGO_PKG_VERSION"))
}

fn serve_kv(
    options: &WorkerOptions,
    model: &Model,
    pool: &Arc<Pool>,
    leases: &Arc<Leases>,
    engine_id: &str,
) -> Result<Server, Error> {
    let bind = addresses(&options.kv_host, options.kv_port)?.into_iter().next();
    let bind = bind.ok_or_else(|| Error::Options(format!("--kv-host {}", options.kv_host)))?;
    let identity = model.identity(BLOCK_TOKENS, options.kv_type);
    let mut serving = ServerOptions::new(bind, engine_id.to_owned(), identity);
    serving.transports = options.kv_transport;
    serving.allow.extend(peer_hosts(options)?);
    Ok(Server::start(Arc::clone(pool), Arc::clone(leases), serving)?)
}

fn puller(options: &WorkerOptions, model: &Model, pool: &Arc<Pool>) -> Puller {
    let identity = model.identity(BLOCK_TOKENS, options.kv_type);
    let mut pulling = PullerOptions::new(identity, options.kv_peers.clone());
    pulling.transports = options.kv_transport;
    Puller::new(Arc::clone(pool), pulling)
}

fn peer_hosts(options: &WorkerOptions) -> Result<Vec<IpAddr>, Error> {
    let mut hosts = Vec::new();
    for peer in &options.kv_peers {
        hosts.extend(addresses(&peer.host, peer.port)?.into_iter().map(|address| address.ip()));
    }
    Ok(hosts)
}

fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    let what = || format!("cannot resolve {host}");
    let found = (host, port).to_socket_addrs();
    Ok(found.map_err(|source| Error::System { what: what(), source })?.collect())
}

fn whole_process() -> Vec<(String, u64)> {
    vec![("all".into(), memory::rss_bytes())]
}
