//! How fast blocks are pulled on one host, beside memcpy of the same blocks in the same run.
//!
//! `cargo run --release -p plumb-kv --example kv_pull [BLOCKS] [ROUNDS]` prints rows for
//! bench/RESULTS.md on standard error and JSON on standard output. The serving side is a process of
//! its own: this program, started again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_kv::transfer::{
    PeerAddress, Puller, PullerOptions, Remote, Server, ServerOptions, Transports,
};
use plumb_kv::{Block, BlockShape, Identity, LayerShape, Leases, Pool, remote_request_id};

const SERVE: &str = "PLUMB_KV_PULL_SERVE";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// SmolLM2-135M: 30 layers, 3 KV heads of 64, f16, 16 tokens a block.
fn shape() -> BlockShape {
    let layer = LayerShape { bytes: 2 * 3 * 64 * 2 * 16, window: None };
    BlockShape { layers: vec![layer; 30], tokens: 16 }
}

fn identity() -> Identity {
    Identity {
        model_digest: [0; 32],
        dtype: "f16".to_owned(),
        layers: 30,
        kv_heads: 3,
        head_dim: 64,
        block_tokens: 16,
        format_version: 1,
    }
}

fn fill(block: &Block, byte: u8) {
    let view = block.pool().view();
    // SAFETY: a block that nobody else uses.
    unsafe { view.block(block.id()).as_ptr().write_bytes(byte, view.block_bytes) }
}

fn first_byte(block: &Block) -> u8 {
    // SAFETY: a block that nobody writes now.
    unsafe { block.pool().view().block(block.id()).as_ptr().read() }
}

/// The serving process: a lease on all blocks for every line it reads.
fn serve(blocks: usize) -> Outcome<()> {
    let pool = Pool::new("kv-pull-bench-peer", shape(), blocks)?;
    let leases = Leases::new(Duration::from_secs(30));
    let options = ServerOptions::new("127.0.0.1:0".parse()?, "bench".to_owned(), identity());
    let server = Server::start(Arc::clone(&pool), Arc::clone(&leases), options)?;
    println!("{}", server.address());
    for line in std::io::stdin().lines() {
        let round: usize = line?.parse()?;
        let mut leased = pool.allocate(blocks);
        while leased.is_err() {
            // The puller has its result before the goodbye for it arrives here.
            std::thread::yield_now();
            leased = pool.allocate(blocks);
        }
        let leased = leased?;
        leased.iter().for_each(|block| fill(block, round as u8));
        let id = remote_request_id("bench");
        leases.grant(&id, leased, Instant::now())?;
        println!("{id}");
    }
    Ok(())
}

/// The same blocks' worth, from one pool of this process to another.
fn copy(from: &[Block], into: &[Block]) -> Duration {
    let started = Instant::now();
    for (from, into) in from.iter().zip(into) {
        let (source, target) = (from.pool().view(), into.pool().view());
        // SAFETY: blocks of two pools, each used by this thread only.
        unsafe {
            std::ptr::copy_nonoverlapping(
                source.block(from.id()).as_ptr(),
                target.block(into.id()).as_ptr(),
                source.block_bytes,
            );
        }
    }
    started.elapsed()
}

/// Bytes a second, in GB/s.
#[derive(Clone, Copy)]
struct Rate {
    median: f64,
    best: f64,
}

fn rate(bytes: usize, mut times: Vec<Duration>) -> Rate {
    times.sort();
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e9;
    Rate { median: rate(times[times.len() / 2]), best: rate(times[0]) }
}

fn measure(blocks: usize, rounds: usize) -> Outcome<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([blocks.to_string(), rounds.to_string()])
        .env(SERVE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut commands = child.stdin.take().ok_or("no standard input")?;
    let mut answers = BufReader::new(child.stdout.take().ok_or("no standard output")?).lines();
    let mut answer = || answers.next().ok_or("the serving process is gone");
    let peer: PeerAddress = answer()??.parse()?;

    let pool = Pool::new("kv-pull-bench", shape(), blocks)?;
    let source = Pool::new("kv-pull-bench-memcpy", shape(), blocks)?.allocate(blocks)?;
    let pullers = [(Transports::Shm, false), (Transports::Shm, true), (Transports::Tcp, false)]
        .map(|(transports, checksum)| {
            let mut options = PullerOptions::new(identity(), vec![peer.clone()]);
            (options.transports, options.checksum) = (transports, checksum);
            Puller::new(Arc::clone(&pool), options)
        });
    let mut times: [Vec<Duration>; 4] = Default::default();
    let ways = pullers.len() + 1;
    for round in 0..(rounds + 1) * ways {
        let way = round % ways;
        let into = pool.allocate(blocks)?;
        let took = if let Some(puller) = pullers.get(way) {
            writeln!(commands, "{round}")?;
            let (engine_id, request_id) = ("bench".to_owned(), answer()??);
            let remote = Remote { peer: peer.clone(), engine_id, request_id };
            let started = Instant::now();
            let pulled = puller.claim(remote)?.pull(0, into).wait()?;
            let took = started.elapsed();
            let brought = |block: &Block| first_byte(block) == round as u8;
            assert!(pulled.blocks.iter().all(brought), "the pull brought this round's bytes");
            took
        } else {
            // Written just before, as the peer's blocks are: both copies find the caches alike.
            source.iter().for_each(|block| fill(block, round as u8));
            copy(&source, &into)
        };
        // The first of each maps and connects.
        if round >= ways {
            times[way].push(took);
        }
    }
    drop(commands);
    child.wait()?;

    let bytes = blocks * pool.view().block_bytes;
    let rates = times.map(|times| rate(bytes, times));
    let memcpy = rates[3];
    let names = ["shm", "shm_checksum", "tcp", "memcpy"];
    eprintln!("{blocks} blocks, {bytes} bytes, {rounds} rounds");
    let mut json = format!(r#"{{"blocks":{blocks},"bytes":{bytes},"rounds":{rounds}"#);
    for (name, Rate { median, best }) in names.into_iter().zip(rates) {
        let (share, best_share) = (median / memcpy.median, best / memcpy.best);
        eprintln!(
            "| {name} | {median:.2} | {:.0} % | {best:.2} | {:.0} % |",
            share * 100.0,
            best_share * 100.0
        );
        json += &format!(
            r#","{name}":{{"median_gb_per_s":{median:.3},"median_share":{share:.3},"best_gb_per_s":{best:.3},"best_share":{best_share:.3}}}"#
        );
    }
    println!("{json}}}");
    Ok(())
}

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let blocks = arguments.next().map_or(Ok(128), |text| text.parse())?;
    let rounds = arguments.next().map_or(Ok(21), |text| text.parse())?;
    if std::env::var_os(SERVE).is_some() { serve(blocks) } else { measure(blocks, rounds) }
}
