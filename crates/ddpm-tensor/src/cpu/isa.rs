//! Instruction sets, found once, and functions compiled for each of them.

use std::fmt;
use std::str::FromStr;

use crate::TensorError;

/// An instruction set that this machine has (no other value can be made).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Set);

/// What [`Isa::set`] tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Set {
    /// What the compiler's baseline has.
    Portable,
    /// AVX2 and FMA: 8 lanes.
    Avx2,
    /// AVX-512 F, BW, DQ and VL: 16 lanes.
    Avx512,
    /// AVX-512 with its conversions to bf16, and AMX's tiles of them.
    Amx,
}

const SETS: [(Set, &str); 4] =
    [(Set::Portable, "portable"), (Set::Avx2, "avx2"), (Set::Avx512, "avx512"), (Set::Amx, "amx")];

fn present(set: Set) -> bool {
    match set {
        Set::Portable => true,
        #[cfg(target_arch = "x86_64")]
        Set::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => {
            present(Set::Avx2)
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Set::Amx => present(Set::Avx512) && is_x86_feature_detected!("avx512bf16") && *AMX.get_or_init(amx),
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        _ => false,
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
static AMX: std::sync::OnceLock<bool> = std::sync::OnceLock::new();

/// Whether the processor has AMX's bf16 tiles and the system lets this process use them: it asks for that, once.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn amx() -> bool {
    use std::arch::x86_64::__cpuid_count;
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    if __cpuid_count(0, 0).eax < 7 || __cpuid_count(7, 0).edx & BF16_AND_TILES != BF16_AND_TILES {
        return false;
    }
    let result: i64;
    // SAFETY: a system call that reads no memory of ours: it allows the process the tiles' registers, or fails.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Self {
        Self(SETS.iter().rev().map(|&(set, _)| set).find(|&set| present(set)).unwrap_or(Set::Portable))
    }

    /// What the compiler's baseline has.
    pub const PORTABLE: Self = Self(Set::Portable);

    /// All that this machine has, the plainest first.
    pub fn all() -> Vec<Self> {
        SETS.iter().map(|&(set, _)| set).filter(|&set| present(set)).map(Self).collect()
    }

    /// Which one it is.
    #[inline]
    pub fn set(self) -> Set {
        self.0
    }

    /// Whether precision `bf16` gains anything on it: AMX does, and AVX-512 where it converts and multiplies numbers of bf16.
    pub fn multiplies_bf16(self) -> bool {
        match self.0 {
            Set::Amx => true,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => is_x86_feature_detected!("avx512bf16"),
            _ => false,
        }
    }

    /// Its name: `portable`, `avx2`, `avx512`, `amx`.
    pub fn name(self) -> &'static str {
        SETS.iter().find(|&&(set, _)| set == self.0).map_or("portable", |&(_, name)| name)
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = TensorError;

    /// # Errors
    /// [`TensorError::Isa`] for a name that is none, or that this machine does not have.
    fn from_str(name: &str) -> Result<Self, TensorError> {
        let have = || Self::all().iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
        let error = |reason: String| TensorError::Isa { name: name.into(), reason };
        match SETS.iter().find(|&&(_, n)| n == name) {
            None => Err(error(format!("no set has that name; this machine has {}", have()))),
            Some(&(set, _)) if present(set) => Ok(Self(set)),
            Some(_) => Err(error(format!("this machine has {}", have()))),
        }
    }
}

/// Defines a function whose body is compiled once for each instruction set, and that runs the one it is told:
/// `simd! { pub fn name[T: Bound](isa, argument: Type, …) -> Result { body } }`; the body must be safe code.
///
/// The bodies use the same operations in the same order, so every set gives the same bits.
#[macro_export]
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident [$($generics:tt)*] ($isa:ident $(, $arg:ident : $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name<$($generics)*>($isa: $crate::Isa $(, $arg: $ty)*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$($generics)*>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512<$($generics)*>($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2<$($generics)*>($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
            match $isa.set() {
                // SAFETY: an `Isa` of a set exists only where the machine has the set.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::isa::Set::Avx512 | $crate::cpu::isa::Set::Amx => unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::cpu::isa::Set::Avx2 => unsafe { avx2($($arg),*) },
                _ => body($($arg),*),
            }
        }
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_and_the_best_is_taken() {
        for isa in Isa::all() {
            assert_eq!(isa.name().parse::<Isa>().unwrap(), isa);
        }
        assert_eq!(Isa::all().last(), Some(&Isa::detect()));
        let message = "sse9".parse::<Isa>().unwrap_err().to_string();
        assert!(message.contains("portable"), "{message}");
    }

    #[test]
    fn every_set_gives_the_same_bits() {
        simd! {
            fn exp_all[](isa, x: &[f32], y: &mut [f32]) {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = crate::math::exp(x);
                }
            }
        }
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 - 500.0) / 7.0).collect();
        let mut reference = vec![0.0; x.len()];
        exp_all(Isa::PORTABLE, &x, &mut reference);
        for isa in Isa::all() {
            let mut y = vec![0.0; x.len()];
            exp_all(isa, &x, &mut y);
            assert_eq!(y, reference, "{isa}");
        }
    }
}
