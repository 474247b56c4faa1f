//! Time steps by what they still cost: the loss-second-moment resampling of Nichol and Dhariwal 2021, section 3.3.

use ddpm_tensor::random::Address;

use super::time_steps::{TimeSteps, fraction};

/// Losses that are remembered of each time step.
pub const REMEMBERED: usize = 10;
/// The share of draws that is uniform all the same.
const UNIFORM: f64 = 0.001;

/// The last losses of every time step, from which the next time steps are drawn: `p_t ∝ √E[L_t²]`, mixed with 0.1 % of a uniform
/// draw (Nichol and Dhariwal 2021, eq. 18), and uniform until every t has [`REMEMBERED`] losses.
///
/// A loss is kept as `f32`, unweighted.
#[derive(Debug, Clone, PartialEq)]
pub struct LossHistory {
    /// `[T, REMEMBERED]`, the oldest first, then how many there are, `[T]`.
    flat: Vec<f32>,
    time_steps: usize,
}

impl LossHistory {
    /// Nothing known of `time_steps` time steps.
    pub fn new(time_steps: usize) -> Self {
        Self { flat: vec![0.0; time_steps * (REMEMBERED + 1)], time_steps }
    }

    /// The numbers as they are stored: `[T, REMEMBERED]` losses, then `[T]` counts.
    pub fn flat(&self) -> &Vec<f32> {
        &self.flat
    }

    /// The same, to be read into.
    pub fn flat_mut(&mut self) -> &mut Vec<f32> {
        &mut self.flat
    }

    /// How many losses of t are known.
    fn count(&self, t: usize) -> usize {
        (self.flat[self.time_steps * REMEMBERED + t] as usize).min(REMEMBERED)
    }

    /// Remembers a loss; the oldest of ten is forgotten.
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn record(&mut self, t: usize, loss: f64) {
        let count = self.count(t);
        let known = &mut self.flat[t * REMEMBERED..(t + 1) * REMEMBERED];
        if count == REMEMBERED {
            known.rotate_left(1);
        }
        known[count.min(REMEMBERED - 1)] = loss as f32;
        self.flat[self.time_steps * REMEMBERED + t] = (count + 1).min(REMEMBERED) as f32;
    }

    /// p_t for every t; none until every t has enough losses, or where all of them are 0.
    pub fn probabilities(&self) -> Option<Vec<f64>> {
        if (0..self.time_steps).any(|t| self.count(t) < REMEMBERED) {
            return None;
        }
        let root = |losses: &[f32]| {
            (losses.iter().map(|&loss| f64::from(loss).powi(2)).sum::<f64>() / REMEMBERED as f64).sqrt()
        };
        let roots: Vec<f64> = self.flat[..self.time_steps * REMEMBERED].chunks(REMEMBERED).map(root).collect();
        let sum: f64 = roots.iter().sum();
        let share = UNIFORM / self.time_steps as f64;
        (sum > 0.0).then(|| roots.iter().map(|root| root / sum * (1.0 - UNIFORM) + share).collect())
    }

    /// Fills `t` with the time steps of a batch of `n` images, and `weights` with 1/(T p_t), what an image's loss counts for so that
    /// the mean stays what it was. Image i's draw is at sample i of `address`.
    pub fn draw(&self, address: Address, n: usize, t: &mut Vec<usize>, weights: &mut Vec<f64>) {
        weights.clear();
        let Some(p) = self.probabilities() else {
            TimeSteps::Uniform.draw(address, self.time_steps, n, t);
            weights.resize(n, 1.0);
            return;
        };
        let mut sum = 0.0;
        let upto: Vec<f64> = p
            .iter()
            .map(|p| {
                sum += p;
                sum
            })
            .collect();
        t.clear();
        t.extend((0..n).map(|i| {
            let u = fraction(address, i) as f64 / 2.0_f64.powi(64) * sum;
            upto.partition_point(|&end| end <= u).min(self.time_steps - 1)
        }));
        weights.extend(t.iter().map(|&t| 1.0 / (self.time_steps as f64 * p[t])));
    }
}

#[cfg(test)]
mod tests {
    use ddpm_tensor::random::Purpose;

    use super::*;

    fn draws(history: &LossHistory, n: usize) -> (Vec<usize>, Vec<f64>) {
        let (mut t, mut weights) = (Vec::new(), Vec::new());
        history.draw(Address::new(5, Purpose::TimeStep).at_step(9), n, &mut t, &mut weights);
        (t, weights)
    }

    #[test]
    fn time_steps_come_in_proportion_to_the_root_of_their_second_moment() {
        let mut history = LossHistory::new(4);
        for i in 0..9 {
            for t in 0..4 {
                history.record(t, f64::from(i));
            }
        }
        assert_eq!(history.probabilities(), None, "nine losses are not enough");
        let (t, weights) = draws(&history, 100);
        let mut uniform = Vec::new();
        TimeSteps::Uniform.draw(Address::new(5, Purpose::TimeStep).at_step(9), 4, 100, &mut uniform);
        assert_eq!((t, weights), (uniform, vec![1.0; 100]));

        // twelve losses: the first two are forgotten
        let mut history = LossHistory::new(4);
        for i in 0..12 {
            for t in 0..4 {
                let loss = if i < 2 { 1e6 } else { [1.0, 2.0, 3.0, 4.0][t] * if i % 2 == 0 { 0.5 } else { 1.5 } };
                history.record(t, loss);
            }
        }
        let p = history.probabilities().unwrap_or_default();
        for (t, p) in p.iter().enumerate() {
            let want = 0.999 * (t + 1) as f64 / 10.0 + 0.00025;
            assert!((p - want).abs() < 1e-12, "{t}: {p}, not {want}");
        }
        let (t, weights) = draws(&history, 20_000);
        for (own, p) in p.iter().enumerate() {
            let share = t.iter().filter(|&&t| t == own).count() as f64 / 20_000.0;
            assert!((share - p).abs() < 0.015, "{own}: {share} of {p}");
        }
        let mean = t.iter().zip(&weights).map(|(&t, weight)| weight * t as f64).sum::<f64>() / 20_000.0;
        assert!((mean - 1.5).abs() < 0.05, "the weighted mean is the uniform one: {mean}");
    }
}
