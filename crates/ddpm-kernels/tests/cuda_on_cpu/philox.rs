//! `kernels/philox.cuh` against [`Address`], far into the sequence and in every corner of an address.

use crate::host::{Argument, Launch, SCHEDULES, Schedule, launch};
use crate::support::Buffer;
use ddpm_tensor::random::{Address, Purpose};
use std::collections::BTreeSet;
use std::path::Path;

/// Words and normals of `blocks` at `address`, on the CPU's CUDA and in Rust.
fn compare(address: Address, blocks: &[u32], schedule: Schedule) {
    let count = blocks.len();
    let mut words = vec![0u32; 4 * count];
    let mut normals = Buffer::unwritten(4 * count, 0);
    let arguments = [
        Argument::input(blocks),
        Argument::output(&mut words),
        Argument::output(normals.as_mut()),
        Argument::value(count as u64),
        Argument::value(address.seed),
        Argument::value(address.step),
        Argument::value(address.sample),
        Argument::value(address.purpose as u32),
    ];
    let run = Launch { grid: [count.div_ceil(128) as u32, 1, 1], block: [128, 1, 1], schedule };
    // SAFETY: the arguments of `philox_probe` in its order; four words and normals for each of `count` blocks.
    unsafe { launch("philox_probe", run, &arguments) }.unwrap();
    let expected_words: Vec<u32> = blocks.iter().flat_map(|&block| address.block(block)).collect();
    assert!(words == expected_words, "words at {address:?}");
    let expected: Vec<f32> = blocks.iter().flat_map(|&block| address.normals(block)).collect();
    normals.assert_holds(&expected, &format!("normals at {address:?}"));
}

#[test]
fn every_part_of_an_address_counts_as_in_rust() {
    // Beyond what counts, too: the surplus must vanish in the same way.
    let extremes = [0, 1, u32::MAX as u64, 1 << 32, 1 << 39, 1 << 40, 1 << 47, 1 << 48, u64::MAX];
    for (i, &step) in extremes.iter().enumerate() {
        for (j, &sample) in extremes.iter().enumerate() {
            let purpose = if i % 2 == 0 { Purpose::Latent } else { Purpose::Test };
            let address = Address { seed: step.rotate_left(17) ^ j as u64, purpose, step, sample };
            compare(address, &[0, 1, 2, u32::MAX], SCHEDULES[i % SCHEDULES.len()]);
        }
    }
}

#[test]
fn many_normals_agree_to_the_bit() {
    let blocks: Vec<u32> = (0..1u32 << 20).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    compare(Address::new(42, Purpose::Test), &blocks, Schedule::Forward);
}

/// A wrong last digit in the least coefficient changes one normal in a thousand million, which no sample shows.
#[test]
fn both_sources_name_the_same_coefficients() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(repository.join(path)).unwrap();
    let (rust, cuda) = (read("crates/ddpm-tensor/src/random/normal.rs"), read("kernels/philox.cuh"));
    let is_constant = |word: &&str| word.contains('.') && word.contains("e-") && word.parse::<f32>().is_ok();
    let constants = |text: &str| -> BTreeSet<String> {
        let code = text
            .lines()
            .take_while(|line| !line.contains("cfg(test)"))
            .map(|line| line.split("//").next().unwrap_or_default());
        let words = code.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '-'));
        words
            .map(|word| word.trim_end_matches('f').trim_start_matches('-'))
            .filter(is_constant)
            .map(String::from)
            .collect()
    };
    assert_eq!(constants(&rust), constants(&cuda));
    assert_eq!(constants(&rust).len(), 10 + 3 + 3 + 3);
}
