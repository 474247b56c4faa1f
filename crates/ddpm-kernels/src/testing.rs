//! What the unit tests of the operations share.

#![allow(clippy::unwrap_used)]

use ddpm_tensor::random::{Address, Purpose};
use ddpm_tensor::{Cpu, CpuOptions, Element, Isa, Precision, Shape, Tensor};

/// A handle with so many threads and this instruction set.
pub(crate) fn cpu_with<T: Element>(threads: usize, isa: Isa) -> Cpu<T> {
    Cpu::new(CpuOptions { threads: Some(threads), isa: Some(isa), precision: Precision::default() }).unwrap()
}

/// A handle with two threads, the best instruction set and no algorithm that rounds more than it must.
pub(crate) fn strict<T: Element>() -> Cpu<T> {
    Cpu::new(CpuOptions { threads: Some(2), isa: None, precision: Precision::Strict }).unwrap()
}

/// A handle with two threads and the best instruction set.
pub(crate) fn cpu<T: Element>() -> Cpu<T> {
    cpu_with(2, Isa::detect())
}

/// 1, 2, 3 and 7 threads with the best instruction set, then every set with two threads; the first is the reference.
pub(crate) fn handles<T: Element>() -> Vec<Cpu<T>> {
    let threads = [1, 2, 3, 7].map(|n| cpu_with(n, Isa::detect()));
    threads.into_iter().chain(Isa::all().into_iter().map(|isa| cpu_with(2, isa))).collect()
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
