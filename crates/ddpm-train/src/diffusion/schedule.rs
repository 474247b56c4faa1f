//! Noise schedules: the variances β_t of the forward process and what follows from them.

use super::DiffusionError;
use crate::named::named_enum;

named_enum! {
    /// How β_t runs over the T time steps, t = 0..T−1.
    ///
    /// "a → b" is T equidistant values with both ends included.
    #[derive(Default)]
    #[non_exhaustive]
    BetaSchedule: "beta schedule" {
        /// β_start → β_end. Ho et al. 2020, section 4 (1e-4 → 0.02 with T = 1000).
        #[default]
        Linear = "linear" | "sqrt_linear",
        /// (√β_start → √β_end)². Ho et al.'s program calls it `quad`, latent diffusion `linear`, diffusers `scaled_linear`.
        ScaledLinear = "scaled_linear" | "quad",
        /// ᾱ(s) = cos²((s + 0.008)/1.008 · π/2), β_t = min(1 − ᾱ((t+1)/T)/ᾱ(t/T), 0.999); has no β_start and β_end.
        /// Nichol and Dhariwal 2021, eq. 17.
        Cosine = "cosine" | "squaredcos_cap_v2",
        /// β_start + (β_end − β_start) · logistic(−6 → 6). GeoDiff (Xu et al. 2022), and diffusers under the same name.
        Sigmoid = "sigmoid",
        /// β_end at every step.
        Const = "const",
        /// 1/(T − t): 1/T, 1/(T−1), …, 1. Sohl-Dickstein et al. 2015, section 2.4.1. Ends in pure noise (ᾱ = 0), which
        /// ε cannot predict.
        Jsd = "jsd",
        /// β_start → β_end over the first tenth of the steps, then β_end.
        Warmup10 = "warmup10",
        /// β_start → β_end over the first half of the steps, then β_end.
        Warmup50 = "warmup50",
    }
}

/// Everything that determines a [`Schedule`].
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleSettings {
    /// The form of β.
    pub schedule: BetaSchedule,
    /// T, 1 to [`MAX_TIME_STEPS`].
    pub timesteps: usize,
    /// β of the first step, in (0, 1).
    pub beta_start: f64,
    /// β of the last step, in (0, 1).
    pub beta_end: f64,
    /// Rescale √ᾱ so that the last step is pure noise (Lin et al. 2024, algorithm 1). Needs `v` or `x0`.
    pub zero_terminal_snr: bool,
    /// β itself, one for each time step, in place of a form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_betas: Option<Vec<f64>>,
}

impl Default for ScheduleSettings {
    /// The schedule of Ho et al. 2020, section 4.
    fn default() -> Self {
        Self {
            schedule: BetaSchedule::Linear,
            timesteps: 1000,
            beta_start: 1e-4,
            beta_end: 0.02,
            zero_terminal_snr: false,
            trained_betas: None,
        }
    }
}

impl ScheduleSettings {
    /// The β of these settings, before they are checked.
    ///
    /// # Errors
    /// A number of time steps outside 1..=[`MAX_TIME_STEPS`], or `trained_betas` of another length.
    pub fn beta(&self) -> Result<Vec<f64>, DiffusionError> {
        let (steps, start, end) = (self.timesteps, self.beta_start, self.beta_end);
        check_count(steps)?;
        if let Some(betas) = &self.trained_betas {
            if betas.len() != steps {
                return Err(DiffusionError::BetaCount { expected: steps, got: betas.len() });
            }
            return Ok(betas.clone());
        }
        let warm_up = |part: f64| {
            let mut beta = vec![end; steps];
            let warm = linspace(start, end, (steps as f64 * part) as usize);
            beta[..warm.len()].copy_from_slice(&warm);
            beta
        };
        Ok(match self.schedule {
            BetaSchedule::Linear => linspace(start, end, steps),
            BetaSchedule::ScaledLinear => {
                linspace(start.sqrt(), end.sqrt(), steps).into_iter().map(|root| root * root).collect()
            }
            BetaSchedule::Cosine => {
                let alpha_bar = |s: f64| libm::cos((s + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).powi(2);
                let at = |t: usize| alpha_bar(t as f64 / steps as f64);
                (0..steps).map(|t| (1.0 - at(t + 1) / at(t)).min(0.999)).collect()
            }
            BetaSchedule::Sigmoid => {
                let logistic = |x: f64| 1.0 / (1.0 + libm::exp(-x));
                linspace(-6.0, 6.0, steps).into_iter().map(|x| logistic(x) * (end - start) + start).collect()
            }
            BetaSchedule::Const => vec![end; steps],
            BetaSchedule::Jsd => (0..steps).map(|t| 1.0 / (steps - t) as f64).collect(),
            BetaSchedule::Warmup10 => warm_up(0.1),
            BetaSchedule::Warmup50 => warm_up(0.5),
        })
    }

    /// The schedule of these settings.
    ///
    /// # Errors
    /// A bad number of time steps, or a β outside (0, 1).
    pub fn build(&self) -> Result<Schedule, DiffusionError> {
        let schedule = Schedule::from_beta(self.beta()?)?;
        if self.zero_terminal_snr { schedule.with_zero_terminal_snr() } else { Ok(schedule) }
    }
}

/// The largest T: time steps are kept in 32 bits, and a longer chain is a slip of the keyboard.
pub const MAX_TIME_STEPS: usize = 1_000_000;

fn check_count(got: usize) -> Result<(), DiffusionError> {
    if (1..=MAX_TIME_STEPS).contains(&got) {
        Ok(())
    } else {
        Err(DiffusionError::TimeStepCount { max: MAX_TIME_STEPS, got })
    }
}

/// `count` equidistant values from `start` to `end`, both included (one value: `start`), rounded as numpy rounds them.
pub(crate) fn linspace(start: f64, end: f64, count: usize) -> Vec<f64> {
    let step = if count > 1 { (end - start) / (count - 1) as f64 } else { 0.0 };
    let mut values: Vec<f64> = (0..count).map(|i| i as f64 * step + start).collect();
    if let [_, .., last] = values.as_mut_slice() {
        *last = end;
    }
    values
}

/// A checked noise schedule of T time steps, t = 0..T−1 (Ho et al. 2020, eq. 2 and 4).
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    beta: Vec<f64>,
    alpha_bar: Vec<f64>,
}

impl Schedule {
    /// The schedule with these β, `[T]`.
    ///
    /// # Errors
    /// No β or more than [`MAX_TIME_STEPS`]; one outside (0, 1), where only the last may be 1.
    pub fn from_beta(beta: Vec<f64>) -> Result<Self, DiffusionError> {
        check_count(beta.len())?;
        let last = beta.len() - 1;
        for (time_step, &beta) in beta.iter().enumerate() {
            if !(beta > 0.0 && (beta < 1.0 || (beta == 1.0 && time_step == last))) {
                return Err(DiffusionError::BetaOutOfRange { time_step, beta });
            }
        }
        let mut product = 1.0;
        let alpha_bar = beta
            .iter()
            .map(|beta| {
                product *= 1.0 - beta;
                product
            })
            .collect();
        Ok(Self { beta, alpha_bar })
    }

    /// The schedule with these ᾱ, `[T]`, which must fall: β_t = 1 − ᾱ_t/ᾱ_{t−1}, ᾱ_{−1} = 1.
    ///
    /// # Errors
    /// As [`Schedule::from_beta`].
    pub fn from_alpha_bar(alpha_bar: Vec<f64>) -> Result<Self, DiffusionError> {
        let mut previous = 1.0;
        let beta = alpha_bar
            .iter()
            .map(|&now| {
                let beta = 1.0 - now / previous;
                previous = now;
                beta
            })
            .collect();
        // ᾱ as given and not the product of 1 − β: a respaced schedule is to have the very values of the one it came from.
        Ok(Self { alpha_bar, ..Self::from_beta(beta)? })
    }

    /// T.
    pub fn time_steps(&self) -> usize {
        self.beta.len()
    }

    /// β_t, `[T]`: the variance that step t adds.
    pub fn beta(&self) -> &[f64] {
        &self.beta
    }

    /// ᾱ_t = ∏_{s ≤ t} (1 − β_s), `[T]`: what is left of the image's variance after step t.
    pub fn alpha_bar(&self) -> &[f64] {
        &self.alpha_bar
    }

    /// α_t = 1 − β_t.
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn alpha(&self, t: usize) -> f64 {
        1.0 - self.beta[t]
    }

    /// ᾱ_{t−1}, with ᾱ_{−1} = 1.
    ///
    /// # Panics
    /// If t > T, as an array would.
    pub fn alpha_bar_before(&self, t: usize) -> f64 {
        if t == 0 { 1.0 } else { self.alpha_bar[t - 1] }
    }

    /// Signal-to-noise ratio ᾱ_t/(1 − ᾱ_t) (Kingma et al. 2021, eq. 2). It falls with t.
    ///
    /// # Panics
    /// If t ≥ T, as an array would.
    pub fn snr(&self, t: usize) -> f64 {
        self.alpha_bar[t] / (1.0 - self.alpha_bar[t])
    }

    /// The schedule of a chain that visits only `time_steps` (ascending): β'_i = 1 − ᾱ_{s_i}/ᾱ_{s_{i−1}}, so that its
    /// ᾱ'_i are the ᾱ_{s_i} of this one (Nichol and Dhariwal 2021, eq. 19).
    ///
    /// # Errors
    /// A subset that is empty, not ascending or outside 0..T.
    pub fn respaced(&self, time_steps: &[usize]) -> Result<Respaced, DiffusionError> {
        let wrong = |place: usize, got: String| DiffusionError::Subset { time_steps: self.time_steps(), place, got };
        if time_steps.is_empty() {
            return Err(wrong(0, "nothing".to_owned()));
        }
        for (place, &t) in time_steps.iter().enumerate() {
            if t >= self.time_steps() || (place > 0 && t <= time_steps[place - 1]) {
                return Err(wrong(place, t.to_string()));
            }
        }
        let schedule = Self::from_alpha_bar(time_steps.iter().map(|&t| self.alpha_bar[t]).collect())?;
        Ok(Respaced { schedule, time_steps: time_steps.to_vec() })
    }

    /// This schedule with √ᾱ shifted and scaled so that the first value stays and the last becomes 0 (Lin et al. 2024,
    /// algorithm 1).
    ///
    /// # Errors
    /// Fewer than two time steps: the first and the last are then one.
    pub fn with_zero_terminal_snr(&self) -> Result<Self, DiffusionError> {
        let root: Vec<f64> = self.alpha_bar.iter().map(|alpha_bar| alpha_bar.sqrt()).collect();
        let (first, last) = (root[0], root[root.len() - 1]);
        Self::from_alpha_bar(root.iter().map(|root| ((root - last) * (first / (first - last))).powi(2)).collect())
    }
}

/// A schedule over a subset of another's time steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Respaced {
    /// The schedule of the shorter chain.
    pub schedule: Schedule,
    /// The time step of the original that each of its steps stands for, ascending: what the network is told.
    pub time_steps: Vec<usize>,
}
