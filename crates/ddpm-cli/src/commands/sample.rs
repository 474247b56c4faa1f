//! `ddpm sample`: pictures from a model.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ddpm_nn::Parameters;
use ddpm_tensor::Precision;
use ddpm_train::{
    checkpoint::Weights,
    model::Trained,
    samplers::{self, Sampler, SamplerOptions, Spacing},
};
use serde_json::{Value, json};

use super::{
    arrays::{self, Array, Values},
    drawing::{Drawing, Drawn, batch_for},
    machine::{self, Machinery, on_device},
};
use crate::{
    args::{SampleArgs, WeightsName},
    failure::{Explain, Failure},
    output::Output,
    picture::{film, grid, png},
    progress::Progress,
};

/// Steps where nobody says how many.
const STEPS: usize = 50;

/// Samplers that have a name but no code yet.
const LATER: [&str; 9] = ["pndm", "dpm++2m", "dpm++3m", "dpm++sde", "euler", "euler-a", "heun", "unipc", "lms"];

/// In what form the images are wanted.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Png,
    Gif,
    Npy,
    Npz,
    Folder,
}

impl Form {
    fn of(path: &Path) -> Result<Self> {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        Ok(match extension.as_deref() {
            Some("png") => Self::Png,
            Some("gif") => Self::Gif,
            Some("npy") => Self::Npy,
            Some("npz") => Self::Npz,
            Some(other @ ("jpg" | "jpeg" | "webp" | "bmp" | "tif" | "tiff" | "mp4" | "apng")) => {
                return Err(Failure::usage(format!("pictures are not written as .{other}"))
                    .place(path.display())
                    .next("use .png, .gif, .npy, .npz, or a folder's name")
                    .into());
            }
            _ => Self::Folder,
        })
    }
}

pub(super) fn run(args: &SampleArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let (sampler, form) = check(args)?;
    machine::check(&args.machine)?;

    let which = weights(args.weights);
    let model = Trained::load(&args.model, which).at(args.model.display())?;
    let (device, why) = machine::open(&args.machine, Precision::F32)?;
    for note in model.notes.iter().chain(&why) {
        output.note(note);
    }
    on_device!(device, device => draw(args, output, sampler, &form, &model, &device))
}

/// All that follows once the device is known.
fn draw<B: Machinery>(
    args: &SampleArgs,
    output: Output,
    sampler: &Sampler,
    form: &Form,
    model: &Trained,
    device: &B,
) -> Result<()> {
    let (options, plan) = plan(args, sampler, model)?;
    let noise = args.noise.as_deref().map(|path| read_noise(device, path)).transpose()?;
    let image = image_size(args, model, noise.as_ref())?;
    model.unet.config().validate(image[0], image[1]).at(args.model.display())?;
    let n = noise.as_ref().map_or(args.n as usize, |noise| noise.n);
    let labels = classes(args, model, n)?;
    make_place(&args.out, form)?;

    let parameters = Parameters::from_host(device, model.unet.layout(), &model.parameters)?;
    let batch = args.batch.map_or_else(|| batch_for(image), |batch| batch as usize);
    let drawing = Drawing {
        backend: device,
        unet: &model.unet,
        parameters: &parameters,
        plan: &plan,
        image,
        seed: args.seed,
        batch,
        noise: noise.as_ref().map(|noise| noise.values.as_slice()),
        classes: labels.as_deref(),
        film: *form == Form::Gif,
    };
    let total = (n.div_ceil(batch) * plan.steps.len()) as u64;
    let mut progress = Progress::new(output, "sampling", 0, total);
    let drawn = drawing.run(n, &mut |done, _| {
        progress.at(done, || format!("{n} pictures by {}", sampler.name));
        Ok(())
    })?;
    progress.finish();

    let about = json!({
        "sampler": sampler.name,
        "steps": plan.steps.len(),
        "eta": options.eta,
        "spacing": options.spacing.name(),
        "seed": args.seed,
        "weights": weights(args.weights).to_string(),
        "model": model.hash,
        "model_step": model.step,
        "noise": noise.as_ref().map(|noise| noise.hash.clone()),
        "program": concat!("ddpm ", env!("CARGO_PKG_VERSION")),
    });
    let files = write(args, form, image, &drawn, labels.as_deref(), model, &about)?;
    for file in &files.listed {
        output.result(&file.display().to_string())?;
    }
    output.json(&json!({
        "out": args.out, "n": n, "height": image[0], "width": image[1], "channels": image[2],
        "files": files.count, "settings": about,
    }))?;
    Ok(())
}

/// What can be refused before any file is opened.
fn check(args: &SampleArgs) -> Result<(&'static Sampler, Form)> {
    if args.guidance.is_some() {
        return Err(Failure::not_built("--guidance").next("leave it out: --class draws a class without it").into());
    }
    if !(0.0..=1.0).contains(&args.eta) {
        return Err(Failure::usage(format!("--eta {} is not allowed; allowed: 0 to 1", args.eta)).into());
    }
    if LATER.contains(&args.sampler.as_str()) {
        return Err(Failure::not_built(format!("the sampler {}", args.sampler)).next("use ddpm or ddim").into());
    }
    let sampler = samplers::find(&args.sampler).at("--sampler")?;
    Ok((sampler, Form::of(&args.out)?))
}

/// The weights that a flag names.
pub(super) fn weights(name: WeightsName) -> Weights {
    match name {
        WeightsName::Ema => Weights::Ema,
        WeightsName::Raw => Weights::Raw,
    }
}

fn plan(args: &SampleArgs, sampler: &Sampler, model: &Trained) -> Result<(SamplerOptions, samplers::Plan)> {
    let schedule = model.scheduler.schedule.build().at(args.model.display())?;
    let mut options = model.scheduler.options.clone();
    if let Some(name) = &args.spacing {
        options.spacing = name.parse::<Spacing>().at("--spacing")?;
    }
    let total = schedule.time_steps();
    options.eta = args.eta;
    options.steps = match (args.steps, sampler.name) {
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
    let plan = (sampler.plan)(&schedule, &options).at("--sampler, --steps, --eta and --spacing together")?;
    Ok((options, plan))
}

/// Latents from a file.
struct Noise {
    n: usize,
    image: [usize; 3],
    values: Vec<f32>,
    hash: String,
}

fn read_noise<B: Machinery>(device: &B, path: &Path) -> Result<Noise> {
    let tensor = arrays::read(device, path)?;
    let [n, height, width, channels] = *tensor.shape().dims() else {
        let what = format!("latents are [N, H, W, C], these are {}", tensor.shape());
        return Err(Failure::new(what).place(path.display()).into());
    };
    let values = tensor.to_vec(device)?;
    if n == 0 || values.iter().any(|x| !x.is_finite()) {
        return Err(Failure::new("latents must be finite numbers, at least one image of them")
            .place(path.display())
            .into());
    }
    let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
    Ok(Noise { n, image: [height, width, channels], values, hash: blake3::hash(&bytes).to_hex().to_string() })
}

/// Height, width and channels: the model's, or the latents' where it was made for any size.
fn image_size(args: &SampleArgs, model: &Trained, noise: Option<&Noise>) -> Result<[usize; 3]> {
    let config = model.unet.config();
    if config.in_channels != config.out_channels {
        let what = format!("the network predicts {} channels of {}", config.out_channels, config.in_channels);
        return Err(Failure::new(what).place(args.model.display()).next("ddpm predict works with it").into());
    }
    match (noise, model.image()) {
        (None, Some(image)) => Ok(image),
        (None, None) => Err(Failure::new("the model does not say how large its pictures are")
            .place(args.model.display())
            .next("give latents of the wanted size: --noise x_T.npy")
            .into()),
        (Some(noise), _) if noise.image[2] != config.in_channels => {
            let what = format!("latents of {} channels for a model of {}", noise.image[2], config.in_channels);
            Err(Failure::new(what).place("--noise").into())
        }
        (Some(noise), _) => Ok(noise.image),
    }
}

/// The class of every image: the one asked for, or all in turn.
fn classes(args: &SampleArgs, model: &Trained, n: usize) -> Result<Option<Vec<usize>>> {
    let config = model.unet.config();
    let refuse = |what: String, hint: String| -> Result<Option<Vec<usize>>> {
        Err(Failure::usage(what).place(args.model.display()).next(hint).into())
    };
    let Some(wanted) = &args.class else {
        if !config.is_class_conditional() {
            return Ok(None);
        }
        return match config.num_class_embeds {
            Some(count) => Ok(Some((0..n).map(|i| i % count).collect())),
            None => refuse("this model needs a class".to_owned(), "--class K".to_owned()),
        };
    };
    if !config.is_class_conditional() {
        return refuse("this model has no classes".to_owned(), "leave --class out".to_owned());
    }
    let known = |name: &String| name.eq_ignore_ascii_case(wanted);
    let class = match wanted.parse::<usize>() {
        Ok(class) => class,
        Err(_) => match model.classes.iter().position(known) {
            Some(class) => class,
            None => return refuse(format!("there is no class `{wanted}`"), names(model)),
        },
    };
    if let Some(count) = config.num_class_embeds
        && class >= count
    {
        return refuse(format!("--class {class} is not allowed; allowed: 0 to {}", count - 1), names(model));
    }
    Ok(Some(vec![class; n]))
}

fn names(model: &Trained) -> String {
    if model.classes.is_empty() {
        return "its classes have numbers only".to_owned();
    }
    let named = model.classes.iter().enumerate().map(|(i, name)| format!("{i} {name}"));
    format!("its classes: {}", named.collect::<Vec<_>>().join(", "))
}

/// Makes the folder that the result goes into, so that a bad place is known before the work.
fn make_place(out: &Path, form: &Form) -> Result<()> {
    let folder = match form {
        Form::Folder => Some(out),
        _ => out.parent().filter(|folder| !folder.as_os_str().is_empty()),
    };
    if *form != Form::Folder && out.is_dir() {
        return Err(Failure::new("there is a folder of this name").place(out.display()).into());
    }
    match folder {
        Some(folder) => std::fs::create_dir_all(folder).at(folder.display()).next("choose another --out"),
        None => Ok(()),
    }
}

/// What was written: names for people, and how many.
struct Files {
    listed: Vec<PathBuf>,
    count: usize,
}

fn write(
    args: &SampleArgs,
    form: &Form,
    image: [usize; 3],
    drawn: &Drawn,
    labels: Option<&[usize]>,
    model: &Trained,
    about: &Value,
) -> Result<Files> {
    let images = drawn.images(image);
    let [height, width, channels] = image;
    let shape = [images.n, height, width, channels];
    match form {
        Form::Png => {
            let index = if images.n == 1 { json!(0) } else { json!([0, images.n - 1]) };
            let text = about_picture(about, &index, labels, model);
            png::write(&args.out, &grid::grid(images)?, &text).at(args.out.display())?;
        }
        Form::Gif => film::write(&args.out, &drawn.frames).at(args.out.display())?,
        Form::Npy => arrays::write_values(&args.out, &shape, images.values)?,
        Form::Npz => {
            let mut all = vec![Array { name: "images", shape: shape.to_vec(), values: Values::F32(images.values) }];
            if let Some(labels) = labels {
                let values = Values::I64(labels.iter().map(|&label| label as i64).collect());
                all.push(Array { name: "labels", shape: vec![labels.len()], values });
            }
            arrays::write_npz(&args.out, all)?;
        }
        Form::Folder => {
            for i in 0..images.n {
                let path = args.out.join(format!("{i:06}.png"));
                let text = about_picture(about, &json!(i), labels.map(|labels| &labels[i..=i]), model);
                png::write(&path, &grid::grid(images.one(i))?, &text).at(path.display())?;
            }
        }
    }
    let count = if *form == Form::Folder { images.n } else { 1 };
    Ok(Files { listed: vec![args.out.clone()], count })
}

/// What a PNG says about itself: one JSON object that `ddpm info` reads.
pub(super) fn about_picture(about: &Value, index: &Value, labels: Option<&[usize]>, model: &Trained) -> png::Text {
    let mut about = about.clone();
    about["index"] = index.clone();
    if let Some(labels) = labels {
        about["class"] = match labels {
            [one, rest @ ..] if rest.iter().all(|label| label == one) => {
                json!(model.classes.get(*one).map_or_else(|| one.to_string(), Clone::clone))
            }
            many => json!(many),
        };
    }
    vec![
        ("Software".to_owned(), concat!("ddpm ", env!("CARGO_PKG_VERSION")).to_owned()),
        ("ddpm".to_owned(), about.to_string()),
    ]
}
