//! What the engine finds to compute with.

use super::{Check, State};

pub(super) fn checks() -> Vec<Check> {
    vec![processor()]
}

#[cfg(target_arch = "x86_64")]
fn processor() -> Check {
    use std::arch::is_x86_feature_detected as has;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let check = |set: &str| {
        Check::ok("processor", "`worker`, `up`", format!("{set}, {cores} processors for us"))
    };
    if has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni") {
        return check("AVX-512 with VNNI");
    }
    if has!("avx2") && has!("fma") && has!("f16c") {
        return check("AVX2 (no AVX-512 VNNI: prefill is slower, results are the same)");
    }
    check("no AVX2").but(State::Limited, "the engine's portable code is many times slower")
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> Check {
    Check::ok("processor", "`worker`, `up`", std::env::consts::ARCH)
        .but(State::Limited, "the engine's portable code is many times slower than on x86-64")
}
