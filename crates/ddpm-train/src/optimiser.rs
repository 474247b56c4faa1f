//! Adam and AdamW: their settings, and the numbers of one update. The update itself is one fused pass in `ddpm-kernels`.

use ddpm_kernels::adamw::AdamWStep;

use crate::ema::EmaSettings;
use crate::named::named_enum;
pub use crate::settings::OptimiserSettings;

named_enum! {
    /// Which optimiser.
    #[derive(Default)]
    #[non_exhaustive]
    OptimiserKind: "optimiser" {
        /// Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2).
        #[default]
        AdamW = "adamw",
        /// Adam (Kingma and Ba 2015, algorithm 1): no weight decay.
        Adam = "adam",
    }
}

named_enum! {
    /// How the learning rate falls after its warm-up.
    #[derive(Default)]
    #[non_exhaustive]
    Decay: "learning-rate decay" {
        /// Not at all.
        #[default]
        Constant = "constant",
        /// Half a cosine (Loshchilov and Hutter 2017, eq. 5).
        Cosine = "cosine",
        /// A straight line.
        Linear = "linear",
    }
}

/// A setting outside its range.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("optimiser: {setting} must be {expected}, got {got}")]
pub struct OptimiserError {
    /// Its name.
    pub setting: &'static str,
    /// Its range.
    pub expected: &'static str,
    /// What came.
    pub got: f64,
}

impl OptimiserSettings {
    /// Whether every setting is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), OptimiserError> {
        let share = |x: f64| (0.0..1.0).contains(&x);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let adam_decays = self.kind == OptimiserKind::Adam && self.weight_decay != 0.0;
        let rules = [
            ("lr", "above 0", self.lr, positive(self.lr)),
            ("beta_1", "from 0 up to but without 1", self.beta_1, share(self.beta_1)),
            ("beta_2", "from 0 up to but without 1", self.beta_2, share(self.beta_2)),
            ("eps", "above 0", self.eps, positive(self.eps)),
            ("weight_decay", "0 or more", self.weight_decay, self.weight_decay == 0.0 || positive(self.weight_decay)),
            ("weight_decay", "0 with `adam` (`adamw` has weight decay)", self.weight_decay, !adam_decays),
            ("final_share", "from 0 to 1", self.final_share, (0.0..=1.0).contains(&self.final_share)),
            (
                "clip_norm",
                "above 0, or 0 for no clipping",
                self.clip_norm,
                self.clip_norm == 0.0 || positive(self.clip_norm),
            ),
        ];
        match rules.into_iter().find(|(.., holds)| !holds) {
            Some((setting, expected, got, _)) => Err(OptimiserError { setting, expected, got }),
            None => Ok(()),
        }
    }

    /// The learning rate of the update that follows `step` finished ones, in a run of `total`.
    ///
    /// lr · min((step + 1)/warmup, 1) · decay(p), p = (step − warmup)/(total − warmup) from 0 to 1 after warm-up;
    /// decay falls from 1 to `final_share`. The first update is not wasted on a rate of 0 (Ho et al.'s program starts there).
    pub fn lr_at(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup {
            return self.lr * ((step + 1) as f64 / self.warmup as f64);
        }
        let length = total.saturating_sub(self.warmup).max(1);
        let p = ((step - self.warmup) as f64 / length as f64).min(1.0);
        let left = match self.decay {
            Decay::Constant => return self.lr,
            Decay::Cosine => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * p)),
            Decay::Linear => 1.0 - p,
        };
        self.lr * (self.final_share + (1.0 - self.final_share) * left)
    }

    /// The factor that brings a gradient of global norm `norm` down to `clip_norm`: min(1, clip_norm/norm); 1 without clipping.
    ///
    /// Source: Pascanu et al. 2013, algorithm 1. A norm that is not finite gives what it must, and is to be caught before.
    pub fn clip_factor(&self, norm: f64) -> f64 {
        if self.clip_norm > 0.0 && norm > self.clip_norm { self.clip_norm / norm } else { 1.0 }
    }

    /// The numbers of the update that follows `step` finished ones in a run of `total`, where the gradient's global norm is `norm`.
    pub fn update(&self, step: u64, total: u64, norm: f64, ema: &EmaSettings) -> AdamWStep {
        let k = step as f64 + 1.0;
        AdamWStep {
            lr: self.lr_at(step, total),
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            correction_1: 1.0 - libm::pow(self.beta_1, k),
            correction_2: 1.0 - libm::pow(self.beta_2, k),
            clip: self.clip_factor(norm),
            ema_decay: ema.decay_at(step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Decay, OptimiserKind, OptimiserSettings};
    use crate::ema::EmaSettings;

    fn close(got: f64, want: f64) {
        assert!((got - want).abs() <= 1e-12 * want.abs().max(1e-6), "got {got}, want {want}");
    }

    #[test]
    fn warm_up_is_linear_and_never_zero() {
        let settings = OptimiserSettings { lr: 1e-3, warmup: 100, ..OptimiserSettings::default() };
        close(settings.lr_at(0, 1000), 1e-5);
        close(settings.lr_at(49, 1000), 5e-4);
        close(settings.lr_at(99, 1000), 1e-3);
        close(settings.lr_at(100, 1000), 1e-3);
        close(OptimiserSettings { warmup: 0, ..settings }.lr_at(0, 1000), 1e-3);
    }

    #[test]
    fn decays_pass_through_their_middle_and_end_at_the_final_share() {
        let settings = OptimiserSettings { lr: 2.0, warmup: 100, final_share: 0.1, ..OptimiserSettings::default() };
        for (decay, quarter) in [(Decay::Cosine, 0.5 * (1.0 + 0.5f64.sqrt())), (Decay::Linear, 0.75)] {
            let settings = OptimiserSettings { decay, ..settings.clone() };
            close(settings.lr_at(100, 1100), 2.0);
            close(settings.lr_at(350, 1100), 2.0 * (0.1 + 0.9 * quarter));
            close(settings.lr_at(600, 1100), 2.0 * 0.55);
            close(settings.lr_at(1100, 1100), 0.2);
            close(settings.lr_at(9999, 1100), 0.2);
            assert!(settings.lr_at(1099, 1100) > 0.2, "the last update of a run still decays");
            // A run that is shorter than its warm-up divides by nothing.
            assert!(settings.lr_at(150, 50).is_finite());
        }
        close(settings.lr_at(9999, 1100), 2.0);
    }

    #[test]
    fn bias_corrections_are_those_of_a_constant_gradient() {
        let settings = OptimiserSettings { beta_1: 0.9, beta_2: 0.99, ..OptimiserSettings::default() };
        let (mut m, mut v) = (0.0, 0.0);
        for step in 0..50 {
            let update = settings.update(step, 50, 0.5, &EmaSettings::default());
            m = update.beta_1 * m + (1.0 - update.beta_1) * 3.0;
            v = update.beta_2 * v + (1.0 - update.beta_2) * 9.0;
            close(m / update.correction_1, 3.0);
            close(v / update.correction_2, 9.0);
        }
    }

    #[test]
    fn clipping_brings_a_long_gradient_to_its_bound() {
        let settings = OptimiserSettings { clip_norm: 2.0, ..OptimiserSettings::default() };
        close(settings.clip_factor(8.0), 0.25);
        close(settings.clip_factor(2.0), 1.0);
        close(settings.clip_factor(0.0), 1.0);
        close(OptimiserSettings { clip_norm: 0.0, ..settings }.clip_factor(8.0), 1.0);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let good = OptimiserSettings::default();
        assert_eq!(good.check(), Ok(()));
        let bad = [
            (OptimiserSettings { lr: 0.0, ..good.clone() }, "lr"),
            (OptimiserSettings { lr: f64::NAN, ..good.clone() }, "lr"),
            (OptimiserSettings { beta_2: 1.0, ..good.clone() }, "beta_2"),
            (OptimiserSettings { eps: 0.0, ..good.clone() }, "eps"),
            (OptimiserSettings { weight_decay: -1.0, ..good.clone() }, "weight_decay"),
            (OptimiserSettings { kind: OptimiserKind::Adam, weight_decay: 0.1, ..good.clone() }, "weight_decay"),
            (OptimiserSettings { final_share: 1.5, ..good.clone() }, "final_share"),
            (OptimiserSettings { clip_norm: f64::INFINITY, ..good.clone() }, "clip_norm"),
        ];
        for (settings, name) in bad {
            let message = settings.check().map_or_else(|error| error.to_string(), |()| "fine".to_owned());
            assert!(message.contains(name), "{message}");
        }
    }
}
