//! The variational bound on −log₂ p(x_0), in bits per dimension (Ho et al. 2020, eq. 5):
//! L = L_T + Σ_{t ≥ 1} L_t + L_0, and what of it is rate and what distortion (section 4.3 there).

use ddpm_kernels::Backend;
use ddpm_tensor::Tensor;
use ddpm_tensor::random::{Address, Purpose};

use super::Denoiser;
use crate::channels::halves;
use crate::diffusion::Posterior;
use crate::diffusion::bound::{Cdf, Gaussian, bits, discretised_decoder, gaussian_kl};
use crate::diffusion::forward::Noising;
use crate::diffusion::prediction::Level;
use crate::error::Error;

/// The terms of one image, or their mean over several: bits per dimension, and squared errors.
#[derive(Debug, Clone, PartialEq)]
pub struct Terms {
    /// L_T = KL(q(x_T | x_0) ‖ N(0, 1)).
    pub prior: f64,
    /// L_t = KL(q(x_{t−1} | x_t, x_0) ‖ p(x_{t−1} | x_t)) for every t; 0 at t = 0, whose term is the decoder.
    pub kl: Vec<f64>,
    /// L_0 = −log₂ p(x_0 | x_1) with the tanh form of Φ, which published figures use.
    pub decoder: f64,
    /// L_0 with Φ itself.
    pub decoder_exact: f64,
    /// Mean squared error of ε̂ for every t.
    pub eps_mse: Vec<f64>,
    /// Mean squared error of x̂_0 for every t, in units of [−1, 1].
    pub x_0_mse: Vec<f64>,
}

impl Terms {
    fn zeros(time_steps: usize) -> Self {
        let zeros = || vec![0.0; time_steps];
        Self { prior: 0.0, kl: zeros(), decoder: 0.0, decoder_exact: 0.0, eps_mse: zeros(), x_0_mse: zeros() }
    }

    /// Σ_t L_t.
    pub fn kl_sum(&self) -> f64 {
        self.kl.iter().sum()
    }

    /// The bound, with the tanh form of Φ.
    pub fn total(&self) -> f64 {
        self.prior + self.kl_sum() + self.decoder
    }

    /// The bound, with Φ itself.
    pub fn total_exact(&self) -> f64 {
        self.prior + self.kl_sum() + self.decoder_exact
    }

    fn add(&mut self, other: &Self) {
        self.prior += other.prior;
        self.decoder += other.decoder;
        self.decoder_exact += other.decoder_exact;
        for (sums, terms) in
            [(&mut self.kl, &other.kl), (&mut self.eps_mse, &other.eps_mse), (&mut self.x_0_mse, &other.x_0_mse)]
        {
            sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
    }

    fn divide(&mut self, by: f64) {
        for x in [&mut self.prior, &mut self.decoder, &mut self.decoder_exact] {
            *x /= by;
        }
        for list in [&mut self.kl, &mut self.eps_mse, &mut self.x_0_mse] {
            for x in list {
                *x /= by;
            }
        }
    }
}

/// The terms of images `x_0 [N, H, W, C]` (values in [−1, 1] that are levels of 8 bits), image by image.
///
/// Each term takes one draw of x_t ~ q(x_t | x_0): image i's ε of time step t is at step t and sample `first + i` of
/// [`Purpose::Likelihood`], so that no bit depends on what else is measured at once. `watch` hears each time step that is
/// done and may end the measurement.
///
/// # Errors
/// A prediction that says nothing of x_0 somewhere; those of the network, the device and `watch`.
pub fn terms<B: Backend<Elem = f32>, E: From<Error>>(
    of: &Denoiser<'_, B>,
    x_0: &Tensor<B>,
    classes: Option<&[usize]>,
    seed: u64,
    first: u64,
    mut watch: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Terms>, E> {
    let wrong = |error: Error| E::from(error);
    let schedule = of.schedule;
    let (posterior, total) = (Posterior::new(schedule).with_blend(of.variance_blend), schedule.time_steps());
    let [n, h, w, c] = x_0.shape().nhwc();
    let len = h * w * c;
    let images = x_0.to_vec(of.backend).map_err(|e| wrong(e.into()))?;
    let mut all = vec![Terms::zeros(total); n];
    let _frozen = of.parameters.frozen();
    for (terms, x_0) in all.iter_mut().zip(images.chunks_exact(len)) {
        terms.prior = prior(schedule.alpha_bar()[total - 1], x_0);
    }
    for t in (0..total).rev() {
        of.prediction.check(t as f64, Level::of(schedule, t)).map_err(|e| wrong(e.into()))?;
        let address = Address::new(seed, Purpose::Likelihood).at_step(t as u64).at_sample(first);
        let factors = vec![Noising::of_image(schedule, t).to_f32(); n];
        let (x_t, eps) = of.backend.noise(x_0.view(), &factors, address).map_err(|e| wrong(e.into()))?;
        let output = of.output(&x_t, t as f64, classes).map_err(wrong)?;
        let (output, said) = if of.variance.is_learned() {
            let [output, said] = halves(of.backend, &output).map_err(|e| wrong(e.into()))?;
            (output, Some(said))
        } else {
            (output, None)
        };
        let on_host = |x: &Tensor<B>| x.to_vec(of.backend).map_err(|e| wrong(e.into()));
        let (x_t, eps, output) = (on_host(&x_t)?, on_host(&eps)?, on_host(&output)?);
        let said = said.as_ref().map(on_host).transpose()?;
        for (i, terms) in all.iter_mut().enumerate() {
            let part = i * len..(i + 1) * len;
            let image = Image {
                x_0: &images[part.clone()],
                x_t: &x_t[part.clone()],
                output: &output[part.clone()],
                said: said.as_ref().map(|said| &said[part.clone()]),
            };
            image.measure(of, &posterior, t, &eps[part], terms);
        }
        watch()?;
    }
    Ok(all)
}

/// L_T of one image.
fn prior(alpha_bar: f64, x_0: &[f32]) -> f64 {
    // a KL of Gaussians is linear in the squared distance of the means: the mean of it is that of the mean square
    let square = mean(x_0.len(), x_0.iter().map(|&x| f64::from(x).powi(2)));
    let q = Gaussian { mean: (alpha_bar * square).sqrt(), log_variance: libm::log(1.0 - alpha_bar) };
    bits(gaussian_kl(q, Gaussian::default()))
}

fn mean(len: usize, values: impl Iterator<Item = f64>) -> f64 {
    values.sum::<f64>() / len as f64
}

/// One image at one time step.
struct Image<'a> {
    x_0: &'a [f32],
    x_t: &'a [f32],
    output: &'a [f32],
    /// What the network says of the variance, where that is learned.
    said: Option<&'a [f32]>,
}

impl Image<'_> {
    fn measure<B: Backend<Elem = f32>>(
        &self,
        of: &Denoiser<'_, B>,
        posterior: &Posterior,
        t: usize,
        eps: &[f32],
        terms: &mut Terms,
    ) {
        let level = Level::of(of.schedule, t);
        let (to_x_0, to_eps) = (of.prediction.x_0(level), of.prediction.eps(level));
        let bound = of.clip.unwrap_or(f64::INFINITY);
        let len = self.x_0.len();
        let seen = |to: crate::diffusion::prediction::Combination| {
            self.x_t.iter().zip(self.output).map(move |(&x_t, &output)| to.of(f64::from(x_t), f64::from(output)))
        };
        let x_0_hat = || seen(to_x_0).map(|x| x.clamp(-bound, bound));
        let true_x_0 = || self.x_0.iter().map(|&x| f64::from(x));
        terms.x_0_mse[t] = mean(len, true_x_0().zip(x_0_hat()).map(|(x_0, hat)| (x_0 - hat).powi(2)));
        terms.eps_mse[t] = mean(len, seen(to_eps).zip(eps).map(|(hat, &eps)| (f64::from(eps) - hat).powi(2)));

        let (from_x_0, from_x_t) = posterior.mean(t);
        let log_variance = posterior.learned_log_variance(of.variance, t);
        let log_variance_at = |i: usize| log_variance.of(self.said.map_or(0.0, |said| f64::from(said[i])));
        if t > 0 {
            // both means are a·x_0 + b·x_t, with x_0 or x̂_0
            let q = Gaussian { mean: 0.0, log_variance: libm::log(posterior.beta_tilde(t)) };
            let kl = |distance: f64, log_variance| gaussian_kl(q, Gaussian { mean: from_x_0 * distance, log_variance });
            terms.kl[t] = bits(if self.said.is_some() {
                let distances = true_x_0().zip(x_0_hat()).map(|(x_0, hat)| x_0 - hat);
                mean(len, distances.enumerate().map(|(i, distance)| kl(distance, log_variance_at(i))))
            } else {
                // of one variance it is linear in the squared distance
                kl(terms.x_0_mse[t].sqrt(), log_variance_at(0))
            });
        } else {
            let means = || x_0_hat().zip(self.x_t).map(|(hat, &x_t)| from_x_0 * hat + from_x_t * f64::from(x_t));
            let decoder = |cdf: Cdf| {
                let term = |(i, (x_0, mean))| {
                    discretised_decoder(cdf, x_0, Gaussian { mean, log_variance: log_variance_at(i) })
                };
                bits(mean(len, true_x_0().zip(means()).enumerate().map(term)))
            };
            (terms.decoder, terms.decoder_exact) = (decoder(Cdf::Tanh), decoder(Cdf::Exact));
        }
    }
}

/// What is known of a set of images.
#[derive(Debug, Clone, PartialEq)]
pub struct Likelihood {
    /// Number of images.
    pub n: usize,
    /// Mean of each term.
    pub terms: Terms,
    /// Standard error of the mean of the bound: the images' standard deviation over √n; not a number for one image.
    pub std_error: f64,
}

/// A point of the rate-distortion curve: what a receiver knows at x_t (Ho et al. 2020, figure 5 and table 4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The time step.
    pub t: usize,
    /// Bits per dimension received so far: L_T + Σ_{s > t} L_s.
    pub rate: f64,
    /// Root of the mean squared error of x̂_0, on a scale of 0 to 255.
    pub rmse: f64,
}

impl Likelihood {
    /// The mean over images, added in their order; nothing of no image.
    pub fn of(images: &[Terms]) -> Option<Self> {
        let n = images.len();
        let mut sum = Terms::zeros(images.first()?.kl.len());
        for terms in images {
            sum.add(terms);
        }
        sum.divide(n as f64);
        let bound = sum.total();
        let squares: f64 = images.iter().map(|terms| (terms.total() - bound).powi(2)).sum();
        let std_error = (squares / (n as f64 - 1.0) / n as f64).sqrt();
        Some(Self { n, terms: sum, std_error })
    }

    /// Mean of ε̂'s squared error over all time steps.
    pub fn mse(&self) -> f64 {
        mean(self.terms.eps_mse.len(), self.terms.eps_mse.iter().copied())
    }

    /// The curve, from pure noise to the last step.
    pub fn curve(&self) -> Vec<Point> {
        let mut rate = self.terms.prior;
        let mut points = Vec::with_capacity(self.terms.kl.len());
        for (t, (&kl, &mse)) in self.terms.kl.iter().zip(&self.terms.x_0_mse).enumerate().rev() {
            points.push(Point { t, rate, rmse: 127.5 * mse.sqrt() });
            rate += kl;
        }
        points
    }
}
