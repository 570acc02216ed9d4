//! What one core can do at best: products in registers, bytes read from memory. What an operation
//! took is told against it.

use crate::arena::Arena;
use crate::kernels::matmul::Isa;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one kind of run is repeated for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Memory that no cache holds.
pub const STREAM_BYTES: usize = 96 << 20;

/// The limits of one core.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// 10⁹ multiply-accumulates of bytes a second.
    pub int8: f64,
    /// 10⁹ multiply-accumulates of 16-bit integers a second.
    pub int16: f64,
    /// 10⁹ multiply-accumulates of floats a second.
    pub float: f64,
    /// 10⁹ bytes read a second.
    pub memory: f64,
}

impl Limits {
    /// Measures them in about four seconds, with the instructions that the kernels use. NaN where
    /// a set has no such instructions.
    #[must_use]
    pub fn measure(isa: Isa) -> Self {
        let [int8, int16, float] = peaks(isa);
        Self { int8, int16, float, memory: read_bandwidth(STREAM_BYTES) }
    }
}

/// Seconds of a run that a quarter of those that fit into half a second are faster than, in this thread's
/// own time. Not of the fastest: where other machines share the core, some runs are charged too little.
pub fn quartile(mut run: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut runs = Vec::new();
    while runs.len() < 5 || start.elapsed() < PATIENCE {
        let before = thread_seconds();
        run();
        runs.push(thread_seconds() - before);
    }
    runs.sort_by(f64::total_cmp);
    runs[runs.len() / 4]
}

/// Time that this thread has been running.
fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// GB/s of summing memory that no cache holds, one thread: in pages such as weights have, as one stream
/// or as several, whichever is faster. NaN where memory is short.
fn read_bandwidth(bytes: usize) -> f64 {
    let Ok(mut memory) = Arena::whole("limit", bytes) else { return f64::NAN };
    memory.bytes().fill(1);
    let memory = memory.floats(0, bytes / size_of::<f32>());
    let seconds = [1, 2, 4, 8].map(|streams| quartile(|| sum(memory, streams)));
    bytes as f64 / seconds.into_iter().fold(f64::INFINITY, f64::min) / 1e9
}

/// Sums all bits, in so many streams side by side.
fn sum(memory: &[f32], streams: usize) {
    let mut sums = [0u32; 64];
    let streams: Vec<&[[f32; 64]]> =
        memory.chunks(memory.len() / streams).map(|part| part.as_chunks().0).collect();
    for i in 0..streams[0].len() {
        for stream in &streams {
            for (sum, x) in sums.iter_mut().zip(&stream[i]) {
                *sum = sum.wrapping_add(x.to_bits());
            }
        }
    }
    black_box(sums);
}

/// GMAC/s of bytes and of 16-bit integers with 32-bit sums, and of floats, in registers only, by the instructions that the
/// set has.
fn peaks(isa: Isa) -> [f64; 3] {
    match isa.name() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the set exists, so its features do.
        "avx512" => unsafe {
            [
                rate(64, |n| x86::dot_products(n)),
                rate(32, |n| x86::word_dot_products(n)),
                rate(16, |n| x86::multiply_adds_512(n)),
            ]
        },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        "avx2" => unsafe {
            [
                rate(32, |n| x86::byte_multiply_adds(n)),
                rate(16, |n| x86::word_multiply_adds(n)),
                rate(8, |n| x86::multiply_adds_256(n)),
            ]
        },
        _ => [f64::NAN; 3],
    }
}

#[cfg(target_arch = "x86_64")]
fn rate(lanes: usize, run: impl Fn(usize)) -> f64 {
    const LOOPS: usize = 100_000;
    (x86::CHAINS * lanes * LOOPS) as f64 / quartile(|| run(LOOPS)) / 1e9
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #![allow(clippy::wildcard_imports, reason = "intrinsics")]

    use crate::kernels::attention::add_word_products;
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

    /// `vpdpwssd`, 32 products, as attention has them.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub fn word_dot_products(loops: usize) {
        let (a, b) = (black_box(_mm512_set1_epi16(3)), black_box(_mm512_set1_epi16(-5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..loops {
            for sum in &mut sums {
                *sum = add_word_products(*sum, a, b);
            }
        }
        black_box(sums);
    }

    /// `vpmaddwd`, `vpaddd`: 16 products.
    #[target_feature(enable = "avx2")]
    pub fn word_multiply_adds(loops: usize) {
        let a = black_box(_mm256_set1_epi16(3));
        let mut sums = [_mm256_setzero_si256(); CHAINS];
        for _ in 0..loops {
            for sum in &mut sums {
                // The sum is read again, lest the product be hoisted out of the loop.
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(a, *sum));
            }
        }
        black_box(sums);
    }

    /// `vpmaddubsw`, `vpmaddwd`, `vpaddd`: 32 products.
    #[target_feature(enable = "avx2")]
    pub fn byte_multiply_adds(loops: usize) {
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

    #[target_feature(enable = "avx512f")]
    pub fn multiply_adds_512(loops: usize) {
        let (a, b) = (black_box(_mm512_set1_ps(0.5)), black_box(_mm512_set1_ps(0.25)));
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..loops {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx2,fma")]
    pub fn multiply_adds_256(loops: usize) {
        let (a, b) = (black_box(_mm256_set1_ps(0.5)), black_box(_mm256_set1_ps(0.25)));
        let mut sums = [_mm256_setzero_ps(); CHAINS];
        for _ in 0..loops {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }
}
