//! Log-likelihood by the probability-flow ODE (Song et al. 2021, section 4.3 and appendix D.2):
//! `dx/ds = ½ L'(s) (x − ε̂/√(1−ᾱ))`, L = ln ᾱ, takes data at s = 1e-5 to noise at s = 1, and
//! `ln p(x(0)) = ln N(x(1); 0, 1) + ∫ div(dx/ds) ds`.

use std::f64::consts::{LN_2, PI};

use ddpm_kernels::Backend;
use ddpm_nn::Mode;
use ddpm_tensor::Tensor;
use ddpm_tensor::random::{Address, Purpose};

use super::Denoiser;
use crate::channels::{beside, halves};
use crate::diffusion::Schedule;
use crate::diffusion::prediction::Level;
use crate::error::Error;

/// Where the integration begins.
const START: f64 = 1e-5;
/// Relative and absolute tolerance of every component.
const TOLERANCE: f64 = 1e-5;
/// The first step that is tried.
const FIRST_STEP: f64 = 1e-4;
/// Levels in one unit of [−1, 1].
const LEVELS: f64 = 127.5;

/// ln ᾱ in continuous time: a cubic Hermite curve through ln ᾱ_t at s = (t + 1)/T, and 0 at s = 0, that falls everywhere
/// and whose derivative is continuous.
#[derive(Debug, Clone)]
pub struct ContinuousSchedule {
    /// At s = 0, 1/T, …, 1.
    log_alpha_bar: Vec<f64>,
}

impl ContinuousSchedule {
    /// Of a schedule. Where ᾱ is 0 at its end, the least positive number stands for it.
    pub fn new(schedule: &Schedule) -> Self {
        let logs = schedule.alpha_bar().iter().map(|alpha_bar| libm::log(alpha_bar.max(1e-12)));
        Self { log_alpha_bar: std::iter::once(0.0).chain(logs).collect() }
    }

    /// The slope of the curve at a node, per node: the harmonic mean of its neighbours' (Fritsch and Butland 1984), with which
    /// the curve falls everywhere, as ᾱ does; a plain mean lets it rise above 1 where β begins near 0.
    fn slope(&self, node: usize) -> f64 {
        let l = &self.log_alpha_bar;
        let rise = |node: usize| l.get(node + 1).map(|next| next - l[node]);
        match (node.checked_sub(1).and_then(rise), rise(node)) {
            (Some(before), Some(after)) if before + after != 0.0 => 2.0 * before * after / (before + after),
            (before, after) => before.or(after).unwrap_or(0.0),
        }
    }

    /// ln ᾱ and its derivative at s ∈ [0, 1].
    pub fn at(&self, s: f64) -> (f64, f64) {
        let nodes = self.log_alpha_bar.len() - 1;
        let place = s * nodes as f64;
        let node = (place as usize).min(nodes - 1);
        let u = place - node as f64;
        let (from, to) = (self.log_alpha_bar[node], self.log_alpha_bar[node + 1]);
        let (a, b) = (self.slope(node), self.slope(node + 1));
        let (u2, u3) = (u * u, u * u * u);
        let value =
            (2.0 * u3 - 3.0 * u2 + 1.0) * from + (u3 - 2.0 * u2 + u) * a + (3.0 * u2 - 2.0 * u3) * to + (u3 - u2) * b;
        let slope = (6.0 * u2 - 6.0 * u) * (from - to) + (3.0 * u2 - 4.0 * u + 1.0) * a + (3.0 * u2 - 2.0 * u) * b;
        (value, slope * nodes as f64)
    }

    /// The time step that the network is told at s: fractional, and 0 before the first.
    pub fn time_step(&self, s: f64) -> f64 {
        (s * (self.log_alpha_bar.len() - 1) as f64 - 1.0).max(0.0)
    }
}

/// What is asked of a model about one image.
#[derive(Debug)]
pub struct Query<'a> {
    /// Which image.
    pub image: usize,
    /// x at this time.
    pub x: &'a [f64],
    /// ᾱ.
    pub alpha_bar: f64,
    /// The time step.
    pub time_step: f64,
    /// v, each component −1 or 1.
    pub probe: &'a [f64],
}

/// ε̂ and vᵀ (∂ε̂/∂x) v.
#[derive(Debug, Clone)]
pub struct Answer {
    /// ε̂.
    pub eps: Vec<f64>,
    /// The estimate of the trace of its Jacobian (Hutchinson 1990; Rademacher probe).
    pub trace: f64,
}

/// The likelihood of one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OdeBits {
    /// Bits per dimension of the level, by one uniform dequantisation.
    pub bits_per_dim: f64,
    /// Evaluations of the network.
    pub evaluations: usize,
}

/// Dormand and Prince's fifth order with an error estimate of fourth order (1980).
const A: [[f64; 6]; 6] = [
    [1.0 / 5.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    [3.0 / 40.0, 9.0 / 40.0, 0.0, 0.0, 0.0, 0.0],
    [44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0, 0.0, 0.0, 0.0],
    [19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0, 0.0, 0.0],
    [9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0, 0.0],
    [35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];
const C: [f64; 6] = [0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];
/// The fifth order's weights less the fourth's.
const E: [f64; 7] =
    [71.0 / 57600.0, 0.0, -71.0 / 16695.0, 71.0 / 1920.0, -17253.0 / 339200.0, 22.0 / 525.0, -1.0 / 40.0];

/// One image on its way: x and, as the last component, the integral of the divergence.
struct Walker {
    s: f64,
    step: f64,
    y: Vec<f64>,
    probe: Vec<f64>,
    /// Slopes of the stages; the first is that at (s, y).
    k: Vec<Vec<f64>>,
    evaluations: usize,
    rejected: bool,
}

impl Walker {
    /// y at a stage, 1 to 6, of the step under way.
    fn stage(&self, stage: usize) -> (f64, Vec<f64>) {
        let row = &A[stage - 1];
        let mut y = self.y.clone();
        for (k, &a) in self.k.iter().zip(row).filter(|(_, a)| **a != 0.0) {
            y.iter_mut().zip(k).for_each(|(y, k)| *y += self.step * a * k);
        }
        (self.s + C[stage - 1] * self.step, y)
    }

    /// Takes the step or refuses it, and chooses the next one's length.
    fn judge(&mut self) {
        let (_, next) = self.stage(6);
        let mut square = 0.0;
        for (i, (&old, &new)) in self.y.iter().zip(&next).enumerate() {
            let error: f64 = self.k.iter().zip(E).map(|(k, e)| e * k[i]).sum::<f64>() * self.step;
            let scale = TOLERANCE + TOLERANCE * old.abs().max(new.abs());
            square += (error / scale).powi(2);
        }
        let error = (square / self.y.len() as f64).sqrt();
        let factor = if error > 0.0 { 0.9 * libm::pow(error, -0.2) } else { 10.0 };
        if error <= 1.0 {
            self.s += self.step;
            self.y = next;
            self.k.swap(0, 6);
            self.step *= factor.clamp(0.2, if self.rejected { 1.0 } else { 10.0 });
            self.rejected = false;
        } else {
            // what is no number is refused until steps are too short to go on
            self.step *= if error.is_finite() { factor.clamp(0.2, 1.0) } else { 0.2 };
            self.rejected = true;
        }
        self.k.truncate(1);
        self.step = self.step.min(1.0 - self.s);
    }

    fn is_done(&self) -> bool {
        self.s >= 1.0 - 1e-12 || self.is_stuck()
    }

    /// Whether steps have become so short that nothing moves: the model's output is no number.
    fn is_stuck(&self) -> bool {
        self.s < 1.0 - 1e-12 && self.step < 1e-14
    }
}

/// Likelihoods of `levels` (8 bits, `len` numbers an image), image by image, by a model that answers for several at once.
///
/// Image i's dequantisation is at sample `first + i` and step 0 of [`Purpose::Likelihood`], its probe at step 1. Each image
/// has its own step size, so that its bits do not depend on the others. `watch` hears how far the slowest is, 0 to 1.
///
/// # Errors
/// Those of `model` and `watch`.
pub fn ode_bits<E>(
    schedule: &ContinuousSchedule,
    levels: &[u8],
    len: usize,
    seed: u64,
    first: u64,
    mut model: impl FnMut(&[Query<'_>]) -> Result<Vec<Answer>, E>,
    mut watch: impl FnMut(f64) -> Result<(), E>,
) -> Result<Vec<OdeBits>, E> {
    let address = |i: usize| Address::new(seed, Purpose::Likelihood).at_sample(first + i as u64);
    let mut walkers: Vec<Walker> = levels
        .chunks_exact(len.max(1))
        .enumerate()
        .map(|(i, levels)| {
            let mut uniform = vec![0.0; len];
            address(i).fill_uniform(0, &mut uniform);
            let x = levels.iter().zip(&uniform).map(|(&k, &u)| (f64::from(k) + f64::from(u) - 0.5) / LEVELS - 1.0);
            let mut signs = vec![0.0; len];
            address(i).at_step(1).fill_uniform(0, &mut signs);
            let probe = signs.iter().map(|&u| if u < 0.5 { -1.0 } else { 1.0 }).collect();
            let y = x.chain(std::iter::once(0.0)).collect();
            Walker { s: START, step: FIRST_STEP, y, probe, k: Vec::new(), evaluations: 0, rejected: false }
        })
        .collect();
    while walkers.iter().any(|walker| !walker.is_done()) {
        // stage 0 is needed once; later it is the last stage of the step before
        for stage in 0..=6 {
            let active: Vec<usize> =
                (0..walkers.len()).filter(|&i| !walkers[i].is_done() && walkers[i].k.len() == stage).collect();
            if active.is_empty() {
                continue;
            }
            let at = |i: usize| if stage == 0 { (walkers[i].s, walkers[i].y.clone()) } else { walkers[i].stage(stage) };
            let points: Vec<(f64, Vec<f64>)> = active.iter().map(|&i| at(i)).collect();
            let slopes = slopes(schedule, &active, &points, &walkers, &mut model)?;
            for (&i, slope) in active.iter().zip(slopes) {
                walkers[i].k.push(slope);
                walkers[i].evaluations += 1;
            }
        }
        for walker in walkers.iter_mut().filter(|walker| !walker.is_done()) {
            walker.judge();
        }
        watch(walkers.iter().map(|walker| walker.s).fold(1.0, f64::min))?;
    }
    Ok(walkers.iter().map(|walker| walker.bits(len)).collect())
}

impl Walker {
    fn bits(&self, len: usize) -> OdeBits {
        let (d, square) = (len as f64, self.y[..len].iter().map(|x| x * x).sum::<f64>());
        let log_p = -0.5 * (d * libm::log(2.0 * PI) + square) + self.y[len];
        let bits = -log_p / (d * LN_2) + libm::log2(LEVELS);
        OdeBits { bits_per_dim: if self.is_stuck() { f64::NAN } else { bits }, evaluations: self.evaluations }
    }
}

/// dx/ds and its divergence at several points.
fn slopes<E>(
    schedule: &ContinuousSchedule,
    active: &[usize],
    points: &[(f64, Vec<f64>)],
    walkers: &[Walker],
    model: &mut impl FnMut(&[Query<'_>]) -> Result<Vec<Answer>, E>,
) -> Result<Vec<Vec<f64>>, E> {
    let at: Vec<(f64, f64)> = points.iter().map(|(s, _)| schedule.at(*s)).collect();
    let mut queries = Vec::with_capacity(active.len());
    for ((&image, (s, y)), (log, _)) in active.iter().zip(points).zip(&at) {
        queries.push(Query {
            image,
            alpha_bar: libm::exp(*log),
            time_step: schedule.time_step(*s),
            x: &y[..y.len() - 1],
            probe: &walkers[image].probe,
        });
    }
    let answers = model(&queries)?;
    let mut slopes = Vec::with_capacity(active.len());
    for ((query, answer), (log, rate)) in queries.iter().zip(answers).zip(&at) {
        // √(1 − ᾱ) without the difference of two near numbers
        let noise = (-libm::expm1(*log)).sqrt();
        let mut slope: Vec<f64> =
            query.x.iter().zip(&answer.eps).map(|(x, eps)| 0.5 * rate * (x - eps / noise)).collect();
        slope.push(0.5 * rate * (query.x.len() as f64 - answer.trace / noise));
        slopes.push(slope);
    }
    Ok(slopes)
}

impl<B: Backend<Elem = f32>> Denoiser<'_, B> {
    /// What the network says at several points, images `[H, W, C]`; x̂_0 is not clipped, since that has no derivative. What it says
    /// of a learned variance is left out: the ODE has no noise.
    ///
    /// # Errors
    /// Those of network and device.
    pub fn answer(
        &self,
        queries: &[Query<'_>],
        [height, width, channels]: [usize; 3],
        classes: Option<&[usize]>,
    ) -> Result<Vec<Answer>, Error> {
        let shape = [queries.len(), height, width, channels];
        let xs: Vec<f32> = queries.iter().flat_map(|query| query.x).map(|&x| x as f32).collect();
        let x = Tensor::from_slice(self.backend, shape, &xs)?;
        let probes: Vec<f32> = queries.iter().flat_map(|query| query.probe).map(|&v| v as f32).collect();
        let probe = Tensor::from_slice(self.backend, shape, &probes)?;
        let times: Vec<f32> = queries.iter().map(|query| query.time_step as f32).collect();
        let classes: Option<Vec<usize>> =
            classes.map(|classes| queries.iter().map(|query| classes[query.image]).collect());
        let (output, cache) = self.unet.forward(
            self.backend,
            self.parameters,
            x.view(),
            &times,
            classes.as_deref(),
            Mode::Differentiate,
        )?;
        let learned = self.variance.is_learned();
        let output = if learned {
            halves(self.backend, &output)?[0].to_vec(self.backend)?
        } else {
            output.to_vec(self.backend)?
        };
        let probe = if learned { beside(self.backend, &probe, &Tensor::zeros(self.backend, shape)?)? } else { probe };
        let pulled = match cache {
            Some(cache) => self.unet.backward(self.backend, self.parameters, cache, probe.view(), None, true)?,
            None => None,
        };
        let pulled = pulled.map_or_else(|| Ok(vec![0.0; probes.len()]), |pulled| pulled.to_vec(self.backend))?;
        let len = height * width * channels;
        let answer = |(i, query): (usize, &Query<'_>)| {
            let part = i * len..(i + 1) * len;
            let eps = self.prediction.eps(Level::at(self.schedule, query.time_step, query.alpha_bar));
            let along: f64 = pulled[part.clone()].iter().zip(query.probe).map(|(&g, v)| f64::from(g) * v).sum();
            Answer {
                eps: query.x.iter().zip(&output[part]).map(|(&x, &y)| eps.of(x, f64::from(y))).collect(),
                trace: eps.x_t * len as f64 + eps.output * along,
            }
        };
        Ok(queries.iter().enumerate().map(answer).collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use super::*;
    use crate::diffusion::ScheduleSettings;

    const LEN: usize = 6;

    /// Deviations of the data's components, in units of [−1, 1].
    fn deviation(i: usize) -> f64 {
        0.3 + 0.2 * i as f64
    }

    /// ε̂ of Gaussian data in closed form: √(1−ᾱ) x/(ᾱσ² + 1 − ᾱ).
    #[allow(clippy::unnecessary_wraps)] // a model may fail
    fn gaussian(queries: &[Query<'_>]) -> Result<Vec<Answer>, ()> {
        let answer = |query: &Query<'_>| {
            let factor = |i: usize| {
                let noise = 1.0 - query.alpha_bar;
                noise.sqrt() / (query.alpha_bar * deviation(i).powi(2) + noise)
            };
            let eps = query.x.iter().enumerate().map(|(i, x)| factor(i) * x).collect();
            Answer { eps, trace: (0..LEN).map(factor).sum() }
        };
        Ok(queries.iter().map(answer).collect())
    }

    #[test]
    fn gaussian_data_have_their_exact_density() {
        let schedule = ScheduleSettings::default().build().unwrap();
        let levels: Vec<u8> = (0..5 * LEN).map(|i| (i * 47 % 256) as u8).collect();
        let continuous = ContinuousSchedule::new(&schedule);
        let run = |levels: &[u8], first| ode_bits(&continuous, levels, LEN, 1, first, gaussian, |_| Ok(())).unwrap();
        let all = run(&levels, 0);
        for (i, (found, levels)) in all.iter().zip(levels.chunks_exact(LEN)).enumerate() {
            let mut uniform = [0.0; LEN];
            Address::new(1, Purpose::Likelihood).at_sample(i as u64).fill_uniform(0, &mut uniform);
            let nats: f64 = (0..LEN)
                .map(|j| {
                    let x = (f64::from(levels[j]) + f64::from(uniform[j]) - 0.5) / 127.5 - 1.0;
                    0.5 * ((2.0 * PI * deviation(j).powi(2)).ln() + (x / deviation(j)).powi(2))
                })
                .sum();
            let exact = nats / (LEN as f64 * LN_2) + 127.5_f64.log2();
            let error = (found.bits_per_dim - exact).abs();
            println!("image {i}: {found:?}, exact {exact}, error {error:e}");
            assert!(error < 1e-3, "image {i}: {found:?}, exact {exact}");
        }
        // an image alone walks the same way
        assert_eq!(run(&levels[2 * LEN..3 * LEN], 2)[0], all[2]);
    }

    #[test]
    fn continuous_schedules_pass_through_their_nodes_with_their_slopes() {
        let schedule = ScheduleSettings::default().build().unwrap();
        let continuous = ContinuousSchedule::new(&schedule);
        for t in [0, 1, 500, 999] {
            let s = (t + 1) as f64 / 1000.0;
            assert!((continuous.at(s).0 - schedule.alpha_bar()[t].ln()).abs() < 1e-10);
            assert!((continuous.time_step(s) - t as f64).abs() < 1e-9);
        }
        for s in [0.0003, 0.1234, 0.5, 0.99987] {
            let h = 1e-7;
            let slope = (continuous.at(s + h).0 - continuous.at(s - h).0) / (2.0 * h);
            assert!((continuous.at(s).1 - slope).abs() < 1e-5 * slope.abs(), "{s}");
        }
        assert_eq!(continuous.at(0.0).0, 0.0);
    }

    #[test]
    fn continuous_schedules_fall_everywhere() {
        for timesteps in [1, 2, 20, 1000] {
            let settings = ScheduleSettings { timesteps, ..ScheduleSettings::default() };
            let continuous = ContinuousSchedule::new(&settings.build().unwrap());
            let values: Vec<f64> = (0..=5000).map(|i| continuous.at(f64::from(i) / 5000.0).0).collect();
            assert!(values.windows(2).all(|pair| pair[1] < pair[0]), "{timesteps} time steps");
        }
    }

    #[test]
    fn a_model_that_says_no_number_ends() {
        let schedule = ContinuousSchedule::new(&ScheduleSettings::default().build().unwrap());
        let lost = |queries: &[Query<'_>]| {
            Ok::<_, ()>(queries.iter().map(|q| Answer { eps: vec![f64::NAN; q.x.len()], trace: 0.0 }).collect())
        };
        assert!(ode_bits(&schedule, &[3; LEN], LEN, 0, 0, lost, |_| Ok(())).unwrap()[0].bits_per_dim.is_nan());
    }
}
