//! Which time steps a batch learns at.

use ddpm_tensor::random::Address;

use crate::named::named_enum;

named_enum! {
    /// How the time steps of a batch are drawn. Over many batches each is as frequent as any other.
    #[derive(Default)]
    #[non_exhaustive]
    TimeSteps: "way to draw time steps" {
        /// Each by itself: t ~ Uniform(0..T) (Ho et al. 2020, algorithm 1).
        #[default]
        Uniform = "uniform",
        /// Image i's from the i-th of as many equal parts of 0..T as the batch has images: t = ⌊T (i + u_i)/n⌋. The loss
        /// depends on t more than on the image, so that its mean, and the gradient, vary less (after Kingma et al. 2021,
        /// "Variational Diffusion Models", appendix I.1, who shift one u).
        Stratified = "stratified",
        /// Half of the batch each by itself, and for every t of it T − 1 − t in the other half (Song et al. 2021, DDIM's program).
        Antithetic = "antithetic",
        /// t with a probability that grows with its losses so far, whose weight is lowered in return ([`LossHistory`]).
        ///
        /// [`LossHistory`]: super::LossHistory
        LossSecondMoment = "loss_second_moment" | "loss-second-moment",
    }
}

/// A number in [0, 1) with 64 bits behind the point, times 2^64: image i's is at sample i of `address`.
pub(super) fn fraction(address: Address, i: usize) -> u64 {
    let [low, high, ..] = address.at_sample(i as u64).block(0);
    (u64::from(high) << 32) | u64::from(low)
}

impl TimeSteps {
    /// Fills `t` with the time steps, 0..`total`, of a batch of `n` images: image i's draw is at sample i of `address`.
    /// [`TimeSteps::LossSecondMoment`] without a history is uniform.
    pub fn draw(self, address: Address, total: usize, n: usize, t: &mut Vec<usize>) {
        let uniform = |i: usize, parts: u64| {
            let u = u128::from(fraction(address, i));
            // T (part + u)/parts with u in 64 bits behind the point
            let part = if parts == 1 { 0 } else { i as u128 };
            ((((part << 64) + u) / u128::from(parts) * total as u128) >> 64) as usize
        };
        let half = n.div_ceil(2);
        t.clear();
        t.extend((0..n).map(|i| match self {
            Self::Uniform | Self::LossSecondMoment => uniform(i, 1),
            Self::Stratified => uniform(i, n as u64),
            Self::Antithetic if i < half => uniform(i, 1),
            Self::Antithetic => total - 1 - uniform(i - half, 1),
        }));
    }
}

#[cfg(test)]
mod tests {
    use ddpm_tensor::random::Purpose;

    use super::*;

    fn draw(kind: TimeSteps, step: u64, total: usize, n: usize) -> Vec<usize> {
        let mut t = Vec::new();
        kind.draw(Address::new(7, Purpose::TimeStep).at_step(step), total, n, &mut t);
        t
    }

    #[test]
    fn every_time_step_is_as_frequent() {
        for &kind in TimeSteps::ALL {
            let mut counts = [0_usize; 10];
            for step in 0..2000 {
                for t in draw(kind, step, 10, 7) {
                    counts[t] += 1;
                }
            }
            // five standard deviations of a binomial
            let spread = 5.0 * (14_000.0 * 0.1 * 0.9_f64).sqrt();
            assert!(counts.iter().all(|&n| (n as f64 - 1400.0).abs() <= spread), "{kind}: {counts:?}");
        }
    }

    #[test]
    fn antithetic_halves_mirror_each_other() {
        for n in [1, 2, 7, 64] {
            let t = draw(TimeSteps::Antithetic, 3, 1000, n);
            let half = n.div_ceil(2);
            assert!((half..n).all(|i| t[i] + t[i - half] == 999), "{t:?}");
            assert_eq!(t[..half], draw(TimeSteps::Uniform, 3, 1000, n)[..half]);
        }
    }

    #[test]
    fn strata_hold_one_each() {
        for step in 0..50 {
            for (i, t) in draw(TimeSteps::Stratified, step, 1000, 64).into_iter().enumerate() {
                let part = 1000.0 / 64.0;
                assert!(t as f64 >= (i as f64 * part).floor() && (t as f64) < (i + 1) as f64 * part, "{i}: {t}");
            }
            assert!(draw(TimeSteps::Stratified, step, 1, 3).iter().all(|&t| t == 0));
        }
        assert!(draw(TimeSteps::Uniform, 0, 1000, 64).windows(2).any(|pair| pair[0] > pair[1]));
    }
}
