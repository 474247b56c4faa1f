//! What is minimised: for image i of a batch of n, at time step t and with the weight r_i that its time step was drawn with,
//!
//! r_i (simple (w_t ℓ/e^{s_t} + s_t) + elbo λ_t ℓ + vlb T L_t)/n, where
//!
//! * ℓ is the mean over the image of the loss of output − target, w_t what a time step counts for ([`Weights`]),
//! * s_t is the learned logarithm of the loss's variance, 0 where it is not learned,
//! * λ_t is what the bound weighs squared errors with ([`bound_weight`]),
//! * L_t is the bound's term in bits per dimension ([`StepBound`]), the mean stopped unless it is the loss itself.
//!
//! [`Weights`]: crate::diffusion::Weights

use ddpm_kernels::Backend;
use ddpm_kernels::loss::LossKind;
use ddpm_tensor::{Element, Tensor};

use crate::channels::{beside, halves};
use crate::diffusion::forward::noising_table;
use crate::diffusion::objective::bound_weight;
use crate::diffusion::prediction::Combination;
use crate::diffusion::step_bound::Observed;
use crate::diffusion::{DiffusionError, Level, Objective, Posterior, Prediction, Schedule, StepBound, Variance};
use crate::error::Error;
use crate::settings::Settings;

/// The objective of the settings, in tables over t.
#[derive(Debug)]
pub(super) struct Criterion {
    /// What the network predicts.
    pub(super) prediction: Prediction,
    /// Whether its output says the variance in as many channels more.
    pub(super) learns_variance: bool,
    /// (√ᾱ_t, √(1−ᾱ_t)).
    pub(super) noising: Vec<(f32, f32)>,
    /// The same for the target.
    pub(super) target: Vec<(f32, f32)>,
    /// x̂_0 of x_t and the output.
    pub(super) x_0: Vec<Combination>,
    kind: LossKind,
    /// What ℓ and s_t count for.
    simple_weight: f64,
    /// simple · w_t; 0 where the bound is the loss.
    simple: Vec<f64>,
    /// elbo · λ_t.
    elbo: Vec<f64>,
    bound: Option<StepBound>,
    /// vlb · T.
    bound_weight: f64,
    /// Whether it is the mean squared error and nothing else.
    pub(super) plain: bool,
}

/// A micro-batch as the objective takes it.
#[derive(Debug)]
pub(super) struct Seen<'a, B: Backend> {
    /// x_0 `[N, H, W, C]`.
    pub(super) x_0: &'a Tensor<B>,
    /// x_t.
    pub(super) x_t: &'a Tensor<B>,
    /// What is to be predicted.
    pub(super) target: &'a Tensor<B>,
    /// Time steps.
    pub(super) t: &'a [usize],
    /// r_i.
    pub(super) drawn_with: &'a [f64],
    /// s_t for every t, where it is learned.
    pub(super) log_variance: Option<&'a [f32]>,
    /// Images of the whole batch.
    pub(super) batch: usize,
}

/// The losses of a micro-batch, and the gradient of what is minimised.
#[derive(Debug)]
pub(super) struct Losses<B: Backend> {
    /// The mean squared error of each image.
    pub(super) mse: Vec<f64>,
    /// What is minimised, of each image, without r_i.
    pub(super) objective: Vec<f64>,
    /// Its gradient by s_t, of each image.
    pub(super) d_log_variance: Vec<f64>,
    /// Its gradient by the network's output.
    pub(super) d_output: Tensor<B>,
}

impl Criterion {
    /// For a run's settings.
    ///
    /// # Errors
    /// A weight that is not finite: ε where nothing is left of the image.
    pub(super) fn new(settings: &Settings, schedule: &Schedule) -> Result<Self, DiffusionError> {
        let d = &settings.diffusion;
        let (prediction, objective) = (d.prediction, settings.objective());
        let posterior = Posterior::new(schedule).with_blend(d.variance_blend);
        let levels: Vec<Level> = (0..schedule.time_steps()).map(|t| Level::of(schedule, t)).collect();
        let is_bound = objective == Objective::Bound;
        let weights = settings.weights();
        let simple: Vec<f64> = levels.iter().map(|&level| d.simple_weight * weights.at(prediction, level)).collect();
        // a learned variance has no place in λ_t: latent diffusion's σ² is its blend
        let fixed = if d.variance.is_learned() { Variance::Blend } else { d.variance };
        let lambda = |(t, &level): (usize, &Level)| {
            // as at the next, since σ_0² is 0
            let (t, level) =
                if t == 0 { (1.min(levels.len() - 1), levels[1.min(levels.len() - 1)]) } else { (t, level) };
            d.elbo_weight * bound_weight(prediction, level, libm::exp(posterior.log_variance(fixed, t)))
        };
        let elbo: Vec<f64> = if d.elbo_weight == 0.0 || is_bound {
            vec![0.0; levels.len()]
        } else {
            levels.iter().enumerate().map(lambda).collect()
        };
        for (t, level) in levels.iter().enumerate() {
            if !(simple[t].is_finite() && elbo[t].is_finite()) {
                let alpha_bar = level.alpha_bar;
                return Err(DiffusionError::Singular { prediction: prediction.name(), time_step: t as f64, alpha_bar });
            }
        }
        let learns_variance = d.variance.is_learned();
        let bound = (is_bound || learns_variance)
            .then(|| StepBound::new(schedule, &posterior, prediction, d.variance, !is_bound));
        let plain = bound.is_none()
            && objective == Objective::L2
            && simple.iter().all(|w| *w == 1.0)
            && elbo.iter().all(|w| *w == 0.0)
            && !d.learn_log_variance;
        Ok(Self {
            prediction,
            learns_variance,
            noising: noising_table(schedule),
            target: levels.iter().map(|&level| prediction.target(level).to_f32()).collect(),
            x_0: levels.iter().map(|&level| prediction.x_0(level)).collect(),
            kind: objective.kind(),
            simple_weight: if is_bound { 0.0 } else { d.simple_weight },
            simple: if is_bound { vec![0.0; levels.len()] } else { simple },
            elbo,
            bound,
            bound_weight: d.vlb_weight * schedule.time_steps() as f64,
            plain,
        })
    }

    /// What the network says of the mean, and of the variance where it is learned.
    pub(super) fn parts<B: Backend>(
        &self,
        backend: &B,
        output: Tensor<B>,
    ) -> Result<(Tensor<B>, Option<Tensor<B>>), Error> {
        if !self.learns_variance {
            return Ok((output, None));
        }
        let [mean, variance] = halves(backend, &output)?;
        Ok((mean, Some(variance)))
    }

    /// Losses and gradient of a micro-batch.
    pub(super) fn losses<B: Backend>(
        &self,
        backend: &B,
        seen: &Seen<'_, B>,
        output: Tensor<B>,
    ) -> Result<Losses<B>, Error> {
        let (output, variance) = self.parts(backend, output)?;
        let s = |t: usize| seen.log_variance.map_or(0.0, |s| f64::from(s[t]));
        let weights: Vec<f32> = (seen.t.iter().zip(seen.drawn_with))
            .map(|(&t, r)| (r * (self.simple[t] * libm::exp(-s(t)) + self.elbo[t])) as f32)
            .collect();
        let each = output.shape().len() / seen.t.len().max(1);
        let scale = 1.0 / (seen.batch * each) as f64;
        let loss = backend.loss(self.kind, output.view(), seen.target.view(), &weights, scale)?;
        let (mut objective, mut d_log_variance) = (Vec::new(), Vec::new());
        for ((&t, r), loss) in seen.t.iter().zip(seen.drawn_with).zip(&loss.loss) {
            let scaled = self.simple[t] * loss * libm::exp(-s(t));
            objective.push(scaled + self.simple_weight * s(t) + self.elbo[t] * loss);
            d_log_variance.push(r * (self.simple_weight - scaled) / seen.batch as f64);
        }
        let mut d_output = loss.d_output;
        if let Some(bound) = &self.bound {
            let (terms, d_mean, d_variance) = self.bound_terms(bound, backend, seen, &output, variance.as_ref())?;
            for (objective, term) in objective.iter_mut().zip(terms) {
                *objective += self.bound_weight * term;
            }
            backend.add_scaled(&mut d_output, 1.0, d_mean.view())?;
            if let Some(d_variance) = d_variance {
                d_output = beside(backend, &d_output, &d_variance)?;
            }
        }
        Ok(Losses { mse: loss.mse, objective, d_log_variance, d_output })
    }

    /// L_t of each image, and the gradient of vlb T r_i L_t by both parts of the output. All of it on the host.
    #[allow(clippy::type_complexity)] // two tensors, one of them perhaps
    fn bound_terms<B: Backend>(
        &self,
        bound: &StepBound,
        backend: &B,
        seen: &Seen<'_, B>,
        output: &Tensor<B>,
        variance: Option<&Tensor<B>>,
    ) -> Result<(Vec<f64>, Tensor<B>, Option<Tensor<B>>), Error> {
        let [x_0, x_t, said] = [seen.x_0, seen.x_t, output].map(|x| x.to_vec(backend));
        let (x_0, x_t, said) = (x_0?, x_t?, said?);
        let variance = variance.map(|variance| variance.to_vec(backend)).transpose()?;
        let mut d_output = vec![B::Elem::ZERO; said.len()];
        let mut d_variance = variance.as_ref().map(|variance| vec![B::Elem::ZERO; variance.len()]);
        let each = said.len() / seen.t.len().max(1);
        let mut terms = Vec::with_capacity(seen.t.len());
        for (i, (&t, r)) in seen.t.iter().zip(seen.drawn_with).enumerate() {
            let own = i * each..(i + 1) * each;
            let image = Observed {
                x_0: &x_0[own.clone()],
                x_t: &x_t[own.clone()],
                output: &said[own.clone()],
                variance: variance.as_ref().map(|variance| &variance[own.clone()]),
            };
            let factor = self.bound_weight * r / ((seen.batch * each) as f64 * std::f64::consts::LN_2);
            let d_variance = d_variance.as_mut().map(|d| &mut d[own.clone()]);
            terms.push(bound.of_image(t, image, factor, &mut d_output[own], d_variance));
        }
        let tensor = |values: &[B::Elem]| Tensor::from_slice(backend, output.shape(), values);
        Ok((terms, tensor(&d_output)?, d_variance.map(|d| tensor(&d)).transpose()?))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ddpm_tensor::random::{Address, Purpose};
    use ddpm_tensor::{Cpu, CpuOptions, Shape};

    use super::*;
    use crate::settings::Layers;

    const T: [usize; 3] = [0, 7, 19];
    const DRAWN_WITH: [f64; 3] = [1.0, 0.5, 2.0];
    const LEN: usize = 6;

    fn normals(sample: u64, len: usize) -> Vec<f64> {
        let mut values = vec![0.0; len];
        Address::new(1, Purpose::Test).at_sample(sample).fill_normal(0, &mut values);
        values.into_iter().map(f64::from).collect()
    }

    /// Of settings, outputs and s_t: the minimised mean, and its gradients by outputs and by each image's s_t.
    fn minimised(changes: &[&str], output: &[f64], s: &[f32]) -> (f64, Vec<f64>, Vec<f64>) {
        let mut layers = Layers::new();
        for change in ["timesteps=20", "beta_end=0.3"].iter().chain(changes) {
            layers.set(&format!("diffusion.{change}")).unwrap();
        }
        let base = Settings::default();
        let base = Settings { preview: crate::settings::PreviewSettings { steps: 5, ..base.preview.clone() }, ..base };
        let settings = layers.over(&base).unwrap();
        let schedule = settings.schedule().build().unwrap();
        let criterion = Criterion::new(&settings, &schedule).unwrap();
        let cpu: Cpu<f64> = Cpu::new(CpuOptions::default()).unwrap();
        let tensor = |values: &[f64], channels| {
            Tensor::from_slice(&cpu, Shape::from([3, 2, LEN / 2, channels]), values).unwrap()
        };
        let x_0: Vec<f64> = (0..3 * LEN).map(|i| (i * 40 % 256) as f64 / 127.5 - 1.0).collect();
        let eps = normals(0, 3 * LEN);
        let mix = |table: &[(f32, f32)]| {
            let of = |i: usize| f64::from(table[T[i / LEN]].0) * x_0[i] + f64::from(table[T[i / LEN]].1) * eps[i];
            (0..3 * LEN).map(of).collect::<Vec<f64>>()
        };
        let seen = Seen {
            x_0: &tensor(&x_0, 1),
            x_t: &tensor(&mix(&criterion.noising), 1),
            target: &tensor(&mix(&criterion.target), 1),
            t: &T,
            drawn_with: &DRAWN_WITH,
            log_variance: settings.diffusion.learn_log_variance.then_some(s),
            batch: 3,
        };
        let channels = output.len() / (3 * LEN);
        let losses = criterion.losses(&cpu, &seen, tensor(output, channels)).unwrap();
        let mean = losses.objective.iter().zip(DRAWN_WITH).map(|(loss, r)| r * loss).sum::<f64>() / 3.0;
        (mean, losses.d_output.to_vec(&cpu).unwrap(), losses.d_log_variance)
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let all: &[&[&str]] = &[
            &[],
            &["loss=huber", "prediction=v", "min_snr_gamma=5"],
            &["prediction=x0", "weighting=p2", "simple_weight=0.5", "elbo_weight=0.2"],
            &["prediction=mean", "weighting=snr", "learn_log_variance=true"],
            &["variance=blend", "variance_blend=0.3", "elbo_weight=0.1", "learn_log_variance=true"],
            &["loss=vlb", "variance=fixed_small"],
            &["loss=vlb", "variance=learned_range", "vlb_weight=1"],
            &["loss=vlb", "variance=learned", "prediction=x0"],
            &["variance=learned_range", "vlb_weight=0.5"],
        ];
        for &changes in all {
            let learned = changes.iter().any(|change| change.starts_with("variance=learned"));
            let hybrid = learned && !changes.contains(&"loss=vlb");
            // weights are rounded to f32 before the loss has them
            let output = normals(3, 3 * LEN * if learned { 2 } else { 1 });
            let mut s = vec![0.0; 20];
            (s[0], s[7], s[19]) = (0.4, -0.3, 0.1);
            let (_, slopes, by_s) = minimised(changes, &output, &s);
            // In a hybrid loss the mean's gradient is that of the loss without the bound.
            let alone: Vec<f64> = output.chunks(2).map(|pair| pair[0]).collect();
            let without = hybrid.then(|| minimised(&[], &alone, &s).1);
            for i in 0..output.len() {
                if let Some(without) = without.as_ref().filter(|_| i % 2 == 0) {
                    assert!((slopes[i] - without[i / 2]).abs() <= 1e-12, "{changes:?}, mean {i}");
                    continue;
                }
                let at = |h: f64| {
                    let mut moved = output.clone();
                    moved[i] += h;
                    minimised(changes, &moved, &s).0
                };
                let (got, want) = (slopes[i], (at(1e-5) - at(-1e-5)) / 2e-5);
                let what = format!("{changes:?}, output {i}: {got}, differences say {want}");
                assert!((got - want).abs() <= 2e-6 * want.abs() + 1e-7, "{what}");
            }
            for (image, &t) in T.iter().enumerate() {
                let at = |h: f32| {
                    let mut moved = s.clone();
                    moved[t] += h;
                    minimised(changes, &output, &moved).0
                };
                let h = 1.0 / 1024.0;
                let (got, want) = (by_s[image], (at(h) - at(-h)) * 512.0);
                if changes.contains(&"learn_log_variance=true") {
                    assert!((got - want).abs() <= 1e-4 * want.abs().max(0.1), "{changes:?}, s_{t}: {got}, {want}");
                }
            }
        }
    }
}
