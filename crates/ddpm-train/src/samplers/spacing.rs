//! Which of the model's time steps a sampler visits.

use crate::diffusion::DiffusionError;
use crate::diffusion::schedule::linspace;
use crate::named::named_enum;

named_enum! {
    /// How S sampling steps lie among T time steps. Rounding is to the nearest, halves to even, as numpy does it.
    #[derive(Default)]
    #[non_exhaustive]
    Spacing: "spacing" {
        /// k⌊T/S⌋ + offset, k = 0..S−1: starts short of T−1 and ends on `offset` (Song et al. 2021, appendix D.2
        /// "linear"; diffusers' default).
        #[default]
        Leading = "leading" | "uniform",
        /// round(T − kT/S) − 1, k = 0..S−1: starts on T−1 and ends short of 0 (Lin et al. 2024, table 2).
        Trailing = "trailing",
        /// S equidistant values on 0..T−1, both ends included.
        Linspace = "linspace" | "linear",
        /// ⌊x²⌋ for S equidistant x on 0..√(0.8 T): dense near the image (Song et al. 2021, appendix D.2 "quadratic").
        Quad = "quad",
    }
}

impl Spacing {
    /// The `steps` time steps to visit out of `time_steps`, from noise to image: strictly descending.
    ///
    /// `steps_offset` shifts `Leading` alone, as in diffusers. `Quad` gives fewer than `steps` where several fall on
    /// one time step.
    ///
    /// # Errors
    /// `steps` outside 1..=`time_steps`, or an offset that leads out of the schedule.
    pub fn time_steps(
        self,
        time_steps: usize,
        steps: usize,
        steps_offset: usize,
    ) -> Result<Vec<usize>, DiffusionError> {
        if !(1..=time_steps).contains(&steps) {
            return Err(DiffusionError::SamplingSteps { time_steps, got: steps });
        }
        let total = time_steps as f64;
        let mut visited: Vec<usize> = match self {
            Self::Leading => {
                let last = ((steps - 1) * (time_steps / steps)).saturating_add(steps_offset);
                if last >= time_steps {
                    return Err(DiffusionError::StepsOffset {
                        offset: steps_offset,
                        steps,
                        time_step: last,
                        time_steps,
                    });
                }
                (0..steps).rev().map(|k| k * (time_steps / steps) + steps_offset).collect()
            }
            Self::Trailing => {
                // numpy's arange takes its stride as the difference of its first two values; that decides ties.
                let stride = (total - total / steps as f64) - total;
                (0..steps).map(|k| (total + k as f64 * stride).round_ties_even() as usize - 1).collect()
            }
            Self::Linspace => {
                linspace(0.0, total - 1.0, steps).into_iter().rev().map(|t| t.round_ties_even() as usize).collect()
            }
            Self::Quad => {
                linspace(0.0, (total * 0.8).sqrt(), steps).into_iter().rev().map(|x| (x * x) as usize).collect()
            }
        };
        visited.dedup();
        Ok(visited)
    }
}
