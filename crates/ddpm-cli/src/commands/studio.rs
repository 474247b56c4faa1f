//! What every command that draws with a model needs: the model, the device, the sampler, the classes.

use std::{ops::Deref, path::Path};

use anyhow::Result;
use ddpm_kernels::KernelError;
use ddpm_nn::Parameters;
use ddpm_tensor::{Precision, Tensor, random::Purpose};
use ddpm_train::{
    checkpoint::Weights,
    data::{self, DataSet, Size},
    diffusion::{Schedule, forward::Noising},
    model::Trained,
    samplers::{self, Away, Guidance, Levels, Plan, Sampler, SamplerOptions, Spacing, Threshold},
};
use serde_json::{Value, json};

use super::{
    classes::{self, Wanted, WithoutClass, null_class},
    drawing::{Begin, Drawing, Drawn, Film, batch_for},
    machine::{self, Machinery, Opened},
};
use crate::{
    args::{How, Machine, WeightsName},
    failure::{Explain, Failure},
    output::Output,
    progress::Progress,
};

/// Steps where nobody says how many.
const STEPS: usize = 50;

/// A model with all that drawing takes but a device.
pub(super) struct Ready {
    output: Output,
    place: String,
    which: Weights,
    seed: u64,
    batch: Option<usize>,
    guidance: Option<Guidance>,
    /// What guidance leads away from, where that is another model.
    weaker: Option<Trained>,
    /// The model.
    pub(super) model: Trained,
    /// The sampler.
    pub(super) sampler: &'static Sampler,
    /// What it was told.
    pub(super) options: SamplerOptions,
    /// The noise schedule.
    pub(super) schedule: Schedule,
}

/// The same on a device.
pub(super) struct Studio<B: Machinery> {
    ready: Ready,
    /// The device.
    pub(super) device: B,
    /// The model's parameters on the device.
    parameters: Parameters<B>,
    /// The weaker model's.
    weaker_parameters: Option<Parameters<B>>,
}

impl<B: Machinery> Deref for Studio<B> {
    type Target = Ready;

    fn deref(&self) -> &Ready {
        &self.ready
    }
}

/// What is to be drawn beyond the plan.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What the first step takes.
    pub(super) begin: Begin<'a>,
    /// The class of each image.
    pub(super) labels: Option<&'a [usize]>,
    /// Whether there is to be a film, and of what.
    pub(super) film: Film,
    /// Columns of the film's grids.
    pub(super) columns: usize,
}

impl Ready {
    /// Loads a model and prepares for drawing as the flags say, and opens the device.
    pub(super) fn open(path: &Path, how: &How, machine: &Machine, output: Output) -> Result<(Self, Opened)> {
        let given = check(how)?;
        machine::check(machine)?;
        let which = weights(how.weights);
        let place = path.display().to_string();
        let model = Trained::load(path, which).at(&place)?;
        let (device, why) = machine::open(machine, Precision::F32)?;
        for note in model.notes.iter().chain(&why) {
            output.note(note);
        }
        let schedule = model.scheduler.schedule.build().at(&place)?;
        let sampler = sampler(given, &model)?;
        let options = options(how, sampler, &model, &schedule)?;
        let guidance = guidance(how, &model).map_err(|failure| failure.place(&place))?;
        let weaker = match guidance.as_ref().map(|guidance| guidance.away) {
            Some(Away::Weaker) => Some(weaker(how, path, &model)?),
            _ => None,
        };
        let (seed, batch) = (how.seed, how.batch.map(|batch| batch as usize));
        Ok((Self { output, place, which, seed, batch, guidance, weaker, model, sampler, options, schedule }, device))
    }

    /// On a device.
    pub(super) fn on<B: Machinery>(self, device: B) -> Result<Studio<B>> {
        let of = |model: &Trained| -> Result<_> {
            let parameters = Parameters::from_host(&device, model.unet.layout(), &model.parameters)?;
            // they stay as they are to the end
            B::freeze(parameters.buffer());
            Ok(parameters)
        };
        let (parameters, weaker_parameters) = (of(&self.model)?, self.weaker.as_ref().map(of).transpose()?);
        Ok(Studio { ready: self, device, parameters, weaker_parameters })
    }

    /// The sampler's steps.
    pub(super) fn plan(&self) -> Result<Plan> {
        let place = "--sampler, --steps, --eta and --spacing together";
        (self.sampler.plan)(&self.schedule, &self.options).at(place)
    }

    /// Channels of its pictures.
    pub(super) fn channels(&self) -> Result<usize> {
        let (said, channels) = (self.model.unet.config().out_channels, self.model.channels());
        if said != self.model.said_channels() {
            let variance = self.model.scheduler.options.variance.name();
            let what = format!("the network predicts {said} channels of {channels}, and its variance is {variance}");
            return Err(Failure::new(what).place(&self.place).next("ddpm predict works with it").into());
        }
        Ok(channels)
    }

    /// Height, width and channels of its pictures.
    pub(super) fn image(&self) -> Result<[usize; 3]> {
        self.channels()?;
        self.model.image().ok_or_else(|| {
            Failure::new("the model does not say how large its pictures are")
                .place(&self.place)
                .next("give latents of the wanted size: ddpm sample --noise x_T.npy")
                .into()
        })
    }

    /// The classes asked for.
    pub(super) fn classes(&self, how: &How, without: WithoutClass) -> Result<Wanted> {
        classes::wanted(how, &self.model, without).map_err(|failure| failure.place(&self.place).into())
    }

    /// S, the steps of the whole way.
    pub(super) fn steps(&self) -> usize {
        self.options.steps.unwrap_or(self.schedule.time_steps())
    }

    /// The sampler's steps without the first of them.
    pub(super) fn plan_without(&self, skip: usize) -> Result<Plan> {
        let options = SamplerOptions { skip, ..self.options.clone() };
        (self.sampler.plan)(&self.schedule, &options).at("--sampler, --steps and --spacing together")
    }

    /// The sampler's steps from the first that is no later than a time step.
    pub(super) fn plan_from(&self, time_step: f64) -> Result<Plan> {
        let (mut low, mut high) = (0, self.steps() - 1);
        while low < high {
            let skip = usize::midpoint(low, high);
            // Of fewer steps than S, where several fall on one time step, not that many can be left out.
            let late = self.plan_without(skip).is_ok_and(|plan| plan.steps[0].time_step > time_step);
            (low, high) = if late { (skip + 1, high) } else { (low, skip) };
        }
        self.plan_without(low)
    }

    /// A picture in the model's form, `[H, W, C]`, with a line if it had to be cut or resized.
    pub(super) fn picture(&self, path: &Path, [height, width, channels]: [usize; 3]) -> Result<Vec<f32>> {
        let picture = data::picture(path, Some(Size { height, width }), Some(channels)).at(path.display())?;
        if let Some((h, w)) = picture.from {
            self.output.note(&format!("{}: {h}x{w} pixels, made {height}x{width}", path.display()));
        }
        Ok(picture.values)
    }

    /// Where randomness comes from.
    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// Pictures that are in memory at once.
    pub(super) fn batch(&self, image: [usize; 3]) -> usize {
        self.batch.unwrap_or_else(|| batch_for(image))
    }

    /// What pictures say that they were made with.
    pub(super) fn about(&self) -> Value {
        let of = |away: fn(Away) -> bool| self.guidance.as_ref().filter(|guidance| away(guidance.away));
        let (guidance, autoguidance) = (of(|away| away != Away::Weaker), of(|away| away == Away::Weaker));
        json!({
            "sampler": self.sampler.name,
            "steps": self.options.steps.unwrap_or(self.schedule.time_steps()),
            "eta": self.options.eta,
            "spacing": self.options.spacing.unwrap_or(self.sampler.spacing).name(),
            "levels": self.options.levels.name(),
            "churn": self.options.churn,
            "clip": self.options.clip,
            "threshold": self.options.threshold.map(|threshold| threshold.ratio),
            "guidance": guidance.map(|guidance| guidance.weight),
            "autoguidance": autoguidance.map(|guidance| guidance.weight),
            "weaker": self.weaker.as_ref().map(|weaker| &weaker.hash),
            "guidance_rescale": self.guidance.as_ref().map(|guidance| guidance.rescale),
            "seed": self.seed,
            "weights": self.which.to_string(),
            "model": self.model.hash,
            "model_step": self.model.step,
            "program": concat!("ddpm ", env!("CARGO_PKG_VERSION")),
        })
    }
}

impl<B: Machinery> Studio<B> {
    /// The model's parameters on the device.
    pub(super) fn parameters(&self) -> &Parameters<B> {
        &self.parameters
    }

    /// The class of each of `n` pictures of the data from `first` on, or that of none where the data says nothing of classes;
    /// nothing for a model without.
    pub(super) fn labels_of(&self, data: &DataSet, first: usize, n: usize) -> Result<Option<Vec<usize>>> {
        if !self.model.unet.config().is_class_conditional() {
            return Ok(None);
        }
        match (data.labels(), self.model.null_class) {
            (Some(labels), _) => Ok(Some(labels[first..first + n].iter().map(|&label| label as usize).collect())),
            (None, Some(null)) => Ok(Some(vec![null; n])),
            (None, None) => Err(Failure::usage("this model needs the classes of the pictures, and the data has none")
                .place(data.path().display())
                .next("--data with labels: a folder with one sub-folder a class, or an .npz with labels")
                .into()),
        }
    }

    /// x_t of images `[N, H, W, C]` at a plan's first step; with one noise for all if it is shared.
    pub(super) fn noised(&self, plan: &Plan, images: &[f32], image: [usize; 3], shared: bool) -> Result<Vec<f32>> {
        let [height, width, channels] = image;
        let len = height * width * channels;
        let alpha_bar = plan.steps.first().map_or(1.0, |step| step.alpha_bar);
        let factors = Noising { signal: alpha_bar.sqrt(), noise: (1.0 - alpha_bar).sqrt() }.to_f32();
        let mut x_t = Vec::with_capacity(images.len());
        for (i, x_0) in images.chunks_exact(len).enumerate() {
            let first = if shared { 0 } else { i as u64 };
            let address = samplers::Images { seed: self.seed, first }.address(Purpose::Latent, 0);
            let x_0 = Tensor::from_slice(&self.device, [1, height, width, channels], x_0)?;
            x_t.extend(self.device.noise(x_0.view(), &[factors], address)?.0.to_vec(&self.device)?);
        }
        Ok(x_t)
    }

    /// The latents that DDIM takes to images `[N, H, W, C]`.
    pub(super) fn invert(&self, x_0: Tensor<B>, labels: Option<&[usize]>, iterations: usize) -> Result<Vec<f32>> {
        let plan = samplers::invert::plan(&self.schedule, &self.options, iterations).at("--steps and --spacing")?;
        let [_, height, width, channels] = x_0.shape().nhwc();
        let drawing = self.drawing(&plan, [height, width, channels]);
        let mut progress = Progress::new(self.output, "inverting", 0, plan.steps.len() as u64);
        let x_t = plan.run_from(
            &self.device,
            x_0,
            samplers::Images { seed: self.seed, first: 0 },
            false,
            |x, t| Ok::<_, Stop>(drawing.output(x, t, labels)?),
            |moment| {
                progress.at(moment.step as u64 + 1, String::new);
                Ok(())
            },
        );
        progress.finish();
        let drawn = Drawn { values: x_t.map_err(|Stop(error)| error)?.to_vec(&self.device)?, frames: Vec::new() };
        drawn.check()?;
        Ok(drawn.values)
    }

    /// The network along a plan, without classes yet.
    pub(super) fn drawing<'a>(&'a self, plan: &'a Plan, image: [usize; 3]) -> Drawing<'a, B> {
        Drawing {
            backend: &self.device,
            unet: &self.model.unet,
            parameters: &self.parameters,
            plan,
            image,
            seed: self.seed,
            first: 0,
            batch: self.batch(image),
            begin: Begin::Seed,
            classes: None,
            guidance: self.guidance.as_ref(),
            weaker: self.weaker.as_ref().map(|model| &model.unet).zip(self.weaker_parameters.as_ref()),
            film: Film::None,
            columns: 1,
        }
    }

    /// Draws `n` images along a plan, with progress.
    pub(super) fn draw(&self, plan: &Plan, image: [usize; 3], n: usize, asked: Asked<'_>) -> Result<Drawn> {
        let batch = self.batch(image);
        let drawing = Drawing {
            begin: asked.begin,
            classes: asked.labels,
            film: asked.film,
            columns: asked.columns,
            ..self.drawing(plan, image)
        };
        let total = (n.div_ceil(batch) * plan.steps.len()) as u64;
        let mut progress = Progress::new(self.output, "sampling", 0, total);
        let drawn = drawing.run(n, &mut |done, _| {
            progress.at(done, || format!("{n} pictures by {}", self.sampler.name));
            Ok(())
        })?;
        progress.finish();
        Ok(drawn)
    }
}

/// Any error that ends a walk along a plan.
pub(super) struct Stop(pub(super) anyhow::Error);

impl From<KernelError> for Stop {
    fn from(error: KernelError) -> Self {
        Self(error.into())
    }
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

/// What can be refused before any file is opened.
fn check(how: &How) -> Result<Option<&'static Sampler>> {
    let refuse = |what: String| -> Result<Option<&'static Sampler>> { Err(Failure::usage(what).into()) };
    if !(0.0..=1.0).contains(&how.eta) {
        return refuse(format!("--eta {} is not allowed; allowed: 0 to 1", how.eta));
    }
    if !(how.churn >= 0.0 && how.churn.is_finite()) {
        return refuse(format!("--churn {} is not allowed; allowed: 0 or more", how.churn));
    }
    if let Some(ratio) = how.threshold.filter(|ratio| !(0.0..=1.0).contains(ratio)) {
        return refuse(format!("--threshold {ratio} is not allowed; allowed: 0 to 1"));
    }
    for (flag, weight) in [("--guidance", how.guidance), ("--autoguidance", how.autoguidance)] {
        if let Some(weight) = weight.filter(|weight| !weight.is_finite()) {
            return refuse(format!("{flag} {weight} is not allowed; allowed: any finite number"));
        }
    }
    if !(0.0..=1.0).contains(&how.guidance_rescale) {
        return refuse(format!("--guidance-rescale {} is not allowed; allowed: 0 to 1", how.guidance_rescale));
    }
    interval(how)?;
    how.sampler.as_deref().map(samplers::find).transpose().at("--sampler")
}

/// The sampler asked for, or the model's own, but for the paper's, which takes every step.
fn sampler(given: Option<&'static Sampler>, model: &Trained) -> Result<&'static Sampler> {
    match (given, model.scheduler.sampler()) {
        (Some(sampler), _) => Ok(sampler),
        (None, "ddpm") => Ok(samplers::find("ddim")?),
        (None, own) => Ok(samplers::find(own)?),
    }
}

fn options(how: &How, sampler: &Sampler, model: &Trained, schedule: &Schedule) -> Result<SamplerOptions> {
    let mut options = model.scheduler.options.clone();
    if let Some(name) = &how.spacing {
        space(name, sampler, &mut options)?;
    }
    if let Some(ratio) = how.threshold {
        options.threshold = Some(Threshold { ratio, ..Threshold::default() });
    }
    if how.no_clip {
        (options.clip, options.threshold) = (None, None);
    }
    let total = schedule.time_steps();
    (options.eta, options.churn) = (how.eta, how.churn);
    options.steps = match (how.steps, sampler.name) {
        (Some(steps), _) => Some(steps as usize),
        (None, "ddpm") => None,
        (None, _) => Some(STEPS.min(total)),
    };
    if let Some(steps) = options.steps
        && steps > total
    {
        let what = format!("--steps {steps} is not allowed; allowed: 1 to {total}, the model's time steps");
        return Err(Failure::usage(what).into());
    }
    Ok(options)
}

/// What `--spacing` names: time steps, or noise levels for samplers that take them.
fn space(name: &str, sampler: &Sampler, options: &mut SamplerOptions) -> Result<()> {
    match name.parse::<Levels>() {
        Ok(levels) if levels != Levels::TimeSteps => {
            if !sampler.takes_levels {
                let takers = samplers::SAMPLERS.iter().filter(|known| known.takes_levels).map(|known| known.name);
                let takers = takers.collect::<Vec<_>>().join(", ");
                return Err(Failure::usage(format!("{} visits time steps, not {name} noise levels", sampler.name))
                    .place("--spacing")
                    .next(format!("these do: {takers}"))
                    .into());
            }
            options.levels = levels;
        }
        _ => {
            let mut spacing = name.parse::<Spacing>();
            if let Err(unknown) = &mut spacing {
                unknown.known.extend([Levels::Karras.name(), Levels::Exponential.name()]);
            }
            options.spacing = Some(spacing.at("--spacing")?);
            options.levels = Levels::TimeSteps;
        }
    }
    Ok(())
}

/// The weights that a flag names.
pub(super) fn weights(name: WeightsName) -> Weights {
    match name {
        WeightsName::Ema => Weights::Ema,
        WeightsName::Raw => Weights::Raw,
        WeightsName::Early => Weights::Early,
    }
}

/// `--guidance-interval`.
fn interval(how: &How) -> Result<(f64, f64), Failure> {
    let Some(text) = &how.guidance_interval else { return Ok((0.0, f64::INFINITY)) };
    let ends = text.split_once("..").and_then(|(from, to)| {
        let end = |text: &str, open: f64| if text.trim().is_empty() { Some(open) } else { text.trim().parse().ok() };
        Some((end(from, 0.0)?, end(to, f64::INFINITY)?))
    });
    match ends {
        Some((from, to)) if from <= to => Ok((from, to)),
        _ => Err(Failure::usage(format!("--guidance-interval {text} is not allowed"))
            .next("two time steps, the lower first, such as 100..800; either may be left out")),
    }
}

/// The guidance that is asked for.
fn guidance(how: &How, model: &Trained) -> Result<Option<Guidance>, Failure> {
    let guidance = match (how.guidance, how.autoguidance) {
        (Some(weight), _) => Guidance::new(no_class(how, model)?, weight),
        (None, Some(weight)) => Guidance::new(Away::Weaker, weight),
        (None, None) => return Ok(None),
    };
    let variance = model.scheduler.options.variance.is_learned();
    Ok(Some(Guidance { rescale: how.guidance_rescale, interval: interval(how)?, variance, ..guidance }))
}

/// The class that stands for none.
fn no_class(how: &How, model: &Trained) -> Result<Away, Failure> {
    if !model.unet.config().is_class_conditional() {
        return Err(Failure::usage("this model has no classes to be guided by")
            .next("leave --guidance out; --autoguidance needs no classes"));
    }
    null_class(how, model)?.map(Away::NoClass).ok_or_else(|| {
        Failure::usage("this model was not trained without classes, which guidance needs")
            .next("train with --set data.class_dropout=0.1, or say --null-class K if one class stands for none")
    })
}

/// The model that autoguidance leads away from: the one that is named, or the same at an earlier step.
fn weaker(how: &How, path: &Path, model: &Trained) -> Result<Trained> {
    let Some(weaker) = &how.weaker else {
        let hint = "name an earlier checkpoint or a smaller model by --weaker; train --set ema.early=STEP keeps weights for it";
        return Trained::load(path, Weights::Early).at(path.display()).next(hint);
    };
    let place = weaker.display();
    let weaker = Trained::load(weaker, weights(how.weights)).at(place.to_string())?;
    match model.unlike(&weaker) {
        Some(why) => {
            let what = format!("it cannot be what {} is led away from: {why}", path.display());
            Err(Failure::new(what).place(place).next("an earlier checkpoint of the same run always can").into())
        }
        None => Ok(weaker),
    }
}
