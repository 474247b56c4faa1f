//! The noise levels that a sampler of the ordinary differential equation visits.
//!
//! s = √((1 − ᾱ)/ᾱ) is the standard deviation of the noise beside an image of unit scale (σ in Karras et al. 2022), and
//! λ = −ln s half the logarithm of the signal-to-noise ratio (λ in Lu et al. 2022).

use super::{SamplerOptions, Spacing};
use crate::diffusion::schedule::linspace;
use crate::diffusion::{DiffusionError, Schedule};
use crate::named::named_enum;

named_enum! {
    /// How noise levels are chosen.
    #[derive(Default)]
    #[non_exhaustive]
    Levels: "noise levels" {
        /// Those of the time steps that [`Spacing`] gives.
        #[default]
        TimeSteps = "time_steps",
        /// s_i^{1/ρ} equidistant, ρ = 7: dense near the image (Karras et al. 2022, eq. 5).
        Karras = "karras",
        /// ln s equidistant: every step lowers the noise by the same factor.
        Exponential = "exponential",
    }
}

named_enum! {
    /// The noise level that the last step leads to.
    #[derive(Default)]
    #[non_exhaustive]
    FinalSigma: "final noise level" {
        /// 0: the image itself.
        #[default]
        Zero = "zero",
        /// That of time step 0.
        SigmaMin = "sigma_min",
    }
}

/// ρ of [`Levels::Karras`].
const RHO: f64 = 7.0;
/// ᾱ in place of 0 at the end of a schedule with zero terminal SNR, where s would be infinite (as diffusers has it).
const LEAST_ALPHA_BAR: f64 = 1.0 / (1 << 24) as f64;

/// Time steps and their noise levels, from noise to image.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grid {
    /// What the network is told, one for each interval.
    pub(super) times: Vec<f64>,
    /// s at the begin of each interval, and at the end of the last: falling.
    pub(super) s: Vec<f64>,
}

/// s of every time step.
fn table(schedule: &Schedule) -> Vec<f64> {
    let s = |&alpha_bar: &f64| {
        let alpha_bar = if alpha_bar == 0.0 { LEAST_ALPHA_BAR } else { alpha_bar };
        ((1.0 - alpha_bar) / alpha_bar).sqrt()
    };
    schedule.alpha_bar().iter().map(s).collect()
}

/// The time step of a noise level, between two of the table by ln s; the ends where it lies beyond.
pub(super) fn time_of(schedule: &Schedule, s: f64) -> f64 {
    let table = table(schedule);
    let above = table.partition_point(|&level| level <= s).clamp(1, table.len().max(2) - 1);
    let (Some(&low), Some(&high)) = (table.get(above - 1), table.get(above)) else { return 0.0 };
    let part = (libm::log(s) - libm::log(low)) / (libm::log(high) - libm::log(low));
    (above - 1) as f64 + part.clamp(0.0, 1.0)
}

impl Grid {
    /// For samplers over s (Euler, Heun, LMS). `linspace` takes its time steps as they fall, between two whole numbers, and s
    /// in linear proportion there; Karras's and exponential levels run between the first and the last of those.
    ///
    /// # Errors
    /// As [`SamplerOptions::time_steps`]; levels that coincide.
    pub(super) fn over_s(
        schedule: &Schedule,
        options: &SamplerOptions,
        last: FinalSigma,
    ) -> Result<Self, DiffusionError> {
        options.check()?;
        let (total, steps) = (schedule.time_steps(), options.count(schedule));
        let spacing = options.spacing.unwrap_or(Spacing::Linspace);
        // also checks the number of steps
        let mut times: Vec<f64> = options.all_time_steps(schedule, spacing)?.into_iter().map(|t| t as f64).collect();
        if spacing == Spacing::Linspace {
            times = linspace(0.0, (total - 1) as f64, steps);
            times.reverse();
        }
        let table = table(schedule);
        let at = |t: f64| {
            let (low, part) = (t as usize, t.fract());
            table[low] + part * (table[(low + 1).min(total - 1)] - table[low])
        };
        let mut s: Vec<f64> = times.iter().map(|&t| at(t)).collect();
        if let (Some(levels), [first, .., last]) = (respaced(options.levels), s.as_slice()) {
            s = levels(*first, *last, s.len());
            times = s.iter().map(|&s| time_of(schedule, s)).collect();
        }
        Self { times, s }.ended(&table, last, options)
    }

    /// For samplers over λ (DPM-Solver++, UniPC): whole time steps, of S + 1 the first S; Karras's and exponential levels run
    /// between the first and the last of the schedule.
    ///
    /// # Errors
    /// As [`Grid::over_s`].
    pub(super) fn over_lambda(schedule: &Schedule, options: &SamplerOptions) -> Result<Self, DiffusionError> {
        options.check()?;
        let (total, steps) = (schedule.time_steps(), options.count(schedule));
        let spacing = options.spacing.unwrap_or(Spacing::Linspace);
        let whole: Vec<usize> = match spacing {
            Spacing::Trailing => options.all_time_steps(schedule, spacing)?,
            // One point more than steps, and the one nearest to the image left out. With all time steps there is no room.
            _ if steps == total => (0..total).rev().collect(),
            _ => {
                let mut times = spacing.time_steps(total, steps + 1, options.steps_offset)?;
                times.pop();
                times
            }
        };
        let table = table(schedule);
        let mut grid = Self { s: whole.iter().map(|&t| table[t]).collect(), times: vec![] };
        grid.times = whole.into_iter().map(|t| t as f64).collect();
        if let (Some(levels), [least, .., most]) = (respaced(options.levels), table.as_slice()) {
            grid.s = levels(*most, *least, steps);
            let nearest = options.levels == Levels::Karras && !options.floor_times;
            let whole = |t: f64| if nearest { t.round_ties_even() } else { t.floor() };
            grid.times = grid.s.iter().map(|&s| whole(time_of(schedule, s))).collect();
        }
        grid.ended(&table, options.final_sigma, options)
    }

    /// With the last level, and without the steps that are left out.
    fn ended(mut self, table: &[f64], last: FinalSigma, options: &SamplerOptions) -> Result<Self, DiffusionError> {
        self.s.push(match last {
            FinalSigma::Zero => 0.0,
            FinalSigma::SigmaMin => table[0],
        });
        if let [_, .., before, last] = self.s[..]
            && before <= last * (1.0 + 1e-9)
        {
            // The levels end where the last one is already.
            self.s.pop();
            self.times.pop();
        }
        let skip = options.skipped(self.times.len())?;
        self.s.drain(..skip);
        self.times.drain(..skip);
        if self.s.is_sorted_by(|a, b| a > b) {
            Ok(self)
        } else {
            let got = self.times.len() as f64;
            Err(DiffusionError::Option { option: "steps", expected: "fewer: some of their noise levels coincide", got })
        }
    }

    /// Number of intervals.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// The standard deviation of what a sampler over s starts from: with `leading` spacing x_T still holds an image's share.
    pub(super) fn start(&self, options: &SamplerOptions) -> f64 {
        match options.spacing.unwrap_or(Spacing::Linspace) {
            Spacing::Linspace | Spacing::Trailing => self.s[0],
            Spacing::Leading | Spacing::Quad => self.s[0].hypot(1.0),
        }
    }
}

/// The levels between a largest and a least one.
type Between = fn(f64, f64, usize) -> Vec<f64>;

fn respaced(levels: Levels) -> Option<Between> {
    match levels {
        Levels::TimeSteps => None,
        Levels::Karras => Some(|most, least, steps| {
            let root = |s: f64| libm::pow(s, 1.0 / RHO);
            linspace(root(most), root(least), steps).into_iter().map(|root| libm::pow(root, RHO)).collect()
        }),
        Levels::Exponential => Some(|most, least, steps| {
            linspace(libm::log(most), libm::log(least), steps).into_iter().map(libm::exp).collect()
        }),
    }
}

/// (√ᾱ, √(1−ᾱ), λ) of a noise level.
pub(super) fn alpha_sigma_lambda(s: f64) -> (f64, f64, f64) {
    let alpha = 1.0 / s.hypot(1.0);
    (alpha, s * alpha, -libm::log(s))
}
