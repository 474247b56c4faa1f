//! Addresses, fills and the statistics of the numbers.

use super::{Address, Purpose, fill_normal_on, fill_uniform_on};
use crate::Isa;
use rand::{Rng, RngExt};

const ADDRESS: Address = Address::new(0x0123_4567_89ab_cdef, Purpose::Test);

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_counter_is_laid_out_as_documented() {
    let address =
        Address { seed: 0, purpose: Purpose::Shuffle, step: 0xffff_0123_4567_89ab, sample: 0xffff_ffcd_7654_3210 };
    // What lies above 48 bits of the step and 40 of the sample must not reach the purpose.
    assert_eq!(address.counter(9), [9, 0x7654_3210, 0x4567_89ab, 0x05cd_0123]);
    assert_eq!(Address::new(7 << 32 | 5, Purpose::Noise).block(3), super::philox4x32_10([3, 0, 0, 1 << 24], [5, 7]));
}

#[test]
fn each_part_of_an_address_makes_other_numbers() {
    let a = ADDRESS;
    let others = [
        Address { seed: a.seed ^ 1, ..a },
        Address { seed: a.seed ^ 1 << 63, ..a },
        Address { purpose: Purpose::Noise, ..a },
        a.at_step(1),
        a.at_step(1 << 47),
        a.at_sample(1),
        a.at_sample(1 << 39),
    ];
    let all: Vec<_> = std::iter::once(a).chain(others).map(|a| a.block(0)).collect();
    for (i, x) in all.iter().enumerate() {
        for y in &all[..i] {
            assert_ne!(x, y);
        }
    }
    assert_ne!(a.block(0), a.block(u32::MAX));
}

#[test]
fn a_fill_from_any_element_is_a_part_of_the_whole() {
    let mut whole = vec![0.0; 400];
    for (name, fill) in
        [("normal", Address::fill_normal as fn(&Address, usize, &mut [f32])), ("uniform", Address::fill_uniform)]
    {
        fill(&ADDRESS, 0, &mut whole);
        for first in 0..80 {
            for len in [0, 1, 2, 3, 4, 5, 63, 64, 65, 131, 200] {
                let mut part = vec![f32::NAN; len];
                fill(&ADDRESS, first, &mut part);
                assert_eq!(bits(&part), bits(&whole[first..first + len]), "{name}, elements {first}..{}", first + len);
            }
        }
    }
}

#[test]
fn fills_agree_with_single_blocks() {
    let first = 4 * (u32::MAX as usize - 40);
    let mut fill = [0.0; 160];
    ADDRESS.fill_normal(first, &mut fill);
    let mut uniform = [0.0; 160];
    ADDRESS.fill_uniform(first, &mut uniform);
    for i in 0..40 {
        let block = (first / 4 + i) as u32;
        assert_eq!(fill[4 * i..4 * i + 4], ADDRESS.normals(block));
        assert_eq!(uniform[4 * i..4 * i + 4], ADDRESS.uniforms(block));
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let run = |isa, len: usize| {
        let mut z = vec![0.0; 2 * len];
        let (normal, uniform) = z.split_at_mut(len);
        fill_normal_on(isa, ADDRESS.at_sample(11), 3, normal);
        fill_uniform_on(isa, ADDRESS.at_sample(11), 3, uniform);
        bits(&z)
    };
    for len in [1, 64, 100_003] {
        let portable = run(Isa::PORTABLE, len);
        for isa in Isa::all() {
            assert!(run(isa, len) == portable, "{isa}, {len} numbers");
        }
    }
}

/// Φ, the distribution function of the standard normal.
fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

/// Moments, Kolmogorov-Smirnov, tails and pair correlations on 2^24 values. The bounds are about five
/// standard errors; the sequence is fixed, so the test either always passes or never.
#[test]
fn normals_are_standard_normal() {
    const N: usize = 1 << 24;
    /// Bins of width 2^-12 on [-8, 8): each holds at most 1e-4 of the mass, below what KS resolves here.
    const BINS: usize = 1 << 16;
    let n = N as f64;
    let mut histogram = vec![0u32; BINS];
    let mut moments = [0.0f64; 4];
    let (mut beyond_4, mut pair, mut pair_of_squares) = (0u32, 0.0f64, 0.0f64);
    let mut z = vec![0.0f32; 1 << 14];
    for first in (0..N).step_by(z.len()) {
        ADDRESS.fill_normal(first, &mut z);
        for two in z.chunks_exact(2) {
            let (a, b) = (f64::from(two[0]), f64::from(two[1]));
            pair += a * b;
            pair_of_squares += (a * a - 1.0) * (b * b - 1.0);
        }
        for &z in &z {
            let z64 = f64::from(z);
            let square = z64 * z64;
            moments[0] += z64;
            moments[1] += square;
            moments[2] += square * z64;
            moments[3] += square * square;
            beyond_4 += u32::from(z.abs() > 4.0);
            histogram[((z + 8.0) * 4096.0) as usize] += 1;
        }
    }
    let [mean, second, third, fourth] = moments.map(|m| m / n);
    // Standard errors: 1/√n, √(2/n), √(15/n), √(96/n).
    let root_n = n.sqrt();
    assert!(mean.abs() < 5.0 / root_n, "mean {mean:e}");
    assert!((second - 1.0).abs() < 5.0 * 2f64.sqrt() / root_n, "variance {second}");
    assert!(third.abs() < 5.0 * 15f64.sqrt() / root_n, "third moment {third:e}");
    assert!((fourth - 3.0).abs() < 5.0 * 96f64.sqrt() / root_n, "kurtosis {fourth}");
    // The two halves of a Box-Muller pair share a radius; neither they nor their squares may correlate.
    assert!((pair / n * 2.0).abs() < 5.0 * 2f64.sqrt() / root_n, "pair {pair:e}");
    let squares = pair_of_squares / n * 2.0;
    assert!(squares.abs() < 5.0 * 8f64.sqrt() / root_n, "squares {squares:e}");
    // P(|z| > 4) = 6.334e-5: 1063 expected.
    let expected = 2.0 * normal_cdf(-4.0) * n;
    assert!(
        (f64::from(beyond_4) - expected).abs() < 5.0 * expected.sqrt(),
        "beyond 4 sigma: {beyond_4}, expected {expected:.0}"
    );
    // Kolmogorov-Smirnov at the edges of the bins; 1.95/√n is exceeded by chance once in a thousand.
    let (mut below, mut distance) = (0u64, 0.0f64);
    for (bin, &count) in histogram.iter().enumerate() {
        below += u64::from(count);
        let edge = (bin + 1) as f64 / 4096.0 - 8.0;
        distance = distance.max((below as f64 / n - normal_cdf(edge)).abs());
    }
    assert!(distance < 1.95 / root_n, "KS distance {distance:e}");
    assert_eq!(below, N as u64);
}

#[test]
fn uniforms_are_uniform() {
    const N: usize = 1 << 20;
    let mut u = vec![0.0f32; N];
    ADDRESS.fill_uniform(0, &mut u);
    let mut bins = [0u32; 256];
    for &u in &u {
        assert!((0.0..1.0).contains(&u), "{u} outside [0, 1)");
        bins[(u * 256.0) as usize] += 1;
    }
    // χ² with 255 degrees of freedom: mean 255, standard deviation 22.6.
    let expected = N as f64 / 256.0;
    let chi2: f64 = bins.iter().map(|&b| (f64::from(b) - expected).powi(2) / expected).sum();
    assert!((255.0 - 113.0..255.0 + 113.0).contains(&chi2), "chi-squared {chi2}");
}

#[test]
fn the_generator_reads_the_blocks_in_order() {
    let mut rng = ADDRESS.rng();
    let words: Vec<u32> = (0..10).map(|_| rng.next_u32()).collect();
    let blocks: Vec<u32> = (0..3).flat_map(|b| ADDRESS.block(b)).take(10).collect();
    assert_eq!(words, blocks);

    let mut rng = ADDRESS.rng();
    assert_eq!(rng.next_u64(), u64::from(words[1]) << 32 | u64::from(words[0]));
    let mut bytes = [0; 6];
    rng.fill_bytes(&mut bytes);
    assert_eq!(bytes[..4], words[2].to_le_bytes());
    assert_eq!(bytes[4..], words[3].to_le_bytes()[..2]);
    assert!((0..10).contains(&rng.random_range(0..10)));
}
