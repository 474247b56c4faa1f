//! What the unit tests of the operations share.

#![allow(clippy::unwrap_used)]

use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Element, Isa, Precision, Shape, Tensor};

/// A handle with so many threads, this instruction set and this precision.
pub(crate) fn cpu_with<T: Element>(threads: usize, isa: Isa, precision: Precision) -> Cpu<T> {
    Cpu::new(CpuOptions { threads: Some(threads), isa: Some(isa), precision }).unwrap()
}

/// A handle with two threads, the best instruction set and the default precision.
pub(crate) fn cpu<T: Element>() -> Cpu<T> {
    cpu_with(2, Isa::detect(), Precision::default())
}

/// A handle with two threads, the best instruction set and precision `strict`.
pub(crate) fn strict<T: Element>() -> Cpu<T> {
    cpu_with(2, Isa::detect(), Precision::Strict)
}

/// 1, 2, 3 and 7 threads with the best instruction set, then every set with two threads, all `strict`; the first is the
/// reference.
pub(crate) fn handles<T: Element>() -> Vec<Cpu<T>> {
    handles_of(Precision::Strict)
}

/// The same for another precision.
pub(crate) fn handles_of<T: Element>(precision: Precision) -> Vec<Cpu<T>> {
    let threads = [1, 2, 3, 7].map(|n| cpu_with(n, Isa::detect(), precision));
    threads.into_iter().chain(Isa::all().into_iter().map(|isa| cpu_with(2, isa, precision))).collect()
}

/// |got − expected| / |expected|, 0 for nothing.
pub(crate) fn relative_norm<T: Element>(got: &[T], expected: &[f64]) -> f64 {
    assert_eq!(got.len(), expected.len(), "number of elements");
    let error: f64 = got.iter().zip(expected).map(|(g, e)| (g.to_f64() - e).powi(2)).sum();
    let size: f64 = expected.iter().map(|e| e * e).sum();
    if error == 0.0 { 0.0 } else { (error / size).sqrt() }
}

/// Standard normal numbers, others for each `stream`.
pub(crate) fn values<T: Element>(stream: u64, len: usize) -> Vec<T> {
    let mut normals = vec![0.0; len];
    Address::new(99, Purpose::Test).at_step(stream).fill_normal(0, &mut normals);
    normals.into_iter().map(T::of_f32).collect()
}

/// A tensor of [`values`].
pub(crate) fn tensor<T: Element>(cpu: &Cpu<T>, stream: u64, shape: impl Into<Shape>) -> Tensor<Cpu<T>> {
    let shape = shape.into();
    Tensor::from_slice(cpu, shape, &values(stream, shape.len())).unwrap()
}

/// Fails with the worst element unless all |got − expected| ≤ absolute + relative·|expected|.
#[track_caller]
pub(crate) fn close<T: Element>(name: &str, got: &[T], expected: &[f64], relative: f64, absolute: f64) {
    assert_eq!(got.len(), expected.len(), "{name}: number of elements");
    let (mut worst, mut at) = (0.0, 0);
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let excess = (got.to_f64() - expected).abs() / (absolute + relative * expected.abs());
        if excess > worst || excess.is_nan() {
            (worst, at) = (excess, i);
        }
        if excess.is_nan() {
            break;
        }
    }
    assert!(worst <= 1.0, "{name}: element {at} is {}, expected {}: {worst:.2} times the bound", got[at], expected[at]);
}

/// Fails unless both have the same bits.
#[track_caller]
pub(crate) fn same_bits<T: Element>(name: &str, got: &[T], expected: &[T]) {
    let equal = bytemuck::cast_slice::<T, u8>(got) == bytemuck::cast_slice::<T, u8>(expected);
    let first = got.iter().zip(expected).position(|(a, b)| bytemuck::bytes_of(a) != bytemuck::bytes_of(b));
    assert!(equal, "{name}: differs first at {first:?}");
}

/// Compares `gradient` with central differences of `f` at `x`, in every `stride`-th element.
#[track_caller]
pub(crate) fn finite_differences(
    name: &str,
    x: &[f64],
    gradient: &[f64],
    stride: usize,
    mut f: impl FnMut(&[f64]) -> f64,
) {
    const STEP: f64 = 1e-5;
    let mut x = x.to_vec();
    let (mut differences, mut chosen) = (Vec::new(), Vec::new());
    for i in (0..x.len()).step_by(stride) {
        let at = x[i];
        x[i] = at + STEP;
        let above = f(&x);
        x[i] = at - STEP;
        let below = f(&x);
        x[i] = at;
        differences.push((above - below) / (2.0 * STEP));
        chosen.push(gradient[i]);
    }
    close(name, &chosen, &differences, 1e-6, 1e-8);
}
