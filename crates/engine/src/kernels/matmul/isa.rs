//! Which kernels this machine can execute, and which of them to use.

/// A set of kernels that this machine is known to execute.
///
/// All sets compute the same bits; they differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Isa(pub(super) Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// A wish for kernels that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernels {wish:?} cannot run here: choose among {}", names())]
pub struct IsaError {
    wish: String,
}

fn names() -> String {
    Isa::all().iter().map(Isa::name).collect::<Vec<_>>().join(", ")
}

impl Isa {
    /// The environment variable that overrides the choice.
    pub const VARIABLE: &'static str = "PLUMB_KERNELS";

    /// The fastest set, or the one that `PLUMB_KERNELS` names.
    ///
    /// # Errors
    /// If the variable names a set that this machine does not have.
    pub fn choose() -> Result<Self, IsaError> {
        match std::env::var(Self::VARIABLE) {
            Ok(wish) => Self::named(&wish),
            Err(_) => Ok(Self::best()),
        }
    }

    /// The set called `portable`, `avx2` or `avx512`.
    ///
    /// # Errors
    /// If this machine does not have it.
    pub fn named(wish: &str) -> Result<Self, IsaError> {
        let found = Self::all().into_iter().find(|isa| isa.name() == wish);
        found.ok_or_else(|| IsaError { wish: wish.to_owned() })
    }

    /// The fastest set that this machine executes.
    pub fn best() -> Self {
        *Self::all().last().expect("portable is always there")
    }

    /// Every set that this machine executes, slowest first.
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut, reason = "other architectures have the portable set only")]
        let mut all = vec![Self(Set::Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                all.push(Self(Set::Avx2));
                let avx512 = has!("avx512f") && has!("avx512bw") && has!("avx512vl");
                if avx512 && has!("avx512vnni") {
                    all.push(Self(Set::Avx512));
                }
            }
        }
        all
    }

    /// The set's name.
    pub fn name(&self) -> &'static str {
        match self.0 {
            Set::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => "avx512",
        }
    }
}
