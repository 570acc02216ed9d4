//! Which processes make the stack: ports, processor cores, arguments.

use std::net::TcpListener;
use std::path::Path;

use crate::{Error, Options};

/// One process of the stack.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// How the user sees it: `router`, `prefill-0`, `decode-0`.
    pub name: String,
    /// Arguments for the `plumb` binary.
    pub args: Vec<String>,
    /// The base URL of its HTTP server.
    pub url: String,
}

/// The whole stack, decided before anything starts.
#[derive(Debug)]
pub(crate) struct Plan {
    pub program: std::path::PathBuf,
    pub router: Spec,
    pub instances: Vec<Spec>,
}

/// Memory an instance takes beside the weights: KV pool, arena, tables.
const INSTANCE_MIB: u64 = 512;

impl Plan {
    pub fn new(options: &Options, model: &Path) -> Result<Self, Error> {
        let instances = options.prefill.saturating_add(options.decode);
        check_memory(model, instances)?;
        // Held until all are chosen, so that no port is handed out twice.
        let mut held = Vec::new();
        let mut take = |port| -> Result<u16, Error> {
            let listener = reserve(port)?;
            let taken = listener.local_addr().map_err(|source| Error::Listen { port, source })?;
            held.push(listener);
            Ok(taken.port())
        };
        let router_port = take(options.port)?;

        let roles = std::iter::repeat_n("prefill", options.prefill.into())
            .enumerate()
            .chain(std::iter::repeat_n("decode", options.decode.into()).enumerate());
        let mut places = Vec::new();
        for (index, role) in roles {
            places.push((role, index, take(0)?, take(0)?));
        }
        let peers: Vec<String> = places
            .iter()
            .filter(|(role, ..)| *role == "prefill")
            .map(|(.., kv)| format!("127.0.0.1:{kv}"))
            .collect();
        let cores = share_cores(&available_cores(), places.len());

        let instances: Vec<Spec> = places
            .iter()
            .zip(cores)
            .map(|(&(role, index, port, kv), cores)| {
                let mut args = words(&[
                    "worker",
                    "--role",
                    role,
                    "--host",
                    "127.0.0.1",
                    "--kv-host",
                    "127.0.0.1",
                ]);
                args.extend(["--model".into(), model.display().to_string()]);
                args.extend(["--port".into(), port.to_string()]);
                args.extend(["--kv-port".into(), kv.to_string()]);
                args.extend(["--threads".into(), cores.len().to_string()]);
                args.extend(["--cpus".into(), join(&cores)]);
                if role == "decode" {
                    args.push("--kv-peer".into());
                    args.extend(peers.iter().cloned());
                }
                Spec { name: format!("{role}-{index}"), args, url: url(port) }
            })
            .collect();

        let mut args = words(&["router", "--host", "127.0.0.1"]);
        args.extend(["--port".into(), router_port.to_string()]);
        for role in ["prefill", "decode"] {
            args.push(format!("--{role}"));
            args.extend(
                instances.iter().filter(|i| i.name.starts_with(role)).map(|i| i.url.clone()),
            );
        }
        let router = Spec { name: "router".into(), args, url: url(router_port) };
        Ok(Self { program: options.program.clone(), router, instances })
    }

    /// Every part, the router last: it has nobody to ask before the instances listen.
    pub fn parts(&self) -> impl Iterator<Item = &Spec> {
        self.instances.iter().chain([&self.router])
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

fn join(cores: &[usize]) -> String {
    cores.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

fn reserve(port: u16) -> Result<TcpListener, Error> {
    TcpListener::bind(("127.0.0.1", port)).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::PortTaken(port),
        _ => Error::Listen { port, source },
    })
}

fn available_cores() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    let cores: Vec<usize> =
        (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect();
    if cores.is_empty() { vec![0] } else { cores }
}

/// Gives each of `instances` its own run of cores; where there are fewer cores than instances,
/// they take turns.
fn share_cores(cores: &[usize], instances: usize) -> Vec<Vec<usize>> {
    if cores.len() < instances {
        return (0..instances).map(|i| vec![cores[i % cores.len()]]).collect();
    }
    (0..instances)
        .map(|i| {
            let from = i * cores.len() / instances;
            let to = (i + 1) * cores.len() / instances;
            cores[from..to].to_vec()
        })
        .collect()
}

fn check_memory(model: &Path, instances: u16) -> Result<(), Error> {
    let bytes = std::fs::metadata(model)
        .map_err(|e| Error::Model { path: model.into(), reason: e.to_string() })?
        .len();
    // The weights are resident once a host, whatever the number of instances; while they are
    // repacked the file is resident beside them.
    let need_mib = 2 * (bytes >> 20) + INSTANCE_MIB * u64::from(instances);
    // In a container the machine's memory says little.
    match plumb_ledger::watch::nearest_limit(&plumb_target::Process::own()) {
        Some(limit) if limit.headroom_bytes >> 20 < need_mib => Err(Error::Memory {
            instances,
            need_mib,
            free_mib: limit.headroom_bytes >> 20,
            limit: limit.name,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{share_cores, url};

    #[test]
    fn every_core_is_given_once_where_there_are_enough() {
        for instances in 1..=7 {
            let shares = share_cores(&[2, 3, 5, 7, 11, 13, 17], instances);
            assert_eq!(shares.len(), instances);
            assert!(shares.iter().all(|s| !s.is_empty()));
            assert_eq!(shares.concat(), [2, 3, 5, 7, 11, 13, 17]);
        }
    }

    #[test]
    fn instances_take_turns_where_cores_are_few() {
        assert_eq!(share_cores(&[4, 6], 3), [vec![4], vec![6], vec![4]]);
    }

    #[test]
    fn urls_are_on_loopback() {
        assert_eq!(url(8000), "http://127.0.0.1:8000");
    }
}
