//! Heap profiles that the target's own allocator writes: jemalloc's (`prof:true` in its options) and
//! gperftools' (`HEAPPROFILE`). Both are text: stacks with what is live of them, then the maps.
//!
//! Forms: jemalloc `doc/jemalloc.xml.in`, `src/prof_data.c`, `src/prof_sys.c` (names of files) and
//! `bin/jeprof.in` (what a sample stands for); gperftools `src/heap-profile-table.cc`. Debian's jemalloc
//! 5.3.0 and gperftools 2.10 are run here.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use plumb_target::{Image, Map, Memory, Process, ReadMemory, images, maps};

/// A dump is the target's to write: no larger ones are read, in bytes.
const DUMP_MAX: u64 = 64 << 20;
/// Nor more of its stacks, and of their frames.
const STACKS_MAX: usize = 100_000;
const FRAMES_MAX: usize = 512;
/// Entries of a folder that are looked at.
const ENTRIES_MAX: usize = 20_000;
/// The longest text of options.
const OPTIONS_MAX: usize = 4096;

/// What is live of one stack.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Live {
    /// Allocations that were sampled.
    pub sampled: u64,
    /// Allocations that these stand for.
    pub count: f64,
    /// Their bytes.
    pub bytes: f64,
}

/// One dump.
#[derive(Debug, Clone, Default)]
pub struct Dump {
    /// By stack: return addresses, innermost first.
    pub live: HashMap<Vec<u64>, Live>,
    /// Where code was mapped.
    pub code: Vec<Map>,
}

impl Dump {
    /// Reads a dump. `None` where it is none, or not written to its end.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.split(|b| *b == b'\n');
        let rate = rate(lines.next()?)?;
        let mut dump = Self::default();
        let mut stack: Option<Vec<u64>> = None;
        for line in lines.by_ref() {
            let line = line.trim_ascii();
            if line.starts_with(b"MAPPED_LIBRARIES:") {
                break;
            }
            let (counts, addresses) = match line.iter().position(|b| *b == b'@') {
                Some(at) => (&line[..at], Some(addresses(&line[at + 1..])?)),
                None => (line, None),
            };
            // jemalloc puts the stack on a line of its own, and what all threads hold of it after that.
            let all_threads = counts.strip_prefix(b"t*:");
            let counts = match (&addresses, all_threads) {
                (Some(_), _) if counts.is_empty() => None,
                (Some(_), _) => Some(counts),
                (None, counts) => counts,
            };
            stack = addresses.or(stack);
            if let Some((objects, bytes)) = counts.and_then(live)
                && let Some(stack) = stack.take()
                && dump.live.len() < STACKS_MAX
            {
                let sum = dump.live.entry(stack).or_default();
                let scale = stands_for(objects, bytes, rate);
                sum.sampled = sum.sampled.saturating_add(objects);
                sum.count += objects as f64 * scale;
                sum.bytes += bytes as f64 * scale;
            }
        }
        let maps = lines.filter_map(|line| maps::parse(line).ok()).flatten();
        dump.code = maps.filter(|m| m.permissions.execute && m.has_file()).collect();
        (!dump.code.is_empty()).then_some(dump)
    }

    /// What became more of each stack since an earlier dump.
    pub fn since(&self, before: &Self) -> Vec<(&[u64], Live)> {
        let none = Live::default();
        let more = self.live.iter().map(|(stack, now)| {
            let then = before.live.get(stack).unwrap_or(&none);
            let more = Live {
                sampled: now.sampled.saturating_sub(then.sampled),
                count: (now.count - then.count).max(0.0),
                bytes: (now.bytes - then.bytes).max(0.0),
            };
            (stack.as_slice(), more)
        });
        more.filter(|(_, more)| more.bytes > 0.0).collect()
    }
}

/// One in how many bytes was sampled, from the first line; 1 where all are there.
fn rate(line: &[u8]) -> Option<u64> {
    let line = str::from_utf8(line).ok()?.trim();
    let kind = match line.strip_prefix("heap profile:") {
        Some(rest) => rest.rsplit_once('@')?.1.trim(),
        None => line,
    };
    match kind.strip_prefix("heap_v2/") {
        Some(rate) => rate.parse().ok(),
        None => (kind == "heapprofile").then_some(1),
    }
}

/// `objects: bytes [ … ]`
fn live(text: &[u8]) -> Option<(u64, u64)> {
    let text = str::from_utf8(text).ok()?;
    let (objects, rest) = text.split_once(':')?;
    let bytes = rest.split_whitespace().next()?;
    Some((objects.trim().parse().ok()?, bytes.parse().ok()?))
}

fn addresses(text: &[u8]) -> Option<Vec<u64>> {
    let words = str::from_utf8(text).ok()?.split_whitespace();
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    words.map(number).take(FRAMES_MAX).collect()
}

/// How many allocations one sampled of this mean size stands for: each byte is sampled with a chance of
/// one in `rate`.
fn stands_for(objects: u64, bytes: u64, rate: u64) -> f64 {
    if rate <= 1 || objects == 0 || bytes == 0 {
        return 1.0;
    }
    let mean = bytes as f64 / objects as f64;
    1.0 / -(-mean / rate as f64).exp_m1()
}

/// Where a process's allocator puts its dumps.
#[derive(Debug)]
pub struct Dumps {
    /// Kept open: it can be looked into after the process has ended.
    folder: File,
    /// As the process names it.
    name: PathBuf,
    form: Form,
}

/// How the names of dumps are made.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// `PREFIX.PID.….heap`
    Jemalloc { prefix: OsString, pid: u32 },
    /// `PREFIX.NNNN.heap`, of a child `PREFIX_PID.NNNN.heap`
    Gperftools { prefix: OsString, pid: u32 },
}

impl Form {
    /// How well a file's name fits: of a child's own dumps and its parent's the own are meant.
    fn fits(&self, name: &OsStr) -> Option<u8> {
        let name = name.as_bytes().strip_suffix(b".heap")?;
        let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        match self {
            Self::Jemalloc { prefix, pid } => {
                let rest = name.strip_prefix(prefix.as_bytes())?.strip_prefix(b".")?;
                // A number of the pid's namespace may come before it.
                let own = pid.to_string();
                let mut parts = rest.split(|b| *b == b'.').take(2);
                parts.any(|part| part == own.as_bytes()).then_some(0)
            }
            Self::Gperftools { prefix, pid } => {
                let rest = name.strip_prefix(prefix.as_bytes())?;
                if let Some(number) = rest.strip_prefix(format!("_{pid}.").as_bytes()) {
                    return digits(number).then_some(1);
                }
                digits(rest.strip_prefix(b".")?).then_some(0)
            }
        }
    }
}

/// A dump's file: when it was written, and its name in the folder.
pub type Written = (SystemTime, OsString);

impl Dumps {
    /// Where a process's allocator was told to put its dumps. `None` where it was not told to make any, or
    /// the folder is not there.
    pub fn of(process: &Process) -> Option<Self> {
        let pids = process.status().map(|s| s.namespace_pids).unwrap_or_default();
        let pid = pids.last().copied().unwrap_or(process.pid());
        let (prefix, is_jemalloc) = match gperftools(process) {
            Some(prefix) => (prefix, false),
            None => (jemalloc(process)?, true),
        };
        let path = Path::new(&prefix);
        let prefix = path.file_name()?.to_owned();
        let folder = path.parent().unwrap_or(Path::new(""));
        let here = if folder.is_absolute() {
            process.path_in_root(folder)
        } else {
            process.path("cwd").join(folder)
        };
        let form = match is_jemalloc {
            true => Form::Jemalloc { prefix, pid },
            false => Form::Gperftools { prefix, pid },
        };
        Some(Self { folder: File::open(here).ok()?, name: folder.to_owned(), form })
    }

    /// The newest file.
    pub fn newest(&self) -> Option<Written> {
        let entries = std::fs::read_dir(self.here()).ok()?.take(ENTRIES_MAX).flatten();
        let all = entries.filter_map(|entry| {
            let name = entry.file_name();
            Some((self.form.fits(&name)?, entry.metadata().ok()?.modified().ok()?, name))
        });
        let (_, time, name) = all.max()?;
        Some((time, name))
    }

    /// Reads one. `None` where it is not whole.
    pub fn read(&self, name: &OsStr) -> Option<Dump> {
        let mut text = Vec::new();
        // What has such a name may be anything: a pipe would be waited for.
        let mut options = File::options();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(self.here().join(name)).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        file.take(DUMP_MAX).read_to_end(&mut text).ok()?;
        Dump::parse(&text)
    }

    /// A file's path as the process would name it.
    pub fn path(&self, name: &OsStr) -> PathBuf {
        self.name.join(name)
    }

    fn here(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd()))
    }
}

/// The prefix of a process that gperftools profiles. It marks the variable's first byte for children.
fn gperftools(process: &Process) -> Option<OsString> {
    const MARK: u8 = 0x80;
    let mut prefix = process.environment("HEAPPROFILE").ok()??.into_vec();
    *prefix.first_mut()? &= !MARK;
    Some(OsString::from_vec(prefix))
}

/// The prefix of a process whose jemalloc profiles, by the options that it reads: compiled in, of the
/// machine, of the environment, the later the stronger.
fn jemalloc(process: &Process) -> Option<OsString> {
    let machine = std::fs::read_link(process.path_in_root(Path::new("/etc/malloc.conf")));
    let variables = ["_RJEM_MALLOC_CONF", "JE_MALLOC_CONF", "MALLOC_CONF"];
    let environment = variables.iter().filter_map(|name| process.environment(name).ok()?);
    let all = compiled_in(process).into_iter().chain(machine.ok().map(PathBuf::into_os_string));
    let all: Vec<OsString> = all.chain(environment).collect();
    prefix(all.iter().map(OsString::as_os_str))
}

fn prefix<'a>(options: impl Iterator<Item = &'a OsStr>) -> Option<OsString> {
    let (mut profiles, mut prefix) = (false, b"jeprof".as_slice());
    for option in options.flat_map(|text| text.as_bytes().split(|b| *b == b',')) {
        if let Some(value) = option.strip_prefix(b"prof:") {
            profiles = value == b"true";
        } else if let Some(value) = option.strip_prefix(b"prof_prefix:") {
            prefix = value;
        }
    }
    profiles.then(|| OsStr::from_bytes(prefix).to_owned())
}

/// What programs say in a variable of jemalloc's, in the executable or in the library.
fn compiled_in(process: &Process) -> Vec<OsString> {
    const NAMES: [&str; 3] = ["malloc_conf", "_rjem_malloc_conf", "je_malloc_conf"];
    let (Ok(maps), Ok(memory)) = (maps::read(process), Memory::open(process)) else {
        return Vec::new();
    };
    let all = images(process, &maps);
    let may_say = |i: &&Image| {
        i.elf.has_interpreter || i.elf.soname.is_none() || i.name().starts_with("libjemalloc")
    };
    let mut found = Vec::new();
    for image in all.iter().filter(may_say) {
        let Ok(symbols) = image.symbols() else { continue };
        for symbol in NAMES.iter().filter_map(|name| symbols.named(name)) {
            let at = memory.u64_at(symbol.address.wrapping_add(image.bias));
            let mut text = vec![0; OPTIONS_MAX];
            let got = at.filter(|at| *at != 0).map_or(0, |at| memory.read_at(at, &mut text));
            let end = text[..got].iter().position(|b| *b == 0).unwrap_or(0);
            found.push(OsString::from_vec(text[..end].to_vec()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "MAPPED_LIBRARIES:\n5000-6000 r-xp 00001000 fe:00 11   /opt/server\n";

    #[test]
    fn jemalloc_samples_and_each_stands_for_many() {
        let text = "heap_v2/65536\n  t*: 65: 136047 [0: 0]\n  t0: 65: 136047 [0: 0]\n\
                    @ 0x10 0x20\n  t*: 63: 129033 [0: 0]\n  t0: 63: 129033 [0: 0]\n\
                    @ 0x30\n  t*: 1: 262144 [0: 0]\n\n";
        let dump = Dump::parse(format!("{text}{MAPS}").as_bytes()).expect("a dump");
        let small = dump.live[&vec![0x10, 0x20]];
        assert_eq!((dump.live.len(), small.sampled), (2, 63));
        // 63 samples of one in 65536 bytes.
        assert!((small.bytes / (63.0 * 65536.0) - 1.0).abs() < 0.02, "{small:?}");
        let large = dump.live[&vec![0x30]];
        assert!((large.bytes / 262_144.0 - 1.0).abs() < 0.02, "{large:?}");
        assert_eq!(dump.code.len(), 1);
        assert!(Dump::parse(text.as_bytes()).is_none(), "it is not written to its end");
    }

    #[test]
    fn gperftools_counts_all() {
        let head = "heap profile:   12:  8000 [  90:  9000] @ heapprofile\n";
        let text = |n: u64| format!("{head}  {n}: {} [ 9: 9] @ 0x10 0x20\n\n{MAPS}", n * 100);
        let [first, last] = [10, 50].map(|n| Dump::parse(text(n).as_bytes()).expect("a dump"));
        let more = last.since(&first);
        let [(stack, live)] = more.as_slice() else { panic!("{more:?}") };
        assert_eq!((*stack, live.sampled, live.bytes), ([0x10, 0x20].as_slice(), 40, 4000.0));
        assert!(first.since(&last).is_empty());
    }

    #[test]
    fn options_say_where_dumps_go() {
        let of = |all: &[&str]| prefix(all.iter().map(OsStr::new));
        assert_eq!(of(&["prof:true"]), Some("jeprof".into()));
        assert_eq!(of(&["prof:true,prof_prefix:a", "prof_prefix:/b/c"]), Some("/b/c".into()));
        assert_eq!(of(&["prof:true", "prof:false"]), None);
        assert_eq!(of(&["prof_prefix:x"]), None);
    }

    #[test]
    fn only_the_processs_own_dumps_are_meant() {
        let jemalloc = Form::Jemalloc { prefix: "jeprof".into(), pid: 42 };
        let fits = |form: &Form, name: &str| form.fits(OsStr::new(name));
        assert_eq!(fits(&jemalloc, "jeprof.42.7.i7.heap"), Some(0));
        assert_eq!(fits(&jemalloc, "jeprof.4026531836.42.7.m7.heap"), Some(0));
        assert_eq!(fits(&jemalloc, "jeprof.43.42.7.i7.heap.txt"), None);
        assert_eq!(fits(&jemalloc, "jeprof.43.7.i42.heap"), None);
        let gperftools = Form::Gperftools { prefix: "prof".into(), pid: 42 };
        assert_eq!(fits(&gperftools, "prof.0003.heap"), Some(0));
        assert_eq!(fits(&gperftools, "prof_42.0003.heap"), Some(1));
        assert_eq!(fits(&gperftools, "prof_43.0003.heap"), None);
    }
}
