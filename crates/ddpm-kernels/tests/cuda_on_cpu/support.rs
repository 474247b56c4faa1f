//! Inputs, guarded outputs and comparison to the bit.

use crate::host::{Launch, SCHEDULES, Schedule, ask_for, gpu};
use ddpm_kernels::Backend;
use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Cuda, Precision, Shape, Tensor};

/// What no kernel computes: shows elements that were not written, and writes outside.
const GUARD: u32 = 0x7fc0_dead;
const GUARDS: usize = 16;

/// A 16-byte aligned quadruple, so that `Buffer` decides itself how its floats are aligned.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(16))]
struct Quad([f32; 4]);

/// Floats between guards, `misalignment` floats past a 16-byte boundary.
pub(crate) struct Buffer {
    memory: Vec<Quad>,
    first: usize,
    len: usize,
}

impl Buffer {
    /// `len` floats that count as never written.
    pub(crate) fn unwritten(len: usize, misalignment: usize) -> Self {
        let guard = Quad([f32::from_bits(GUARD); 4]);
        let first = GUARDS + misalignment % 4;
        Self { memory: vec![guard; (first + len + GUARDS).div_ceil(4)], first, len }
    }

    /// A copy of `values`.
    pub(crate) fn of(values: &[f32], misalignment: usize) -> Self {
        let mut buffer = Self::unwritten(values.len(), misalignment);
        buffer.as_mut().copy_from_slice(values);
        buffer
    }

    pub(crate) fn as_ref(&self) -> &[f32] {
        &bytemuck::cast_slice(&self.memory)[self.first..][..self.len]
    }

    pub(crate) fn as_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[self.first..][..self.len]
    }

    /// Panics unless the buffer holds `expected` to the bit (any NaN for a NaN) and its guards are whole.
    pub(crate) fn assert_holds(&self, expected: &[f32], what: &str) {
        for (e, (&got, &expected)) in self.as_ref().iter().zip(expected).enumerate() {
            assert!(got.to_bits() != GUARD, "{what}: element {e} of {} was not written", self.len);
            assert!(
                got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(),
                "{what}: element {e} of {} is {got:?} ({:#010x}) on CUDA and {expected:?} ({:#010x}) in Rust",
                self.len,
                got.to_bits(),
                expected.to_bits()
            );
        }
        assert_eq!(self.len, expected.len(), "{what}");
        let all: &[f32] = bytemuck::cast_slice(&self.memory);
        let outside = all[..self.first].iter().chain(&all[self.first + self.len..]);
        assert!(outside.clone().all(|x| x.to_bits() == GUARD), "{what}: written outside of the buffer");
    }
}

/// Values of both signs and many sizes, among them some that are hard to treat right.
pub(crate) fn values(len: usize, salt: u32) -> Vec<f32> {
    const SPECIAL: [f32; 8] =
        [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE / 4.0];
    (0..len as u32)
        .map(|i| {
            let hash = (i ^ salt.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b9).rotate_left(13) ^ salt;
            if hash.is_multiple_of(29) {
                SPECIAL[(hash / 29 % 8) as usize]
            } else {
                (hash as i32 as f32) * 2f32.powi(-30)
            }
        })
        .collect()
}

/// Batches that leave tails everywhere: (images, elements of one).
pub(crate) const BATCHES: [(usize, usize); 16] = [
    (1, 1),
    (1, 2),
    (1, 3),
    (1, 4),
    (1, 5),
    (3, 1),
    (5, 7),
    (2, 8),
    (7, 3 * 3 * 3),
    (4, 5 * 7 * 3),
    (2, 9 * 11 * 5),
    (1, 28 * 28),
    (3, 28 * 28),
    (2, 32 * 32 * 3),
    (1, 4099),
    (70, 13),
];

/// Launches of `batch` that differ in everything that must not matter.
pub(crate) fn launches(images: usize, elements: usize, schedule: Schedule) -> [Launch; 3] {
    let blocks = elements.div_ceil(4) as u32;
    [
        // A thread for each block of four: how the kernels are meant to be launched.
        Launch { grid: [blocks.div_ceil(256), images as u32, 1], block: [256, 1, 1], schedule },
        // Too few threads, in odd numbers: each takes several.
        Launch { grid: [2, 3, 1], block: [37, 1, 1], schedule },
        // Far too many.
        Launch { grid: [blocks.div_ceil(32) + 2, images as u32 + 3, 1], block: [32, 1, 1], schedule },
    ]
}

/// The reference: f32 multiply-adds on the CPU.
pub(crate) fn cpu() -> Cpu<f32> {
    Cpu::new(CpuOptions { threads: Some(1), isa: None, precision: Precision::Strict }).unwrap()
}

/// Standard normal numbers on a device, others for each `stream`.
pub(crate) fn normal<B: Backend<Elem = f32>>(device: &B, stream: u64, shape: impl Into<Shape>) -> Tensor<B> {
    let shape = shape.into();
    let mut values = vec![0.0; shape.len()];
    Address::new(99, Purpose::Test).at_step(stream).fill_normal(0, &mut values);
    Tensor::from_slice(device, shape, &values).unwrap()
}

/// Something that is computed with the same words on any device.
pub(crate) trait Compute {
    /// Results with their names.
    fn on<B: Backend<Elem = f32>>(&self, device: &B) -> Vec<(&'static str, Vec<f32>)>;
}

/// Computes on the CPU, and on the stand-in GPU under every schedule: all of these give the same bits, and they differ from
/// the CPU's by at most `bound` times its norm (0: not in a bit).
pub(crate) fn compare(what: &str, bound: f64, compute: &impl Compute) {
    compare_on(&gpu(), &SCHEDULES, what, bound, compute);
}

/// The same on a GPU of any precision, under some schedules. The largest difference.
pub(crate) fn compare_on(cuda: &Cuda, schedules: &[Schedule], what: &str, bound: f64, compute: &impl Compute) -> f64 {
    let expected = compute.on(&cpu());
    let mut largest = 0f64;
    let mut first: Option<Vec<(&str, Vec<f32>)>> = None;
    for &schedule in schedules {
        ask_for(schedule);
        let got = compute.on(cuda);
        if let Some(first) = &first {
            for ((name, a), (_, b)) in got.iter().zip(first) {
                let differs = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
                assert!(differs.is_none(), "{what}, {name}: other bits under {schedule:?}, first at {differs:?}");
            }
            continue;
        }
        assert_eq!(got.len(), expected.len(), "{what}: number of results");
        for ((name, got), (_, expected)) in got.iter().zip(&expected) {
            assert_eq!(got.len(), expected.len(), "{what}, {name}: number of elements");
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
            let difference = norm(&mut got.iter().zip(expected).map(|(&a, &b)| a as f64 - b as f64));
            let size = norm(&mut expected.iter().map(|&b| b as f64));
            let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).enumerate();
            let worst = worst.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(i, _)| (i, got[i], expected[i]));
            // sums over pixels of what was computed: their terms cancel
            let derived = ["sums", "d_scale_shift"].contains(name);
            let bound = if derived && bound > 1e-6 { 4.0 * bound } else { bound };
            assert!(
                difference <= bound * size,
                "{what}, {name}: off by {:.2e} of its norm {size:.3e}; worst element (number, got, expected) {worst:?}",
                difference / size
            );
            largest = largest.max(difference / size.max(f64::MIN_POSITIVE));
        }
        first = Some(got);
    }
    ask_for(Schedule::Forward);
    largest
}
