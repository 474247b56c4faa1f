//! The order of an epoch: a permutation that is computed where it is asked for, never stored.
//!
//! A Feistel network over the least power of two that holds all indices (Luby and Rackoff 1988),
//! its round function Philox at the address (seed, shuffle, epoch, half, round); results beyond the
//! last index are fed in again until one is within ("cycle walking", Black and Rogaway 2002).

use ddpm_tensor::random::{Address, Purpose};

/// Four suffice for a pseudorandom permutation of large halves; small ones mix more slowly.
const ROUNDS: u32 = 8;

/// A permutation of `0..count`, determined by a seed and an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Permutation {
    address: Address,
    count: u64,
    /// Bits of the left and of the right half; they differ by at most one.
    left: u32,
    right: u32,
}

impl Permutation {
    /// The order of `count` images in an epoch.
    pub fn new(seed: u64, epoch: u64, count: usize) -> Self {
        let count = count as u64;
        let bits = u64::BITS - count.saturating_sub(1).leading_zeros();
        let address = Address::new(seed, Purpose::Shuffle).at_step(epoch);
        Self { address, count, left: bits / 2, right: bits - bits / 2 }
    }

    /// What stands at `position`, which is taken modulo `count`. O(1): some 16 Philox blocks at most
    /// on average.
    pub fn at(&self, position: usize) -> usize {
        if self.count < 2 {
            return 0;
        }
        let mut x = position as u64 % self.count;
        loop {
            x = self.mixed(x);
            if x < self.count {
                return x as usize;
            }
        }
    }

    /// The Feistel network: each round changes one half by a function of the other.
    fn mixed(&self, x: u64) -> u64 {
        let (left_mask, right_mask) = ((1 << self.left) - 1, (1 << self.right) - 1);
        let (mut left, mut right) = (x >> self.right, x & right_mask);
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                right ^= self.round(round, left) & right_mask;
            } else {
                left ^= self.round(round, right) & left_mask;
            }
        }
        left << self.right | right
    }

    fn round(&self, round: u32, half: u64) -> u64 {
        u64::from(self.address.at_sample(half).block(round)[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn order(seed: u64, epoch: u64, count: usize) -> Vec<usize> {
        let permutation = Permutation::new(seed, epoch, count);
        (0..count).map(|position| permutation.at(position)).collect()
    }

    proptest! {
        #[test]
        fn every_index_comes_once(seed: u64, epoch in 0_u64..1 << 40, count in 1_usize..1500) {
            let mut order = order(seed, epoch, count);
            order.sort_unstable();
            prop_assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        assert_eq!(order(3, 5, 1000), order(3, 5, 1000));
        for other in [order(3, 6, 1000), order(4, 5, 1000)] {
            let same = order(3, 5, 1000).iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} of 1000 images at the same place; by chance 1");
        }
    }

    #[test]
    fn every_place_is_as_likely() {
        // 7 images, 7000 epochs: each image comes to each place 1000 times, sigma 29.
        let mut counts = [[0_i32; 7]; 7];
        for epoch in 0..7000 {
            for (place, image) in order(1, epoch, 7).into_iter().enumerate() {
                counts[place][image] += 1;
            }
        }
        let worst = counts.iter().flatten().map(|count| (count - 1000).abs()).max();
        assert!(worst < Some(150), "{counts:?}");
    }
}
