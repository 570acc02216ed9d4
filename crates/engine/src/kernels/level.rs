//! Which version of a kernel to run.

use super::matmul::Isa;

/// A version of the kernels that are compiled for several instruction sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Whatever the compiler was told.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// Also AVX-512F, BW, VL and VNNI.
    Avx512,
}

impl Level {
    /// The level that goes with a set of matrix kernels.
    pub(crate) fn of(isa: Isa) -> Self {
        // An `Isa` is proof that the machine has the instructions of its name; AVX-512 includes
        // those of AVX2.
        match isa.name() {
            "avx512" => Self::Avx512,
            "avx2" => Self::Avx2,
            _ => Self::Portable,
        }
    }
}

/// Defines a function that does one of three things, each compiled for its level.
macro_rules! by_level {
    ($(#[$meta:meta])* $name:ident($($arg:ident: $ty:ty),*) {
        avx2: $avx2:expr, avx512: $avx512:expr, portable: $portable:expr $(,)?
    }) => {
        $(#[$meta])*
        pub(crate) fn $name(level: $crate::kernels::level::Level, $($arg: $ty),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) {
                $avx2
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl")]
            fn avx512($($arg: $ty),*) {
                $avx512
            }
            match level {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `Level::of` gives this level only where the features are there.
                $crate::kernels::level::Level::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::kernels::level::Level::Avx512 => unsafe { avx512($($arg),*) },
                _ => $portable,
            }
        }
    };
}
pub(crate) use by_level;

/// Defines a function that runs an `#[inline(always)]` body in the version of a level.
macro_rules! versions {
    ($(#[$meta:meta])* pub(crate) fn $name:ident($($arg:ident: $ty:ty),* $(,)?) = $body:path) => {
        $crate::kernels::level::by_level! { $(#[$meta])* $name($($arg: $ty),*) {
            avx2: $body($($arg),*),
            avx512: $body($($arg),*),
            portable: $body($($arg),*),
        } }
    };
}
pub(crate) use versions;

#[cfg(test)]
impl Level {
    /// Every level that this machine can run, for comparing them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Isa::all().into_iter().map(Self::of)
    }
}
