//! `ddpm interpolate`: pictures between two.

use std::path::Path;

use anyhow::Result;
use ddpm_tensor::Tensor;
use ddpm_train::samplers::{self, Images};
use serde_json::json;

use super::{
    arrays,
    classes::WithoutClass,
    drawing::{Begin, Film},
    machine::{Machinery, on_device},
    sample::{self, Form, make_place},
    studio::{Asked, Ready, Studio},
};
use crate::{
    args::{InterpolateArgs, Space},
    failure::Failure,
    output::Output,
    picture::grid,
};

/// Iterations of the inversion that finds a picture's latent.
const ITERATIONS: usize = 4;

pub(super) fn run(args: &InterpolateArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let form = Form::of(&args.out)?;
    if args.space == Space::Slerp && args.at.is_some() {
        return Err(Failure::usage("--at belongs to --space xt: latents have all the noise").into());
    }
    let (ready, device) = Ready::open(&args.model, &args.how, &args.machine, output)?;
    on_device!(device, device => between(args, output, &form, &ready.on(device)?))
}

/// All that follows once the device is known.
fn between<B: Machinery>(args: &InterpolateArgs, output: Output, form: &Form, studio: &Studio<B>) -> Result<()> {
    let image = studio.image()?;
    let n = args.n as usize;
    let classes = studio.classes(&args.how, WithoutClass::None)?;
    let labels = classes.labels(n);
    let parts: Vec<f64> = (0..n).map(|i| i as f64 / (n - 1) as f64).collect();

    let (plan, between) = match args.space {
        Space::Xt => {
            let total = studio.schedule.time_steps();
            let at = args.at.map_or(total / 2, |at| at as usize);
            if at >= total {
                let what = format!("--at {at} is not allowed; allowed: 0 to {}", total - 1);
                return Err(Failure::usage(what).into());
            }
            let plan = studio.plan_from(at as f64)?;
            let pictures = [&args.a, &args.b].map(|path| studio.picture(Path::new(path), image));
            let [a, b] = pictures;
            // Two pictures of one batch: each has its own noise.
            let x_t = studio.noised(&plan, &[a?, b?].concat(), image, false)?;
            let (a, b) = x_t.split_at(x_t.len() / 2);
            (plan, mixed(a, b, &parts))
        }
        Space::Slerp => {
            let plan = studio.plan()?;
            let (a, b) = (latent(studio, args, &args.a, image)?, latent(studio, args, &args.b, image)?);
            (plan, parts.iter().flat_map(|&part| slerp(&a, &b, part)).collect())
        }
    };
    make_place(&args.out, form)?;
    let begin = if args.space == Space::Xt { Begin::Noised(&between) } else { Begin::Latents(&between) };
    let asked = Asked { begin, labels: labels.as_deref(), film: Film::None, columns: n };
    let mut drawn = studio.draw(&plan, image, n, asked)?;
    if *form == Form::Gif {
        // There and back.
        let images = drawn.images(image);
        let turn = (0..n).chain((1..n - 1).rev());
        drawn.frames = turn.map(|i| grid::grid(images.one(i))).collect::<Result<_>>()?;
    }

    let mut about = studio.about();
    about["command"] = json!("interpolate");
    about["space"] = json!(if args.space == Space::Xt { "xt" } else { "slerp" });
    about["at"] = json!(plan.steps.first().map(|step| step.time_step));
    let files = sample::write(&args.out, form, image, &drawn, n, labels.as_deref(), &studio.model, &about)?;
    files.tell(output, &json!({ "out": args.out, "n": n, "files": files.count, "settings": about }))
}

/// (1−λ) a + λ b for each part λ, one after the other.
pub(super) fn mixed(a: &[f32], b: &[f32], parts: &[f64]) -> Vec<f32> {
    let mix =
        |part: f64| a.iter().zip(b).map(move |(a, b)| ((1.0 - part) * f64::from(*a) + part * f64::from(*b)) as f32);
    parts.iter().flat_map(|&part| mix(part)).collect()
}

/// The latent of a seed, of a file, or of a picture by inversion.
fn latent<B: Machinery>(studio: &Studio<B>, args: &InterpolateArgs, name: &str, image: [usize; 3]) -> Result<Vec<f32>> {
    let path = Path::new(name);
    let [height, width, channels] = image;
    let shape = [1, height, width, channels];
    if !path.exists()
        && let Ok(seed) = name.parse::<u64>()
    {
        return Ok(samplers::latents(&studio.device, shape.into(), Images { seed, first: 0 })?.to_vec(&studio.device)?);
    }
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) {
        let tensor = arrays::read(&studio.device, path)?;
        if tensor.shape() != shape.into() && tensor.shape() != image.into() {
            let what =
                format!("one latent of the model is {height} x {width} x {channels}, this is {}", tensor.shape());
            return Err(Failure::new(what).place(path.display()).into());
        }
        return Ok(tensor.to_vec(&studio.device)?);
    }
    let x_0 = Tensor::from_slice(&studio.device, shape, &studio.picture(path, image)?)?;
    let classes = studio.classes(&args.how, WithoutClass::None)?;
    studio.invert(x_0, classes.labels(1).as_deref(), ITERATIONS)
}

/// The part of the way from `a` to `b` along the great circle (Shoemake 1985); the straight way where they have one direction.
fn slerp(a: &[f32], b: &[f32], part: f64) -> Vec<f32> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let angle = cosine.clamp(-1.0, 1.0).acos();
    let (from_a, from_b) = if angle.is_finite() && angle.sin() > 1e-6 {
        (((1.0 - part) * angle).sin() / angle.sin(), (part * angle).sin() / angle.sin())
    } else {
        (1.0 - part, part)
    };
    a.iter().zip(b).map(|(a, b)| (from_a * f64::from(*a) + from_b * f64::from(*b)) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::slerp;

    #[test]
    fn the_great_circle_keeps_the_length_and_the_ends() {
        let (a, b) = ([3.0, 0.0, 0.0], [0.0, 3.0, 0.0]);
        for part in [0.0, 0.25, 0.5, 1.0] {
            let mixed = slerp(&a, &b, part);
            let length = mixed.iter().map(|x| x * x).sum::<f32>().sqrt();
            assert!((length - 3.0).abs() < 1e-6, "{mixed:?}");
        }
        assert_eq!((slerp(&a, &b, 0.0), slerp(&a, &a, 0.3)), (a.to_vec(), a.to_vec()));
    }
}
