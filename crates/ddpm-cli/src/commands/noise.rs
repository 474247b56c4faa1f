//! `ddpm noise`: the forward process of one's own picture.

use anyhow::Result;
use ddpm_tensor::{Precision, Tensor};
use ddpm_train::{
    data::{self, Size},
    diffusion::{
        BetaSchedule, Schedule, ScheduleSettings,
        forward::{Noising, walk},
    },
};
use serde_json::json;

use super::{
    arrays,
    machine::{self, Machinery, on_device},
    sample::{Form, make_place},
    studio::Stop,
};
use crate::{
    args::NoiseArgs,
    failure::{Explain, Failure},
    output::Output,
    picture::{
        film,
        grid::{self, Images},
        png,
    },
};

pub(super) fn run(args: &NoiseArgs) -> Result<()> {
    let output = Output::new(args.talk);
    machine::check(&args.machine)?;
    let form = Form::of(&args.out)?;
    if matches!(form, Form::Npz | Form::Folder) {
        return Err(Failure::usage("the strip is a .png, .gif or .npy").place(args.out.display()).into());
    }
    let kind = args.schedule.parse::<BetaSchedule>().at("--schedule")?;
    let timesteps = args.timesteps as usize;
    let settings = ScheduleSettings { schedule: kind, timesteps, ..ScheduleSettings::default() };
    let schedule = settings.build().at("--schedule and --timesteps")?;
    let natural = data::picture(&args.image, None, None).at(args.image.display())?;
    let (longer, size) = (natural.height.max(natural.width), args.size as usize);
    let shrunk = |side: usize| (side * size / longer).max(1);
    let size = Size { height: shrunk(natural.height), width: shrunk(natural.width) };
    let picture = data::picture(&args.image, Some(size), None).at(args.image.display())?;
    make_place(&args.out, &form)?;
    let (device, _) = machine::open(&args.machine, Precision::F32)?;

    // Time steps as the paper counts them: 0 is the picture itself.
    let last = args.count as usize - 1;
    let shown: Vec<usize> = (0..=last).map(|i| (i * timesteps + last / 2) / last).collect();
    let (height, width, channels) = (picture.height, picture.width, picture.channels);
    let (chain, closed) = on_device!(device, device => strip(&device, &schedule, &picture, args.seed, &shown))?;

    let n = shown.len();
    let len = height * width * channels;
    let both = [chain, closed].concat();
    match form {
        Form::Png => {
            let images = Images { n: 2 * n, height, width, channels, values: &both };
            let about = json!({
                "command": "noise", "schedule": kind.name(), "timesteps": timesteps, "shown": shown, "seed": args.seed,
                "program": concat!("ddpm ", env!("CARGO_PKG_VERSION")),
            });
            let text = [("ddpm".to_owned(), about.to_string())];
            png::write(&args.out, &grid::rows_of(n, images)?, &text).at(args.out.display())?;
        }
        Form::Gif => {
            let frames = (0..n).map(|i| {
                let pair = [&both[i * len..(i + 1) * len], &both[(n + i) * len..(n + i + 1) * len]].concat();
                grid::rows_of(2, Images { n: 2, height, width, channels, values: &pair })
            });
            film::write(&args.out, &frames.collect::<Result<Vec<_>>>()?).at(args.out.display())?;
        }
        _ => arrays::write_values(&args.out, &[2, n, height, width, channels], &both)?,
    }
    output.result(&args.out.display().to_string())?;
    output.result(
        "t, what is left of the picture, the noise's deviation, and the deviations seen by steps and at once",
    )?;
    let mut rows = Vec::new();
    for (i, &t) in shown.iter().enumerate() {
        let Noising { signal, noise } =
            if t == 0 { Noising { signal: 1.0, noise: 0.0 } } else { Noising::of_image(&schedule, t - 1) };
        let seen = |row: usize| deviation(&both[(row * n + i) * len..(row * n + i + 1) * len]);
        output.result(&format!("{t:6}  {signal:.4}  {noise:.4}  {:.4}  {:.4}", seen(0), seen(1)))?;
        rows.push(json!({ "t": t, "signal": signal, "noise": noise, "by_steps": seen(0), "at_once": seen(1) }));
    }
    output.json(&json!({ "out": args.out, "height": height, "width": width, "channels": channels, "rows": rows }))?;
    Ok(())
}

/// The picture at the time steps `shown`, step by step and in closed form.
fn strip<B: Machinery>(
    device: &B,
    schedule: &Schedule,
    picture: &data::Picture,
    seed: u64,
    shown: &[usize],
) -> Result<(Vec<f32>, Vec<f32>)> {
    let shape = [1, picture.height, picture.width, picture.channels];
    let x_0 = Tensor::from_slice(device, shape, &picture.values)?;
    let (mut chain, mut closed) = (picture.values.clone(), picture.values.clone());
    // Few time steps may be shown more than once.
    let times = |t: usize| shown.iter().filter(|&&at| at == t).count();
    for _ in 1..times(0) {
        chain.extend_from_slice(&picture.values);
        closed.extend_from_slice(&picture.values);
    }
    walk(
        device,
        schedule,
        &x_0,
        seed,
        |t| times(t + 1) > 0,
        |t, by_steps, at_once| {
            for _ in 0..times(t + 1) {
                chain.extend(by_steps.to_vec(device).map_err(anyhow::Error::from)?);
                closed.extend(at_once.to_vec(device).map_err(anyhow::Error::from)?);
            }
            Ok::<_, Stop>(())
        },
    )
    .map_err(|Stop(error)| error)?;
    Ok((chain, closed))
}

fn deviation(values: &[f32]) -> f64 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    (values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt()
}
