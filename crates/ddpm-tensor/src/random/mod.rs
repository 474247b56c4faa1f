//! Random numbers that have an address instead of a history.
//!
//! Every number is a pure function of (seed, purpose, step, sample, element): no generator keeps
//! state, so the noise of image 7 at step 500 is the same whatever the batch, the number of threads
//! or the device. Bits come from [Philox4x32-10](philox), normals from a Box-Muller transform that
//! gives the [same bits everywhere](normal).
//!
//! ```
//! use ddpm_tensor::random::{Address, Purpose};
//!
//! let image_7 = Address::new(42, Purpose::Noise).at_step(500).at_sample(7);
//! let mut whole = [0.0; 100];
//! image_7.fill_normal(0, &mut whole);
//! let mut part = [0.0; 10];
//! image_7.fill_normal(37, &mut part);
//! assert_eq!(part, whole[37..47]);
//! ```

pub mod normal;
pub mod philox;

use crate::{Isa, simd};
use normal::normals_from_bits;
use philox::philox4x32_10;
use std::convert::Infallible;

/// What a random number is for, so that two uses never meet in one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Purpose {
    /// ε of training (Ho et al. 2020, algorithm 1).
    Noise = 1,
    /// The time step t of a training image.
    TimeStep = 2,
    /// Dropout masks.
    Dropout = 3,
    /// Initial parameters.
    Init = 4,
    /// The order of the data.
    Shuffle = 5,
    /// Flips, crops and other augmentations.
    Augment = 6,
    /// `x_T`, what sampling starts from.
    Latent = 7,
    /// z, the noise that a sampler adds (Ho et al. 2020, algorithm 2).
    Sampler = 8,
    /// t and ε of the held-out loss.
    Heldout = 9,
    /// Which images lose their class (classifier-free guidance).
    ClassDrop = 10,
    /// x_t of likelihoods, their dequantisation and their probes.
    Likelihood = 20,
    /// Subsets and splits of scores.
    Score = 21,
    /// Noise that all pixels of a channel share (offset noise).
    OffsetNoise = 22,
    /// Which steps show the network what it saw before (self-conditioning).
    SelfCondition = 23,
    /// Tests and benchmarks.
    Test = 255,
}

/// Where a sequence of random numbers stands: one for each (seed, purpose, step, sample).
///
/// The sequence has 2^34 elements (2^32 blocks of four). Of `step` the lower 48 bits count and of
/// `sample` the lower 40: that is what fits beside block and purpose into Philox's 128-bit counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The run's seed: Philox's key.
    pub seed: u64,
    /// What the numbers are for.
    pub purpose: Purpose,
    /// Training step, or a sampler's step.
    pub step: u64,
    /// Index of the image, counted over the whole run or the whole set of samples.
    pub sample: u64,
}

/// Blocks made together: enough for a vector of the widest unit.
const LANES: usize = 16;

impl Address {
    /// Sample 0 of step 0.
    pub const fn new(seed: u64, purpose: Purpose) -> Self {
        Self { seed, purpose, step: 0, sample: 0 }
    }

    /// The same address at another sample.
    #[must_use]
    pub const fn at_sample(self, sample: u64) -> Self {
        Self { sample, ..self }
    }

    /// The same address at another step.
    #[must_use]
    pub const fn at_step(self, step: u64) -> Self {
        Self { step, ..self }
    }

    /// Philox's counter for a block:
    /// `[block, sample 0..32, step 0..32, purpose | sample 32..40 | step 32..48]`.
    #[inline(always)]
    fn counter(&self, block: u32) -> [u32; 4] {
        let purpose = (self.purpose as u32) << 24;
        let sample_high = ((self.sample >> 32) as u32 & 0xff) << 16;
        let step_high = (self.step >> 32) as u32 & 0xffff;
        [block, self.sample as u32, self.step as u32, purpose | sample_high | step_high]
    }

    /// The 128 random bits of elements `4 * block .. 4 * block + 4`.
    #[inline(always)]
    pub fn block(&self, block: u32) -> [u32; 4] {
        philox4x32_10(self.counter(block), [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// The standard normals of elements `4 * block .. 4 * block + 4`.
    #[inline(always)]
    pub fn normals(&self, block: u32) -> [f32; 4] {
        normals_from_bits(self.block(block))
    }

    /// The numbers in [0, 1) of elements `4 * block .. 4 * block + 4`, multiples of 2^-24.
    #[inline(always)]
    pub fn uniforms(&self, block: u32) -> [f32; 4] {
        self.block(block).map(|bits| (bits >> 8) as f32 * 2.0f32.powi(-24))
    }

    /// Fills `out` with the standard normals of elements `first_element ..`.
    ///
    /// The bits of an element do not depend on how a sequence is cut into fills, nor on the CPU.
    pub fn fill_normal(&self, first_element: usize, out: &mut [f32]) {
        fill_normal_on(Isa::detect(), *self, first_element, out);
    }

    /// Fills `out` with the uniform numbers in [0, 1) of elements `first_element ..`, multiples of 2^-24.
    pub fn fill_uniform(&self, first_element: usize, out: &mut [f32]) {
        fill_uniform_on(Isa::detect(), *self, first_element, out);
    }

    /// The words of blocks 0, 1, 2, … as a generator for `rand` and `rand_distr`.
    pub const fn rng(self) -> PhiloxRng {
        PhiloxRng { address: self, next_word: 0 }
    }
}

/// Elements `first_element ..` of the sequence whose block b is `values(b)`.
#[inline(always)]
fn fill(first_element: usize, out: &mut [f32], values: impl Fn(u32) -> [f32; 4]) {
    // Up to the next block's first element.
    let lane = first_element % 4;
    let mut block = (first_element / 4) as u32;
    let out = if lane == 0 {
        out
    } else {
        let (head, rest) = out.split_at_mut(out.len().min(4 - lane));
        head.copy_from_slice(&values(block)[lane..lane + head.len()]);
        block = block.wrapping_add(1);
        rest
    };
    // Many blocks at once: LLVM makes vectors of this loop over independent lanes.
    let mut groups = out.chunks_exact_mut(4 * LANES);
    for group in &mut groups {
        let mut lanes = [[0.0; LANES]; 4];
        #[allow(clippy::needless_range_loop)] // a plain counted loop is what becomes vectors
        for i in 0..LANES {
            let [a, b, c, d] = values(block.wrapping_add(i as u32));
            lanes[0][i] = a;
            lanes[1][i] = b;
            lanes[2][i] = c;
            lanes[3][i] = d;
        }
        for i in 0..LANES {
            for (j, lane) in lanes.iter().enumerate() {
                group[4 * i + j] = lane[i];
            }
        }
        block = block.wrapping_add(LANES as u32);
    }
    for four in groups.into_remainder().chunks_mut(4) {
        four.copy_from_slice(&values(block)[..four.len()]);
        block = block.wrapping_add(1);
    }
}

simd! {
    fn fill_normal_on[](isa, address: Address, first_element: usize, out: &mut [f32]) {
        fill(first_element, out, #[inline(always)] |block| address.normals(block));
    }
}

simd! {
    fn fill_uniform_on[](isa, address: Address, first_element: usize, out: &mut [f32]) {
        fill(first_element, out, #[inline(always)] |block| address.uniforms(block));
    }
}

/// The words at an [`Address`] in order, for the distributions of `rand` and `rand_distr`.
///
/// A position in a sequence, made where it is needed and dropped there; nothing keeps one. After
/// 2^34 words the sequence begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhiloxRng {
    address: Address,
    next_word: u64,
}

impl rand::TryRng for PhiloxRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // Four calls make a block four times over: what is drawn this way is small, and a
        // remembered block would be state to get wrong.
        let word = self.address.block((self.next_word / 4) as u32)[(self.next_word % 4) as usize];
        self.next_word += 1;
        Ok(word)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let low = u64::from(self.try_next_u32()?);
        let high = u64::from(self.try_next_u32()?);
        Ok(high << 32 | low)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for four in bytes.chunks_mut(4) {
            let word = self.try_next_u32()?.to_le_bytes();
            four.copy_from_slice(&word[..four.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
