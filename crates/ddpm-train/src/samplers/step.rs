//! One reverse step as numbers: what the fused posterior kernel needs to know.

use ddpm_kernels::posterior::StepCoefficients;

use crate::diffusion::prediction::Combination;
use crate::diffusion::{DiffusionError, Prediction};

/// A step from x_t to an earlier x_s, all of it linear but the clipping:
///
/// x̂_0 = clip(`predict_x` · x_t + `predict_output` · output, ±`clip`),
/// x_s = `from_x_0` · x̂_0 + `from_x` · x_t + `from_output` · output + `sigma` · z.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReverseStep {
    /// t, 0..T: what the network is told.
    pub time_step: usize,
    /// Factor of x_t in x̂_0.
    pub predict_x: f64,
    /// Factor of the network's output in x̂_0.
    pub predict_output: f64,
    /// Bound of |x̂_0|; infinite for none.
    pub clip: f64,
    /// Factor of x̂_0 in x_s.
    pub from_x_0: f64,
    /// Factor of x_t in x_s.
    pub from_x: f64,
    /// Factor of the network's output in x_s.
    pub from_output: f64,
    /// Standard deviation of the noise in x_s; 0 for none, and then none is drawn.
    pub sigma: f64,
}

impl ReverseStep {
    /// The step's first half: x̂_0 from what the network predicts at `time_step`. The other factors are 0.
    ///
    /// # Errors
    /// A prediction that says nothing of x_0 at this ᾱ.
    pub(crate) fn predicting(
        prediction: Prediction,
        time_step: usize,
        alpha_bar: f64,
        clip: Option<f64>,
    ) -> Result<Self, DiffusionError> {
        prediction.check(time_step, alpha_bar)?;
        let Combination { x_t: predict_x, output: predict_output } = prediction.x_0(alpha_bar);
        let clip = clip.unwrap_or(f64::INFINITY);
        Ok(Self {
            time_step,
            predict_x,
            predict_output,
            clip,
            from_x_0: 0.0,
            from_x: 0.0,
            from_output: 0.0,
            sigma: 0.0,
        })
    }

    /// x_s for one element, in `f64`: the definition of the step, for tests and for reading.
    pub fn apply(&self, x: f64, output: f64, z: f64) -> f64 {
        let x_0 = (self.predict_x * x + self.predict_output * output).clamp(-self.clip, self.clip);
        self.from_x_0 * x_0 + self.from_x * x + self.from_output * output + self.sigma * z
    }

    /// The factors as the kernel takes them.
    pub fn coefficients(&self) -> StepCoefficients {
        StepCoefficients {
            predict_x: self.predict_x as f32,
            predict_output: self.predict_output as f32,
            clip: self.clip as f32,
            from_x_0: self.from_x_0 as f32,
            from_x: self.from_x as f32,
            from_output: self.from_output as f32,
            sigma: self.sigma as f32,
        }
    }
}
