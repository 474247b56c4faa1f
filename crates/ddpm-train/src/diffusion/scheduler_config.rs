//! diffusers' `scheduler_config.json`, read and written as text. No file is opened here.
//!
//! Of the classes, `DDPMScheduler` and `DDIMScheduler` are understood (defaults as of diffusers 0.42.1). A missing key
//! means the class's default, an unknown key is passed over as diffusers does, and a value without a counterpart is an
//! error that names it.

use serde_json::{Map, Value, json};

use super::{BetaSchedule, DiffusionError, Prediction, ScheduleSettings, Variance};
use crate::named::named_enum;
use crate::samplers::{Previous, SamplerOptions, Spacing};
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
    }
}

impl SchedulerClass {
    /// The name of the sampler that does the same.
    pub fn sampler(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
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
    /// Reads the text of a `scheduler_config.json`.
    ///
    /// # Errors
    /// Text that is no JSON object, another class, a value of the wrong type or without a counterpart.
    pub fn parse(text: &str) -> Result<Self, DiffusionError> {
        let object: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| DiffusionError::ConfigSyntax(error.to_string()))?;
        let keys = Keys(&object);

        let class = keys.class()?;
        let timesteps = keys.count("num_train_timesteps", 1000)?;
        let schedule = ScheduleSettings {
            schedule: keys.beta_schedule()?,
            timesteps,
            beta_start: keys.number("beta_start", 1e-4)?,
            beta_end: keys.number("beta_end", 0.02)?,
            zero_terminal_snr: keys.flag("rescale_betas_zero_snr", false)?,
            trained_betas: keys.numbers("trained_betas")?,
        };
        // Before `prediction_type` there was a flag.
        if !keys.flag("predict_epsilon", true)? && !object.contains_key("prediction_type") {
            return Err(keys.unsupported("predict_epsilon", "`prediction_type`: \"sample\" in its place"));
        }
        let options = SamplerOptions {
            prediction: keys.prediction()?,
            variance: keys.variance()?,
            clip: keys.clip()?,
            spacing: keys.spacing()?,
            steps_offset: keys.count("steps_offset", 0)?,
            set_alpha_to_one: keys.flag("set_alpha_to_one", true)?,
            previous: Previous::FixedStride,
            ..SamplerOptions::default()
        };
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
        let spacing = match options.spacing {
            Spacing::Leading | Spacing::Trailing | Spacing::Linspace => options.spacing.name(),
            Spacing::Quad => {
                return Err(DiffusionError::ConfigValue {
                    key: "timestep_spacing",
                    value: json!(options.spacing.name()).to_string(),
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
            },
            "clip_sample": options.clip.is_some(),
            "clip_sample_range": options.clip.unwrap_or(1.0),
            "thresholding": false,
            "timestep_spacing": spacing,
            "steps_offset": options.steps_offset,
        });
        match class {
            SchedulerClass::Ddpm => config["variance_type"] = json!(options.variance.name()),
            SchedulerClass::Ddim => config["set_alpha_to_one"] = json!(options.set_alpha_to_one),
        }
        // `Value`'s alternate form indents and cannot fail.
        Ok(format!("{config:#}\n"))
    }
}

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
        self.text("_class_name", default.name())?
            .parse()
            .map_err(|_| self.unsupported("_class_name", "DDPMScheduler or DDIMScheduler"))
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
            _ => Err(self.unsupported("variance_type", "fixed_small, fixed_small_log or fixed_large")),
        }
    }

    fn spacing(&self) -> Result<Spacing, DiffusionError> {
        match self.text("timestep_spacing", "leading")? {
            "leading" => Ok(Spacing::Leading),
            "trailing" => Ok(Spacing::Trailing),
            "linspace" => Ok(Spacing::Linspace),
            _ => Err(self.unsupported("timestep_spacing", "leading, trailing or linspace")),
        }
    }

    /// Thresholding comes before `clip_sample`. Its bound is at least 1 and at most `sample_max_value`: with 1 it is
    /// plain clipping.
    fn clip(&self) -> Result<Option<f64>, DiffusionError> {
        if self.flag("thresholding", false)? {
            return if self.number("sample_max_value", 1.0)? == 1.0 {
                Ok(Some(1.0))
            } else {
                Err(self.unsupported("thresholding", "false, or true with `sample_max_value` 1 (which is clipping)"))
            };
        }
        if !self.flag("clip_sample", true)? {
            return Ok(None);
        }
        let range = self.number("clip_sample_range", 1.0)?;
        if range > 0.0 { Ok(Some(range)) } else { Err(self.unsupported("clip_sample_range", "a number above 0")) }
    }
}
