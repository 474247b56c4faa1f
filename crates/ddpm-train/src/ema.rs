//! The exponential moving average of the parameters, from which one samples: e ← d e + (1 − d) p after every update, with a
//! decay d that may warm up.

pub use crate::settings::EmaSettings;

impl EmaSettings {
    /// The decay of the update that follows `step` finished ones: min(d, (1 + n)/(10 + n)) with n = `step` + 1, or d without warm-up.
    ///
    /// Source: the warm-up of TensorFlow's moving averages, as latent diffusion counts it (n = 1 at the first update).
    pub fn decay_at(&self, step: u64) -> f64 {
        let n = step as f64 + 1.0;
        if self.warmup { self.decay.min((1.0 + n) / (10.0 + n)) } else { self.decay }
    }

    /// Whether the decay is a number from 0 up to but without 1.
    pub fn is_valid(&self) -> bool {
        (0.0..1.0).contains(&self.decay)
    }
}

#[cfg(test)]
mod tests {
    use super::EmaSettings;

    #[test]
    fn warm_up_counts_from_one_and_ends_at_the_decay() {
        let ema = EmaSettings { decay: 0.99, warmup: true, early: 0 };
        assert_eq!(ema.decay_at(0), 2.0 / 11.0);
        assert_eq!(ema.decay_at(1), 3.0 / 12.0);
        // (1 + n)/(10 + n) reaches 0.99 at n = 890.
        assert!(ema.decay_at(888) < 0.99);
        assert_eq!(ema.decay_at(890), 0.99);
        assert_eq!(ema.decay_at(1_000_000), 0.99);
        assert_eq!(EmaSettings { warmup: false, ..ema.clone() }.decay_at(0), 0.99);
    }

    #[test]
    fn a_decay_of_one_would_never_learn() {
        let valid = |decay| EmaSettings { decay, ..EmaSettings::default() }.is_valid();
        assert!(valid(0.0) && valid(0.9999));
        assert!(!valid(1.0) && !valid(-0.1) && !valid(f64::NAN));
    }
}
