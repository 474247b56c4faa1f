//! `ddpm predict`: one pass of a network, and its gradients.

use std::path::Path;

use anyhow::Result;
use ddpm_kernels::loss::LossKind;
use ddpm_nn::{Classes, Mode, Parameters, config::ClassEmbedType, diffusers, layout::Role};
use ddpm_tensor::{Precision, Tensor};
use ddpm_train::model::Trained;
use serde_json::json;

use super::{
    arrays::{self, Array, Values},
    machine::{self, Machinery, on_device},
    studio::weights,
};
use crate::{
    args::PredictArgs,
    failure::{Explain, Failure},
    output::Output,
};

pub(super) fn run(args: &PredictArgs) -> Result<()> {
    let output = Output::new(args.talk);
    machine::check(&args.machine)?;
    let model = Trained::load(&args.model, weights(args.weights)).at(args.model.display())?;
    let (device, _) = machine::open(&args.machine, Precision::Strict)?;
    for note in &model.notes {
        output.note(note);
    }
    on_device!(device, device => pass(args, output, &model, &device))
}

/// All that follows once the device is known.
fn pass<B: Machinery>(args: &PredictArgs, output: Output, model: &Trained, device: &B) -> Result<()> {
    let x = arrays::read(device, &args.input)?;
    let [n, height, width, channels] = *x.shape().dims() else {
        return mismatch(&args.input, "images [N, H, W, C]", &x.shape());
    };
    let config = model.unet.config();
    if channels != config.in_channels {
        return mismatch(&args.input, &format!("{} channels, the model's", config.in_channels), &x.shape());
    }
    config.validate(height, width).at(args.input.display())?;
    let times = per_image(device, &args.timesteps, n)?;
    let total = model.scheduler.schedule.timesteps;
    if let Some(t) = times.iter().find(|t| !(0.0..total as f32).contains(*t)) {
        return mismatch(&args.timesteps, &format!("time steps from 0 to {}", total - 1), t);
    }
    let classes = classes(args, device, model, n)?;
    let target = args.target.as_deref().map(|path| arrays::read(device, path)).transpose()?;

    let parameters = Parameters::from_host(device, model.unet.layout(), &model.parameters)?;
    let mode = if args.gradients.is_some() { Mode::Differentiate } else { Mode::Infer };
    let (y, cache) = model.unet.forward(device, &parameters, x.view(), &times, classes.classes(), mode)?;
    arrays::write(device, &args.output, &y)?;
    output.result(&args.output.display().to_string())?;

    let mut mse = None;
    if let (Some(target), Some(path)) = (target, &args.target) {
        if target.shape() != y.shape() {
            return mismatch(path, &format!("the prediction's shape {}", y.shape()), &target.shape());
        }
        let scale = 1.0 / y.shape().len() as f64;
        let loss = device.loss(LossKind::L2, y.view(), target.view(), &vec![1.0; n], scale)?;
        let mean = loss.mse.iter().sum::<f64>() / n as f64;
        output.result(&format!("mse {mean:.9e}"))?;
        mse = Some(mean);
        if let (Some(cache), Some(path)) = (cache, &args.gradients) {
            let mut grads = Parameters::zeros(device, model.unet.layout())?;
            model.unet.backward(device, &parameters, cache, loss.d_output.view(), Some(&mut grads), false)?;
            let named = diffusers::named(model.unet.layout(), &grads.to_host(device)?)?;
            let learned = model.unet.layout().parameters().iter().map(|parameter| parameter.role != Role::Fixed);
            let named = named.iter().zip(learned).filter_map(|(gradient, learned)| learned.then_some(gradient));
            let arrays = named.map(|gradient| Array {
                name: &gradient.name,
                shape: gradient.shape.clone(),
                values: Values::F32(&gradient.values),
            });
            arrays::write_npz(path, arrays)?;
            output.result(&path.display().to_string())?;
        }
    }
    output.json(&json!({
        "output": args.output, "gradients": args.gradients, "mse": mse,
        "shape": y.shape().dims(), "precision": device.engine().precision, "model": model.hash,
    }))?;
    Ok(())
}

fn mismatch<T>(path: &Path, expected: &str, got: &dyn std::fmt::Display) -> Result<T> {
    Err(Failure::new(format!("expected {expected}, got {got}")).place(path.display()).into())
}

/// One number for each image; a single one is for all.
fn per_image<B: Machinery>(device: &B, path: &Path, n: usize) -> Result<Vec<f32>> {
    let values = arrays::read(device, path)?.to_vec(device)?;
    match values.len() {
        1 => Ok(vec![values[0]; n]),
        len if len == n => Ok(values),
        len => mismatch(path, &format!("one number, or {n}, as there are images"), &len),
    }
}

/// What `--classes` holds.
enum Given<B: Machinery> {
    Nothing,
    Labels(Vec<usize>),
    /// `[N, embedding]`, for `class_embed_type="identity"`.
    Vectors(Tensor<B>),
}

impl<B: Machinery> Given<B> {
    fn classes(&self) -> Classes<'_, B> {
        match self {
            Self::Nothing => Classes::None,
            Self::Labels(labels) => Classes::Labels(labels),
            Self::Vectors(vectors) => Classes::Vectors(vectors.view()),
        }
    }
}

fn classes<B: Machinery>(args: &PredictArgs, device: &B, model: &Trained, n: usize) -> Result<Given<B>> {
    let config = model.unet.config();
    match (&args.classes, config.is_class_conditional()) {
        (None, false) => Ok(Given::Nothing),
        (None, true) => Err(Failure::usage("this model was trained with classes").next("--classes c.npy").into()),
        (Some(_), false) => Err(Failure::usage("this model has no classes").next("leave --classes out").into()),
        (Some(path), true) if config.class_embed_type == Some(ClassEmbedType::Identity) => {
            Ok(Given::Vectors(arrays::read(device, path)?))
        }
        (Some(path), true) => {
            let values = per_image(device, path, n)?;
            let most = config.num_class_embeds.unwrap_or(1 << 24) as f32;
            match values.iter().find(|v| !(0.0..most).contains(*v) || v.fract() != 0.0) {
                Some(v) => mismatch(path, &format!("classes from 0 to {}", most - 1.0), v),
                None => Ok(Given::Labels(values.iter().map(|&v| v as usize).collect())),
            }
        }
    }
}
