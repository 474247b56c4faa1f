//! diffusers' `scheduler_config.json`, read and written as text. No file is opened here.
//!
//! A missing key means the class's default (as of diffusers 0.42.1), a key that the class does not know is passed over as
//! diffusers does, and a value without a counterpart is an error that names it.

use std::fmt;

use serde_json::{Map, Value, json};

use super::{BetaSchedule, DiffusionError, Prediction, ScheduleSettings, Variance};
use crate::named::{UnknownName, named_enum};
use crate::samplers::{FinalSigma, Levels, Previous, SamplerOptions, SolverType, Spacing, Threshold};
use crate::settings::Settings;

named_enum! {
    /// A class of diffusers.
    #[derive(Default)]
    #[non_exhaustive]
    SchedulerClass: "scheduler class" {
        /// Ancestral sampling: our `ddpm`.
        #[default]
        Ddpm = "DDPMScheduler",
        /// Implicit sampling: our `ddim`.
        Ddim = "DDIMScheduler",
        /// Pseudo linear multistep: our `pndm`.
        Pndm = "PNDMScheduler",
        /// DPM-Solver++: our `dpm++2m`, `dpm++3m` and `dpm++sde`.
        Dpm = "DPMSolverMultistepScheduler",
        /// Our `euler`.
        Euler = "EulerDiscreteScheduler",
        /// Our `euler-a`.
        EulerAncestral = "EulerAncestralDiscreteScheduler",
        /// Our `heun`.
        Heun = "HeunDiscreteScheduler",
        /// Our `unipc`.
        UniPc = "UniPCMultistepScheduler",
        /// Our `lms`.
        Lms = "LMSDiscreteScheduler",
    }
}

impl SchedulerClass {
    /// Whether it has `clip_sample`, and the default of that.
    fn clips(self) -> Option<bool> {
        match self {
            Self::Ddpm | Self::Ddim => Some(true),
            Self::Heun => Some(false),
            _ => None,
        }
    }

    /// Whether it has `thresholding`.
    fn thresholds(self) -> bool {
        matches!(self, Self::Ddpm | Self::Ddim | Self::Dpm | Self::UniPc)
    }

    /// Whether it has `use_karras_sigmas` and its kind.
    fn has_levels(self) -> bool {
        matches!(self, Self::Dpm | Self::Euler | Self::Heun | Self::UniPc | Self::Lms)
    }

    /// Whether it has `final_sigmas_type`.
    fn has_final_sigma(self) -> bool {
        matches!(self, Self::Dpm | Self::Euler | Self::UniPc)
    }

    /// The default of `set_alpha_to_one`; none where there is no such key.
    fn alpha_to_one(self) -> Option<bool> {
        match self {
            Self::Ddim => Some(true),
            Self::Pndm => Some(false),
            _ => None,
        }
    }

    /// The default of `timestep_spacing`.
    fn spacing(self) -> Spacing {
        match self {
            Self::Ddpm | Self::Ddim | Self::Pndm => Spacing::Leading,
            _ => Spacing::Linspace,
        }
    }
}

/// A diffusers scheduler in our terms.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SchedulerConfig {
    /// Which class; a configuration without a class is `DDPMScheduler`.
    pub class: SchedulerClass,
    /// The noise schedule.
    pub schedule: ScheduleSettings,
    /// Prediction, variance, clipping and spacing. Number of steps and η are not part of the file.
    pub options: SamplerOptions,
}

impl From<&Settings> for SchedulerConfig {
    /// What an export of a run says: ancestral sampling over the run's schedule.
    fn from(settings: &Settings) -> Self {
        let options = SamplerOptions::from(&settings.diffusion);
        Self { class: SchedulerClass::Ddpm, schedule: settings.schedule(), options }
    }
}

impl SchedulerConfig {
    /// The name of the sampler that does what the scheduler does.
    pub fn sampler(&self) -> &'static str {
        match self.class {
            SchedulerClass::Ddpm => "ddpm",
            SchedulerClass::Ddim => "ddim",
            SchedulerClass::Pndm => "pndm",
            SchedulerClass::Dpm if self.options.stochastic => "dpm++sde",
            SchedulerClass::Dpm if self.options.order == Some(3) => "dpm++3m",
            SchedulerClass::Dpm => "dpm++2m",
            SchedulerClass::Euler => "euler",
            SchedulerClass::EulerAncestral => "euler-a",
            SchedulerClass::Heun => "heun",
            SchedulerClass::UniPc => "unipc",
            SchedulerClass::Lms => "lms",
        }
    }

    /// Reads the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// Text that is no JSON object, another class, a value of the wrong type or without a counterpart.
    pub fn parse(text: &str) -> Result<Self, DiffusionError> {
        // Python writes numbers that JSON does not have; the only one here stands for "no bound".
        let text = text.replace("-Infinity", "null");
        let object: Map<String, Value> =
            serde_json::from_str(&text).map_err(|error| DiffusionError::ConfigSyntax(error.to_string()))?;
        let keys = Keys(&object);

        let class = keys.class()?;
        let timesteps = keys.count("num_train_timesteps", 1000)?;
        let schedule = ScheduleSettings {
            schedule: keys.beta_schedule()?,
            timesteps,
            beta_start: keys.number("beta_start", if class == SchedulerClass::Heun { 0.00085 } else { 1e-4 })?,
            beta_end: keys.number("beta_end", if class == SchedulerClass::Heun { 0.012 } else { 0.02 })?,
            zero_terminal_snr: keys.flag("rescale_betas_zero_snr", false)?,
            trained_betas: keys.numbers("trained_betas")?,
        };
        // Before `prediction_type` there was a flag.
        if !keys.flag("predict_epsilon", true)? && !object.contains_key("prediction_type") {
            return Err(keys.unsupported("predict_epsilon", "`prediction_type`: \"sample\" in its place"));
        }
        let mut options = SamplerOptions {
            prediction: keys.prediction()?,
            spacing: Some(keys.spacing(class.spacing())?),
            steps_offset: keys.count("steps_offset", 0)?,
            previous: Previous::FixedStride,
            clip: None,
            ..SamplerOptions::default()
        };
        if let Some(default) = class.clips() {
            options.clip = keys.clip(default)?;
        }
        if class.thresholds() {
            options.threshold = keys.threshold()?;
        }
        // With 1 as the largest, thresholding is clipping.
        if options.threshold.is_some_and(|threshold| threshold.max == 1.0) {
            (options.clip, options.threshold) = (Some(1.0), None);
        }
        if let Some(default) = class.alpha_to_one() {
            options.set_alpha_to_one = keys.flag("set_alpha_to_one", default)?;
        }
        if class.has_levels() {
            options.levels = keys.levels()?;
        }
        if class.has_final_sigma() {
            options.final_sigma = keys.named("final_sigmas_type", FinalSigma::Zero)?;
        }
        keys.of_class(class, &mut options)?;
        options.floor_times = class == SchedulerClass::Dpm && schedule.schedule == BetaSchedule::Cosine;
        Ok(Self { class, schedule, options })
    }

    /// The text of a `scheduler_config.json` that diffusers loads.
    ///
    /// A schedule for which the class has no name is written as its β (`trained_betas`).
    ///
    /// # Errors
    /// `quad` spacing, which diffusers does not have, and settings of a schedule that do not hold.
    pub fn to_json(&self) -> Result<String, DiffusionError> {
        let Self { class, schedule, options } = self;
        let (name, trained_betas) = match (schedule.schedule, &schedule.trained_betas) {
            (_, Some(betas)) => ("linear", Some(betas.clone())),
            (BetaSchedule::Linear, None) => ("linear", None),
            (BetaSchedule::ScaledLinear, None) => ("scaled_linear", None),
            (BetaSchedule::Cosine, None) => ("squaredcos_cap_v2", None),
            (BetaSchedule::Sigmoid, None) if *class == SchedulerClass::Ddpm => ("sigmoid", None),
            (..) => ("linear", Some(schedule.beta()?)),
        };
        let spacing = match options.spacing.unwrap_or(class.spacing()) {
            spacing @ (Spacing::Leading | Spacing::Trailing | Spacing::Linspace) => spacing.name(),
            spacing @ Spacing::Quad => {
                return Err(DiffusionError::ConfigValue {
                    key: "timestep_spacing",
                    value: json!(spacing.name()).to_string(),
                    expected: "leading, trailing or linspace: diffusers has no other".to_owned(),
                });
            }
        };
        let mut config = json!({
            "_class_name": class.name(),
            "_diffusers_version": "0.42.1",
            "num_train_timesteps": schedule.timesteps,
            "beta_start": schedule.beta_start,
            "beta_end": schedule.beta_end,
            "beta_schedule": name,
            "trained_betas": trained_betas,
            "rescale_betas_zero_snr": schedule.zero_terminal_snr,
            "prediction_type": match options.prediction {
                Prediction::Eps => "epsilon",
                Prediction::X0 => "sample",
                Prediction::V => "v_prediction",
                Prediction::Mean => return Err(cannot_say("prediction_type", "mean", "epsilon, sample or v_prediction")),
            },
            "timestep_spacing": spacing,
            "steps_offset": options.steps_offset,
        });
        if class.clips().is_some() {
            config["clip_sample"] = json!(options.clip.is_some());
            config["clip_sample_range"] = json!(options.clip.unwrap_or(1.0));
        }
        if class.thresholds() {
            // Where there is no other way to clip, it is thresholding at 1.
            let clip = if class.clips().is_none() { options.clip } else { None };
            let threshold = options.threshold.or(clip.map(|max| Threshold { max, ..Threshold::default() }));
            config["thresholding"] = json!(threshold.is_some());
            if let Some(Threshold { ratio, max }) = threshold {
                config["dynamic_thresholding_ratio"] = json!(ratio);
                config["sample_max_value"] = json!(max.min(f64::MAX));
            }
        }
        if class.alpha_to_one().is_some() {
            config["set_alpha_to_one"] = json!(options.set_alpha_to_one);
        }
        if class.has_levels() {
            config["use_karras_sigmas"] = json!(options.levels == Levels::Karras);
            config["use_exponential_sigmas"] = json!(options.levels == Levels::Exponential);
        }
        if class.has_final_sigma() {
            config["final_sigmas_type"] = json!(options.final_sigma.name());
        }
        match class {
            SchedulerClass::Ddpm => config["variance_type"] = json!(variance_type(options)?),
            SchedulerClass::Pndm => config["skip_prk_steps"] = json!(options.skip_prk_steps),
            SchedulerClass::Dpm | SchedulerClass::UniPc => {
                config["solver_order"] = json!(options.order.unwrap_or(2));
                config["solver_type"] = json!(options.solver_type.name());
                config["lower_order_final"] = json!(options.lower_order_final);
                if *class == SchedulerClass::Dpm {
                    config["algorithm_type"] = json!(if options.stochastic { SDE } else { ODE });
                    config["euler_at_final"] = json!(options.euler_at_final);
                } else {
                    config["disable_corrector"] = json!(options.disable_corrector);
                }
            }
            _ => {}
        }
        // `Value`'s alternate form indents and cannot fail.
        Ok(format!("{config:#}\n"))
    }
}

/// A setting of ours for which diffusers has no word.
fn cannot_say(key: &'static str, value: &str, known: &str) -> DiffusionError {
    let expected = format!("{known}: diffusers has no other");
    DiffusionError::ConfigValue { key, value: json!(value).to_string(), expected }
}

/// The word for a variance.
fn variance_type(options: &SamplerOptions) -> Result<&'static str, DiffusionError> {
    match (options.variance, options.variance_blend) {
        (kind @ (Variance::FixedLarge | Variance::FixedSmall | Variance::LearnedRange), _) => Ok(kind.name()),
        (Variance::Blend, 0.0) => Ok(Variance::FixedSmall.name()),
        (Variance::Blend, 1.0) => Ok(Variance::FixedLarge.name()),
        // diffusers' `learned` takes the output as the variance itself, which may be negative, not as its logarithm.
        (kind, _) => Err(cannot_say("variance_type", kind.name(), "fixed_small, fixed_large or learned_range")),
    }
}

/// `algorithm_type` of DPM-Solver++.
const ODE: &str = "dpmsolver++";
/// The same for the stochastic equation.
const SDE: &str = "sde-dpmsolver++";

/// The values of a configuration, by key; `null` counts as missing.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn unsupported(&self, key: &'static str, expected: impl Into<String>) -> DiffusionError {
        let value = self.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
        DiffusionError::ConfigValue { key, value, expected: expected.into() }
    }

    fn flag(&self, key: &'static str, default: bool) -> Result<bool, DiffusionError> {
        self.get(key).map_or(Ok(default), |value| value.as_bool().ok_or_else(|| self.unsupported(key, "true or false")))
    }

    fn count(&self, key: &'static str, default: usize) -> Result<usize, DiffusionError> {
        let count = |value: &Value| value.as_u64().and_then(|count| usize::try_from(count).ok());
        self.get(key)
            .map_or(Ok(default), |value| count(value).ok_or_else(|| self.unsupported(key, "a whole number, 0 or more")))
    }

    fn number(&self, key: &'static str, default: f64) -> Result<f64, DiffusionError> {
        self.get(key).map_or(Ok(default), |value| value.as_f64().ok_or_else(|| self.unsupported(key, "a number")))
    }

    fn numbers(&self, key: &'static str) -> Result<Option<Vec<f64>>, DiffusionError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let numbers = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        numbers.map(Some).ok_or_else(|| DiffusionError::ConfigValue {
            key,
            value: "something else".to_owned(), // perhaps a thousand entries
            expected: "null or a list of numbers".to_owned(),
        })
    }

    fn text(&self, key: &'static str, default: &'static str) -> Result<&str, DiffusionError> {
        self.get(key).map_or(Ok(default), |value| value.as_str().ok_or_else(|| self.unsupported(key, "a text")))
    }

    fn class(&self) -> Result<SchedulerClass, DiffusionError> {
        let default = SchedulerClass::default();
        self.text("_class_name", default.name())?.parse().map_err(|_| {
            let known: Vec<_> = SchedulerClass::ALL.iter().map(|class| class.name()).collect();
            self.unsupported("_class_name", format!("one of {}", known.join(", ")))
        })
    }

    fn prediction(&self) -> Result<Prediction, DiffusionError> {
        match self.text("prediction_type", "epsilon")? {
            "epsilon" => Ok(Prediction::Eps),
            "sample" => Ok(Prediction::X0),
            "v_prediction" => Ok(Prediction::V),
            _ => Err(self.unsupported("prediction_type", "epsilon, sample or v_prediction")),
        }
    }

    fn beta_schedule(&self) -> Result<BetaSchedule, DiffusionError> {
        match self.text("beta_schedule", "linear")? {
            "linear" => Ok(BetaSchedule::Linear),
            "scaled_linear" => Ok(BetaSchedule::ScaledLinear),
            "squaredcos_cap_v2" => Ok(BetaSchedule::Cosine),
            "sigmoid" => Ok(BetaSchedule::Sigmoid),
            _ => Err(self.unsupported("beta_schedule", "linear, scaled_linear, squaredcos_cap_v2 or sigmoid")),
        }
    }

    fn variance(&self) -> Result<Variance, DiffusionError> {
        match self.text("variance_type", "fixed_small")? {
            // The two are one: diffusers takes the root of the variance, or exp of half its logarithm.
            "fixed_small" | "fixed_small_log" => Ok(Variance::FixedSmall),
            "fixed_large" => Ok(Variance::FixedLarge),
            "learned_range" => Ok(Variance::LearnedRange),
            _ => Err(self.unsupported("variance_type", "fixed_small, fixed_small_log, fixed_large or learned_range")),
        }
    }

    fn spacing(&self, default: Spacing) -> Result<Spacing, DiffusionError> {
        match self.text("timestep_spacing", default.name())? {
            "leading" => Ok(Spacing::Leading),
            "trailing" => Ok(Spacing::Trailing),
            "linspace" => Ok(Spacing::Linspace),
            _ => Err(self.unsupported("timestep_spacing", "leading, trailing or linspace")),
        }
    }

    /// A value of one of our lists, which have diffusers' names.
    fn named<T: std::str::FromStr<Err = UnknownName> + fmt::Display>(
        &self,
        key: &'static str,
        default: T,
    ) -> Result<T, DiffusionError> {
        if self.get(key).is_none() {
            return Ok(default);
        }
        self.text(key, "")?.parse().map_err(|unknown: UnknownName| self.unsupported(key, unknown.known.join(", ")))
    }

    fn clip(&self, default: bool) -> Result<Option<f64>, DiffusionError> {
        if !self.flag("clip_sample", default)? {
            return Ok(None);
        }
        let range = self.number("clip_sample_range", 1.0)?;
        if range > 0.0 { Ok(Some(range)) } else { Err(self.unsupported("clip_sample_range", "a number above 0")) }
    }

    /// It comes before `clip_sample`.
    fn threshold(&self) -> Result<Option<Threshold>, DiffusionError> {
        if !self.flag("thresholding", false)? {
            return Ok(None);
        }
        let ratio = self.number("dynamic_thresholding_ratio", Threshold::default().ratio)?;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(self.unsupported("dynamic_thresholding_ratio", "a number from 0 to 1"));
        }
        let max = self.number("sample_max_value", 1.0)?;
        if max < 1.0 {
            return Err(self.unsupported("sample_max_value", "a number of 1 or more"));
        }
        Ok(Some(Threshold { ratio, max }))
    }

    fn levels(&self) -> Result<Levels, DiffusionError> {
        for key in ["use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas"] {
            if self.flag(key, false)? {
                return Err(self.unsupported(key, "false"));
            }
        }
        match (self.flag("use_karras_sigmas", false)?, self.flag("use_exponential_sigmas", false)?) {
            (true, true) => Err(self.unsupported("use_exponential_sigmas", "false beside `use_karras_sigmas`")),
            (true, false) => Ok(Levels::Karras),
            (false, true) => Ok(Levels::Exponential),
            (false, false) => Ok(Levels::TimeSteps),
        }
    }

    /// What one class alone knows.
    fn of_class(&self, class: SchedulerClass, options: &mut SamplerOptions) -> Result<(), DiffusionError> {
        let only = |key: &'static str, expected: &'static str| match self.text(key, expected)? {
            text if text == expected => Ok(()),
            _ => Err(self.unsupported(key, expected)),
        };
        let unset = |key: &'static str| match self.get(key) {
            None => Ok(()),
            Some(_) => Err(self.unsupported(key, "null")),
        };
        match class {
            SchedulerClass::Ddpm => options.variance = self.variance()?,
            SchedulerClass::Pndm => options.skip_prk_steps = self.flag("skip_prk_steps", false)?,
            SchedulerClass::Euler => {
                only("interpolation_type", "linear")?;
                only("timestep_type", "discrete")?;
                unset("sigma_min")?;
                unset("sigma_max")?;
            }
            SchedulerClass::Dpm | SchedulerClass::UniPc => {
                let order = self.count("solver_order", 2)?;
                if !(1..=3).contains(&order) {
                    return Err(self.unsupported("solver_order", "1, 2 or 3"));
                }
                options.order = Some(order);
                options.lower_order_final = self.flag("lower_order_final", true)?;
                // Names of the other class mean the default, as in diffusers.
                options.solver_type = match self.text("solver_type", "midpoint")? {
                    "logrho" => SolverType::Midpoint,
                    _ => self.named("solver_type", SolverType::Midpoint)?,
                };
                if class == SchedulerClass::Dpm {
                    self.dpm(order, options)?;
                } else {
                    unset("sigma_min")?;
                    unset("sigma_max")?;
                    if !self.flag("predict_x0", true)? {
                        return Err(self.unsupported("predict_x0", "true"));
                    }
                    let steps = self.numbers("disable_corrector")?.unwrap_or_default();
                    options.disable_corrector = steps.into_iter().map(|step| step as usize).collect();
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn dpm(&self, order: usize, options: &mut SamplerOptions) -> Result<(), DiffusionError> {
        options.euler_at_final = self.flag("euler_at_final", false)?;
        options.stochastic = match self.text("algorithm_type", ODE)? {
            ODE | "deis" => false,
            SDE if order < 3 => true,
            SDE => return Err(self.unsupported("solver_order", "1 or 2 with `algorithm_type` sde-dpmsolver++")),
            _ => return Err(self.unsupported("algorithm_type", format!("{ODE} or {SDE}"))),
        };
        if self.get("variance_type").is_some() {
            return Err(self.unsupported("variance_type", "null"));
        }
        if self.get("lambda_min_clipped").is_some() {
            return Err(self.unsupported("lambda_min_clipped", "-Infinity"));
        }
        Ok(())
    }
}
