//! One sample: every resident byte of a process by layer, at one moment.

use std::time::{Duration, Instant};

use plumb_target::jvm::{self, JavaHeap};
use plumb_target::mounts::MemoryMounts;
use plumb_target::smaps::Entry;
use plumb_target::{Error, Image, Map, Memory, Process, Range};
use serde::Serialize;

use crate::beyond::{self, Beyond, Files};
use crate::claim::{Claims, Divided, divide};
use crate::classify::Kinds;
use crate::reading::{Reading, tolerable};
use crate::rows::Rows;
use crate::table::bytes;
use crate::{Layer, owners};

/// How deep a sample looks. The classification is always made; each walk adds its own cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Walk allocators' heaps, to tell live bytes from kept ones. Else heaps are `heap`.
    pub heap: bool,
    /// Walk CPython's arenas likewise. Else they are `python`.
    pub python: bool,
    /// Look for zero pieces in huge pages.
    pub huge_pages: bool,
    /// Look at descriptors and sockets for what is beyond RSS.
    pub beyond: bool,
    /// How long each walk may take; one that does not end in time leaves its layer unsplit.
    pub budget: Duration,
}

impl Depth {
    /// Everything.
    pub const FULL: Self = Self {
        heap: true,
        python: true,
        huge_pages: true,
        beyond: true,
        budget: Duration::from_secs(10),
    };
    /// The classification alone: cheap enough to repeat.
    pub const CLASSIFY: Self =
        Self { heap: false, python: false, huge_pages: false, beyond: false, ..Self::FULL };
}

/// The resident bytes of one process by layer.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// The process.
    pub pid: u32,
    /// The kernel's short name for it.
    pub name: String,
    /// Its command line.
    pub command: Vec<String>,
    /// `Rss` of the same pass over the maps: what the layers answer for.
    pub rss_bytes: u64,
    /// The kernel's own counter, approximate on some kernels.
    pub vm_rss_bytes: u64,
    /// Resident bytes with shared pages divided by their sharers.
    pub pss_bytes: u64,
    /// RSS less the sum of the layers.
    pub residual_bytes: i64,
    /// Bytes that came or went while mappings with several owners were read: they are in RSS, and
    /// whose they are is as uncertain.
    pub drift_bytes: u64,
    /// How many mappings it has.
    pub vmas: usize,
    /// All layers, in order.
    pub layers: Vec<LayerRow>,
    /// What RSS does not show.
    pub beyond_rss: Vec<Beyond>,
    /// The files in memory that it holds or maps.
    #[serde(skip)]
    pub files: Files,
    /// What shared memory may come to without anything more being mapped: the size of what others map
    /// too, and what is resident of the rest.
    #[serde(skip)]
    pub shared_bound_bytes: u64,
    /// Pages of programs and libraries that are the process's own (relocated data, `.data`, `.bss`): how
    /// many bytes are resident, and how many may come to be without more being mapped.
    #[serde(skip)]
    pub code_data_bytes: [u64; 2],
    /// What a JVM says of its heap.
    #[serde(skip)]
    pub java_heap: Option<JavaHeap>,
    /// Where it says so.
    #[serde(skip)]
    pub java_data: Option<Range>,
    /// What a reader must know of this sample: what could not be seen, whose heap is not read.
    pub notes: Vec<String>,
    /// What the sample cost us.
    pub cost: Cost,
}

/// One layer of a sample.
#[derive(Debug, Clone, Serialize)]
pub struct LayerRow {
    /// The layer.
    pub layer: Layer,
    /// Its resident bytes.
    pub resident_bytes: u64,
    /// In how many mappings it has a part.
    pub vmas: usize,
    /// Of `files`: the bytes that can be dropped at any time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_bytes: Option<u64>,
    /// Of `files`: the bytes that were changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty_bytes: Option<u64>,
    /// Its biggest parts.
    pub biggest: Vec<Mapping>,
}

/// A mapping, or a part of one, that stands out.
#[derive(Debug, Clone, Serialize)]
pub struct Mapping {
    /// A path, the kernel's name, or what we call it.
    pub name: String,
    /// Its first address.
    pub start: u64,
    /// Resident bytes; of all mappings of one file together.
    pub resident_bytes: u64,
}

/// Seconds that a sample took, by part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Reading the maps and finding each mapping's owner.
    pub classification_s: f64,
    /// Walking heaps.
    pub heap_s: f64,
    /// Walking CPython's arenas.
    pub python_s: f64,
    /// Looking into huge pages.
    pub huge_pages_s: f64,
    /// Looking at what is beyond RSS.
    pub beyond_s: f64,
}

impl Sample {
    /// The bytes of one layer.
    pub fn bytes(&self, layer: Layer) -> u64 {
        self.layers.iter().filter(|row| row.layer == layer).map(|row| row.resident_bytes).sum()
    }
}

/// What is read once and shared by all who look for owners.
pub(crate) struct Scene {
    pub process: Process,
    pub reading: Reading,
    pub maps: Vec<Map>,
    pub images: Vec<Image>,
    pub memory: Option<Memory>,
    pub depth: Depth,
}

impl Scene {
    fn read(process: &Process, depth: Depth) -> Result<Self, Error> {
        let reading = Reading::take(process)?;
        let maps: Vec<Map> = reading.entries.iter().map(|entry| entry.map.clone()).collect();
        Ok(Self {
            process: *process,
            images: plumb_target::images(process, &maps),
            maps,
            reading,
            memory: Memory::open(process).ok(),
            depth,
        })
    }
}

/// Takes a sample of a process.
///
/// # Errors
/// Vanished (also meanwhile), denied, zombie, kernel thread. A sample is whole or is not made.
pub fn take(process: &Process, depth: Depth) -> Result<Sample, Error> {
    let mut cost = Cost::default();
    let mut notes = Vec::new();
    let begun = Instant::now();
    let scene = Scene::read(process, depth)?;
    if scene.memory.is_none() || scene.reading.pagemap.is_none() {
        notes.push("its memory cannot be read: heaps, stacks and Python are not told apart".into());
    }
    let mut kinds = Kinds::new(&scene.maps, &scene.images, MemoryMounts::read(process));
    let mut claims = Claims::default();
    owners::claim_all(&scene, &mut kinds, &mut claims, &mut cost, &mut notes);

    let entries = &scene.reading.entries;
    let mut rows = Rows::new(entries);
    let java_data = jvm::data(&scene.maps);
    let java_heap = scene.memory.as_ref().zip(java_data.as_ref());
    let java_heap = java_heap.and_then(|(memory, data)| jvm::read(memory, data));
    let (mut drift, mut shared_bound_bytes, mut code_data_bytes) = (0, 0, [0; 2]);
    for (index, entry) in entries.iter().enumerate() {
        let divided = divide(entry, &claims, |map| scene.reading.pages_of(map));
        drift += divided.drift;
        let layer = kinds.layer(&entry.map);
        if layer == Layer::Shared {
            let usage = &entry.usage;
            let common = usage.shared_clean + usage.shared_dirty > 0;
            shared_bound_bytes += if common { entry.map.end - entry.map.start } else { usage.rss };
        }
        let of_code = code_data(entry, layer, &divided, &claims);
        code_data_bytes = std::array::from_fn(|i| code_data_bytes[i] + of_code[i]);
        rows.add(index, layer, &divided, &claims);
    }
    if drift > tolerable(scene.reading.rss()) {
        notes.push(format!(
            "{} came or went while it was read: whose they are is uncertain",
            bytes(drift)
        ));
    }
    let walks = cost.heap_s + cost.python_s;
    cost.classification_s = begun.elapsed().as_secs_f64() - walks;

    owners::huge_page_slack(&scene, &claims, &kinds, &mut rows, &mut cost);
    let layers = rows.finish(&claims);
    let begun = Instant::now();
    let (beyond_rss, files) = beyond::look(&scene, &mut notes)?;
    cost.beyond_s = begun.elapsed().as_secs_f64();
    if !process.is_alive() {
        return Err(Error::Vanished { pid: process.pid() });
    }
    let rss_bytes = scene.reading.rss();
    let sum: u64 = layers.iter().map(|row| row.resident_bytes).sum();
    Ok(Sample {
        pid: process.pid(),
        name: process.name()?,
        command: process.command().unwrap_or_default(),
        rss_bytes,
        vm_rss_bytes: process.status()?.vm_rss,
        pss_bytes: entries.iter().map(|entry| entry.usage.pss).sum(),
        residual_bytes: rss_bytes.cast_signed() - sum.cast_signed(),
        drift_bytes: drift,
        vmas: entries.len(),
        layers,
        beyond_rss,
        files,
        shared_bound_bytes,
        code_data_bytes,
        java_heap,
        java_data,
        notes,
        cost,
    })
}

/// What of a mapping is an image's own data: resident and mapped.
fn code_data(entry: &Entry, layer: Layer, divided: &Divided, claims: &Claims) -> [u64; 2] {
    if layer == Layer::Code {
        let mapped = if entry.map.permissions.write { entry.map.end - entry.map.start } else { 0 };
        return [entry.usage.anonymous, mapped];
    }
    let of_code = |start| claims.at(start).is_some_and(|claim| claim.layer == Layer::Code);
    let pieces = divided.pieces.iter().filter(|piece| piece.claim.is_some_and(of_code));
    pieces.fold([0; 2], |[resident, mapped], piece| {
        [resident + piece.resident, mapped + piece.range.end - piece.range.start]
    })
}
