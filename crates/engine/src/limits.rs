//! What one core can do at best: bytes multiplied in registers, bytes read from memory.

use plumb_engine::kernels::matmul::Isa;
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one kind of run is repeated for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Memory that no cache holds.
pub const STREAM_BYTES: usize = 96 << 20;

/// The limits of one core.
pub struct Limits {
    /// 10⁹ multiply-accumulates of bytes a second.
    pub int8: f64,
    /// 10⁹ bytes read a second.
    pub memory: f64,
}

impl Limits {
    /// Measures them, with the instructions that the kernels use.
    pub fn measure(isa: Isa) -> Self {
        Self { int8: int8_peak(isa), memory: read_bandwidth(STREAM_BYTES) }
    }

    pub fn json(&self) -> Value {
        json!({ "int8_gmac_s": self.int8, "memory_gb_s": self.memory })
    }
}

/// Runs this thread on one core.
pub fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Seconds of the fastest of the runs that fit into the time that we have.
pub fn best(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || start.elapsed() < PATIENCE {
        let before = thread_seconds();
        run();
        best = best.min(thread_seconds() - before);
        runs += 1;
    }
    best
}

/// Time that this thread has been running.
fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// GB/s of summing memory that no cache holds, one thread.
fn read_bandwidth(bytes: usize) -> f64 {
    let memory = vec![1u64; bytes / 8];
    let seconds = best(|| {
        let mut sums = [0u64; 32];
        for chunk in memory.as_chunks::<32>().0 {
            for (sum, x) in sums.iter_mut().zip(chunk) {
                *sum = sum.wrapping_add(*x);
            }
        }
        black_box(sums);
    });
    bytes as f64 / seconds / 1e9
}

/// GMAC/s of bytes with 32-bit sums, in registers only, by the instructions that the set has.
fn int8_peak(isa: Isa) -> f64 {
    const LOOPS: usize = 100_000;
    let (run, macs): (fn(usize), usize) = match isa.name() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set exists, so its features do.
        "avx512" => (|n| unsafe { x86::dot_products(n) }, x86::CHAINS * 64),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        "avx2" => (|n| unsafe { x86::multiply_adds(n) }, x86::CHAINS * 32),
        _ => return f64::NAN,
    };
    let seconds = best(|| run(LOOPS));
    (macs * LOOPS) as f64 / seconds / 1e9
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(clippy::wildcard_imports, reason = "intrinsics")]

    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Sums in flight: enough to hide the latency.
    pub const CHAINS: usize = 12;

    /// `vpdpbusd`, 64 products an instruction.
    #[target_feature(enable = "avx512f,avx512vnni")]
    pub fn dot_products(loops: usize) {
        let (a, b) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(-5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..loops {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// `vpmaddubsw`, `vpmaddwd`, `vpaddd`: 32 products.
    #[target_feature(enable = "avx2")]
    pub fn multiply_adds(loops: usize) {
        let (a, ones) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi16(1)));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..loops {
            for sum in &mut sums {
                // The sum is read again, lest the products be hoisted out of the loop.
                let products = _mm256_maddubs_epi16(a, *sum);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(products, ones));
            }
        }
        black_box(sums);
    }
}
