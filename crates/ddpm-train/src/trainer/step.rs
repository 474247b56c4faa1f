//! One step: a batch, its noise, the loss and its gradient, and the update.

use std::ops::Range;
use std::time::Instant;

use ddpm_kernels::Backend;
use ddpm_nn::{Mode, Parameters};
use ddpm_tensor::Tensor;
use ddpm_tensor::random::{Address, Purpose};

use super::criterion::Seen;
use super::log_variance::LogVariances;
use super::{Host, StepReport, Trainer};
use crate::error::{Error, NotFinite};

/// Sums over the images of a batch, in their order, and what each costs.
#[derive(Default)]
struct Sums {
    mse: f64,
    objective: f64,
    unweighted: Vec<f64>,
}

impl<B: Backend<Elem = f32>> Trainer<B> {
    /// Does one step (Ho et al. 2020, algorithm 1, on a batch).
    ///
    /// The batch is worked through in micro-batches whose gradients, scaled by the whole batch, add up.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the loss or the gradient is not a number or infinite: nothing has been updated then. Those of
    /// data and device.
    pub fn step(&mut self) -> Result<StepReport, Error> {
        let started = Instant::now();
        let batch = self.settings.train.batch;
        self.batches.batch(self.step, &mut self.host.images, &mut self.host.labels)?;
        let address = Address::new(self.settings.train.seed, Purpose::TimeStep).at_step(self.step);
        let total = self.schedule.time_steps();
        let Host { time_steps, drawn_with, .. } = &mut self.host;
        match &self.history {
            Some(history) => history.draw(address, batch, time_steps, drawn_with),
            None => self.settings.diffusion.time_steps.draw(address, total, batch, time_steps),
        }
        self.drop_classes();

        let at_once = self.settings.images_at_once().min(batch);
        let mut sums = Sums::default();
        for first in (0..batch).step_by(at_once) {
            let part = first..(first + at_once).min(batch);
            if let Err(error) = self.accumulate(part, &mut sums) {
                self.forget_gradients()?;
                return Err(error);
            }
        }

        let of_variances = self.log_variances.as_ref().map_or(0.0, LogVariances::squared_norm);
        let grad_norm = (self.backend.squared_norm(self.grads.buffer())? + of_variances).sqrt();
        if !grad_norm.is_finite() {
            let name = first_not_finite(&self.backend, &self.grads)?;
            self.forget_gradients()?;
            return Err(self.not_finite(NotFinite::Gradient, grad_norm, name));
        }
        let total = self.settings.train.steps;
        let update = self.settings.optimiser.update(self.step, total, grad_norm, &self.settings.ema);
        self.backend.adamw(
            &update,
            self.parameters.buffer_mut(),
            self.grads.buffer_mut(),
            self.m.buffer_mut(),
            self.v.buffer_mut(),
            self.ema.buffer_mut(),
        )?;
        if let Some(log_variances) = &mut self.log_variances {
            log_variances.update(&self.backend, &update)?;
        }
        if let Some(history) = &mut self.history {
            for (&t, &loss) in self.host.time_steps.iter().zip(&sums.unweighted) {
                history.record(t, loss);
            }
        }
        self.step += 1;
        if self.step == self.settings.ema.early {
            self.early = Some(self.ema.duplicate(&self.backend)?);
        }

        let mean = |sum: f64| sum / batch as f64;
        Ok(StepReport {
            step: self.step,
            loss: mean(sums.mse),
            // of time steps drawn unevenly the plain mean says little
            objective: (!self.criterion.plain || self.history.is_some()).then(|| mean(sums.objective)),
            lr: update.lr,
            grad_norm,
            images_per_s: batch as f64 / started.elapsed().as_secs_f64().max(1e-9),
            heldout: None,
            scores: None,
        })
    }

    /// Forgets what a step that failed has added up.
    fn forget_gradients(&mut self) -> Result<(), Error> {
        if let Some(log_variances) = &mut self.log_variances {
            log_variances.forget();
        }
        self.grads = Parameters::zeros(&self.backend, self.unet.layout())?;
        Ok(())
    }

    /// Replaces labels by that of no class, with the probability of the settings: image i's draw is at sample i of the step.
    fn drop_classes(&mut self) {
        let count = self.data().classes().map_or(0, <[String]>::len);
        let Some(null) = self.settings.null_class(count) else { return };
        let address = Address::new(self.settings.train.seed, Purpose::ClassDrop).at_step(self.step);
        for (i, label) in self.host.labels.iter_mut().enumerate() {
            if is_dropped(address.at_sample(i as u64), self.settings.data.class_dropout) {
                *label = null as u32;
            }
        }
    }

    /// Adds the gradient of some images of the batch, and their losses.
    fn accumulate(&mut self, part: Range<usize>, sums: &mut Sums) -> Result<(), Error> {
        let [height, width, channels] = self.image();
        let len = height * width * channels;
        let (n, first) = (part.len(), part.start as u64);
        let backend = &self.backend;
        let shape = [n, height, width, channels];
        let x_0 = Tensor::from_slice(backend, shape, &self.host.images[part.start * len..part.end * len])?;
        let seed = self.settings.train.seed;
        let address = Address::new(seed, Purpose::Noise).at_step(self.step).at_sample(first);
        let t = &self.host.time_steps[part.clone()];
        let offset = (self.settings.diffusion.offset_noise > 0.0)
            .then(|| Address::new(seed, Purpose::OffsetNoise).at_step(self.step).at_sample(first));
        let (x_t, target) = self.noised(&x_0, t, address, offset)?;
        self.host.classes.clear();
        self.host.classes.extend(self.host.labels[part.clone()].iter().map(|&label| label as usize));
        let classes = self.conditional().then_some(self.host.classes.as_slice());
        let input = self.input(&self.parameters, &x_t, t, classes, self.looks_back(self.step))?;
        let times: Vec<f32> = t.iter().map(|&t| t as f32).collect();
        let mode = Mode::Train { seed, step: self.step, first_sample: first };
        let shown = input.as_ref().unwrap_or(&x_t);
        let (output, cache) = self.unet.forward(backend, &self.parameters, shown.view(), &times, classes, mode)?;
        drop(input);

        let seen = Seen {
            x_0: &x_0,
            x_t: &x_t,
            target: &target,
            t,
            drawn_with: &self.host.drawn_with[part],
            log_variance: self.log_variances.as_ref().map(|known| known.host.as_slice()),
            batch: self.settings.train.batch,
        };
        let losses = self.criterion.losses(backend, &seen, output)?;
        for ((mse, objective), r) in losses.mse.iter().zip(&losses.objective).zip(seen.drawn_with) {
            sums.mse += mse;
            sums.objective += r * objective;
        }
        sums.unweighted.extend(&losses.objective);
        drop((x_0, x_t, target));
        if !(sums.mse.is_finite() && sums.objective.is_finite()) {
            let name = first_not_finite(backend, &self.parameters)?;
            return Err(self.not_finite(NotFinite::Loss, sums.objective, name));
        }
        if let Some(cache) = cache {
            let dy = losses.d_output.view();
            self.unet.backward(backend, &self.parameters, cache, dy, Some(&mut self.grads), false)?;
        }
        if let Some(log_variances) = &mut self.log_variances {
            for (&t, &gradient) in self.host.time_steps[first as usize..].iter().zip(&losses.d_log_variance) {
                log_variances.add(t, gradient);
            }
        }
        Ok(())
    }

    fn not_finite(&self, what: NotFinite, value: f64, parameter: Option<String>) -> Error {
        Error::NotFinite { step: self.step + 1, what, value, parameter }
    }
}

/// The first parameter that is not finite, or whose gradient is not.
fn first_not_finite<B: Backend<Elem = f32>>(backend: &B, numbers: &Parameters<B>) -> Result<Option<String>, Error> {
    let flat = numbers.to_host(backend)?;
    let bad = |p: &&ddpm_nn::layout::Parameter| flat[p.range.clone()].iter().any(|x| !x.is_finite());
    Ok(numbers.layout().parameters().iter().find(bad).map(|p| p.name.clone()))
}

/// Whether the draw of an address falls into a share of all.
fn is_dropped(address: Address, share: f64) -> bool {
    let [draw, ..] = address.block(0);
    f64::from(draw) < share * 2.0_f64.powi(32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_dropped_as_often_as_asked() {
        let address = |i| Address::new(3, Purpose::ClassDrop).at_step(5).at_sample(i);
        for share in [0.0, 0.1, 0.5, 0.9] {
            let dropped = |i: u64| is_dropped(address(i), share);
            let count = (0..10_000).filter(|&i| dropped(i)).count() as f64;
            // four standard deviations of a binomial
            let spread = 4.0 * (10_000.0 * share * (1.0 - share)).sqrt();
            assert!((count - 10_000.0 * share).abs() <= spread, "{count} of 10000 at {share}");
        }
        assert!((0..100).any(|i| is_dropped(address(i), 0.5) != is_dropped(address(i + 1), 0.5)));
    }
}
