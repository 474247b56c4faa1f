//! `ddpm inpaint`: a part of a picture, drawn to fit the rest.

use anyhow::Result;
use ddpm_tensor::Tensor;
use ddpm_train::{
    data,
    samplers::{self, Inpainting},
};
use serde_json::json;

use super::{
    classes::WithoutClass,
    drawing::Drawn,
    machine::{Machinery, on_device},
    sample::{self, Form, make_place},
    studio::{Ready, Stop, Studio},
};
use crate::{
    args::{How, InpaintArgs},
    failure::{Explain, Failure},
    output::Output,
    picture::grid,
    progress::Progress,
};

pub(super) fn run(args: &InpaintArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let form = Form::of(&args.out)?;
    if form == Form::Gif {
        return Err(Failure::usage("inpaint makes no film").place(args.out.display()).next("use .png").into());
    }
    let mut how = args.how.clone();
    // Every step's noise is what lets the drawn part follow the known one.
    how.sampler.get_or_insert("ddpm".to_owned());
    how.steps.get_or_insert(50);
    let (ready, device) = Ready::open(&args.model, &how, &args.machine, output)?;
    on_device!(device, device => fill(args, output, &form, &how, &ready.on(device)?))
}

/// All that follows once the device is known.
fn fill<B: Machinery>(args: &InpaintArgs, output: Output, form: &Form, how: &How, studio: &Studio<B>) -> Result<()> {
    let image = studio.image()?;
    let plan = studio.plan()?;
    if !plan.forgets() {
        let what =
            format!("{} remembers earlier steps, which noise that is put back would contradict", studio.sampler.name);
        return Err(Failure::usage(what).place("--sampler").next("use ddpm, ddim, euler or euler-a").into());
    }
    let [height, width, channels] = image;
    let picture = studio.picture(&args.image, image)?;
    let mask = data::picture(&args.mask, None, Some(1)).at(args.mask.display())?;
    if (mask.height, mask.width) != (height, width) {
        let what = format!("the mask has {}x{} pixels, the model's pictures {height}x{width}", mask.height, mask.width);
        return Err(Failure::new(what)
            .place(args.mask.display())
            .next("make it of the model's size: white is filled, black stays")
            .into());
    }
    let classes = studio.classes(how, WithoutClass::None)?;
    let n = args.n as usize;
    let labels = classes.labels(n);
    let columns = classes.columns().unwrap_or(grid::columns(n));
    make_place(&args.out, form)?;

    let per_pixel: Vec<f32> = mask.values.iter().flat_map(|&x| vec![f32::midpoint(x, 1.0); channels]).collect();
    let batch = studio.batch(image);
    let drawing = studio.drawing(&plan, image);
    let calls = plan.steps.len() * args.resample as usize;
    let mut progress = Progress::new(output, "filling", 0, (n.div_ceil(batch) * calls) as u64);
    let mut values = Vec::with_capacity(n * picture.len());
    for (index, first) in (0..n).step_by(batch).enumerate() {
        let count = batch.min(n - first);
        let x_0 = Tensor::from_slice(&studio.device, [count, height, width, channels], &picture.repeat(count))?;
        let inpainting = Inpainting {
            image: &x_0,
            mask: &per_pixel.repeat(count),
            jump: args.jump as usize,
            resample: args.resample as usize,
        };
        let images = samplers::Images { seed: how.seed, first: first as u64 };
        let labels = labels.as_ref().map(|labels| &labels[first..first + count]);
        let x = inpainting.run(
            &studio.device,
            &plan,
            images,
            |x, t| Ok::<_, Stop>(drawing.output(x, t, labels)?),
            |done| {
                progress.at((index * calls + done) as u64, || format!("{n} pictures by {}", studio.sampler.name));
                Ok(())
            },
        );
        values.extend(x.map_err(|Stop(error)| error)?.to_vec(&studio.device)?);
    }
    progress.finish();
    let drawn = Drawn { values, frames: Vec::new() };
    drawn.check()?;

    let mut about = studio.about();
    (about["command"], about["jump"], about["resample"]) = (json!("inpaint"), json!(args.jump), json!(args.resample));
    let files = sample::write(&args.out, form, image, &drawn, columns, labels.as_deref(), &studio.model, &about)?;
    files.tell(output, &json!({ "out": args.out, "n": n, "files": files.count, "settings": about }))
}
