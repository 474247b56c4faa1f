//! `ddpm img2img`: a picture, noised part of the way and drawn anew (Meng et al. 2022, SDEdit).

use anyhow::Result;
use serde_json::json;

use super::{
    classes::WithoutClass,
    drawing::{Begin, Film},
    machine::{Machinery, on_device},
    sample::{self, Form, make_place},
    studio::{Asked, Ready, Studio},
};
use crate::{args::Img2imgArgs, failure::Failure, output::Output, picture::grid};

pub(super) fn run(args: &Img2imgArgs) -> Result<()> {
    let output = Output::new(args.talk);
    let form = Form::of(&args.out)?;
    if !(args.strength > 0.0 && args.strength <= 1.0) {
        let what = format!("--strength {} is not allowed; allowed: above 0 and at most 1", args.strength);
        return Err(Failure::usage(what).into());
    }
    let (ready, device) = Ready::open(&args.model, &args.how, &args.machine, output)?;
    on_device!(device, device => redraw(args, output, &form, &ready.on(device)?))
}

/// All that follows once the device is known.
fn redraw<B: Machinery>(args: &Img2imgArgs, output: Output, form: &Form, studio: &Studio<B>) -> Result<()> {
    let image = studio.image()?;
    let picture = studio.picture(&args.image, image)?;
    let classes = studio.classes(&args.how, WithoutClass::None)?;
    let n = args.n as usize;
    let labels = classes.labels(n);
    let columns = classes.columns().unwrap_or(grid::columns(n));
    let steps = studio.steps();
    let taken = ((steps as f64 * args.strength).round() as usize).max(1);
    let plan = studio.plan_without(steps - taken)?;
    make_place(&args.out, form)?;

    let x_t = studio.noised(&plan, &picture.repeat(n), image, args.shared)?;
    let film = if *form == Form::Gif { Film::Xt } else { Film::None };
    let asked = Asked { begin: Begin::Noised(&x_t), labels: labels.as_deref(), film, columns };
    let drawn = studio.draw(&plan, image, n, asked)?;

    let mut about = studio.about();
    (about["command"], about["strength"], about["shared"]) =
        (json!("img2img"), json!(args.strength), json!(args.shared));
    let files = sample::write(&args.out, form, image, &drawn, columns, labels.as_deref(), &studio.model, &about)?;
    files.tell(output, &json!({ "out": args.out, "n": n, "files": files.count, "settings": about }))
}
