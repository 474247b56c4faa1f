//! `ddpm invert`: the latents that become pictures.

use anyhow::Result;
use ddpm_tensor::Tensor;
use serde_json::json;

use super::{
    arrays,
    classes::WithoutClass,
    machine::{Machinery, on_device},
    sample::{Form, make_place},
    studio::{Ready, Studio},
};
use crate::{
    args::{How, InvertArgs},
    failure::Failure,
    output::Output,
};

pub(super) fn run(args: &InvertArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let form = Form::of(&args.out)?;
    if form != Form::Npy {
        return Err(Failure::usage("latents are written as .npy").place(args.out.display()).into());
    }
    if args.how.sampler.as_ref().is_some_and(|name| name != "ddim") {
        return Err(Failure::usage("only ddim is inverted").place("--sampler").next("leave --sampler out").into());
    }
    let mut how = args.how.clone();
    how.sampler = Some("ddim".to_owned());
    let (ready, device) = Ready::open(&args.model, &how, &args.machine, output)?;
    on_device!(device, device => latents(args, output, &form, &how, &ready.on(device)?))
}

/// All that follows once the device is known.
fn latents<B: Machinery>(args: &InvertArgs, output: Output, form: &Form, how: &How, studio: &Studio<B>) -> Result<()> {
    let image = studio.image()?;
    let [height, width, channels] = image;
    let is_array = args.image.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
    let x_0 = if is_array {
        let tensor = arrays::read(&studio.device, &args.image)?;
        match *tensor.shape().dims() {
            [n, h, w, c] if n > 0 && [h, w, c] == image => tensor,
            _ => {
                let what = format!(
                    "the model's pictures are N x {height} x {width} x {channels}, these are {}",
                    tensor.shape()
                );
                return Err(Failure::new(what).place(args.image.display()).into());
            }
        }
    } else {
        Tensor::from_slice(&studio.device, [1, height, width, channels], &studio.picture(&args.image, image)?)?
    };
    let n = x_0.shape().nhwc()[0];
    let labels = studio.classes(how, WithoutClass::None)?.labels(n);
    make_place(&args.out, form)?;
    let latents = studio.invert(x_0, labels.as_deref(), args.iterations as usize)?;
    arrays::write_values(&args.out, &[n, height, width, channels], &latents)?;
    output.result(&args.out.display().to_string())?;
    let again = format!("ddpm sample {} --noise {} --sampler ddim", args.model.display(), args.out.display());
    output.note(&format!("{again} --steps {} --no-clip draws them again", studio.steps()));
    output.json(&json!({ "out": args.out, "n": n, "steps": studio.steps(), "iterations": args.iterations }))?;
    Ok(())
}
