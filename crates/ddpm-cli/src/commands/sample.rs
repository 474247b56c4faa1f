//! `ddpm sample`: pictures from a model.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ddpm_train::model::Trained;
use serde_json::{Value, json};

use super::{
    arrays::{self, Array, Values},
    classes::WithoutClass,
    drawing::{Begin, Drawn, Film},
    machine::{Machinery, on_device},
    studio::{Asked, Ready, Studio},
};
use crate::{
    args::{FilmName, SampleArgs},
    failure::{Explain, Failure},
    output::Output,
    picture::{film, grid, png},
};

/// Pictures where nobody says how many.
const COUNT: usize = 16;

/// In what form the images are wanted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One picture, or a grid.
    Png,
    /// A film.
    Gif,
    /// Numbers.
    Npy,
    /// Numbers and labels.
    Npz,
    /// Numbered PNGs.
    Folder,
}

impl Form {
    /// By the name's ending.
    pub(super) fn of(path: &Path) -> Result<Self> {
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
    let form = Form::of(&args.out)?;
    let (ready, device) = Ready::open(&args.model, &args.how, &args.machine, output)?;
    on_device!(device, device => draw(args, output, &form, &ready.on(device)?))
}

/// All that follows once the device is known.
fn draw<B: Machinery>(args: &SampleArgs, output: Output, form: &Form, studio: &Studio<B>) -> Result<()> {
    let plan = studio.plan()?;
    let noise = args.noise.as_deref().map(|path| read_noise(&studio.device, path)).transpose()?;
    let image = image_size(studio, noise.as_ref())?;
    studio.model.unet.config().validate(image[0], image[1]).at(args.model.display())?;
    let classes = studio.classes(&args.how, WithoutClass::Turns)?;
    let n = match &noise {
        Some(noise) => noise.n,
        None => args.n.map_or_else(|| classes.whole_rows(COUNT), |n| n as usize),
    };
    let columns = classes.columns().unwrap_or(grid::columns(n));
    let labels = classes.labels(n);
    make_place(&args.out, form)?;

    let film = match (form, args.film) {
        (Form::Gif, FilmName::Xt) => Film::Xt,
        (Form::Gif, FilmName::X0) => Film::X0,
        _ => Film::None,
    };
    let begin = noise.as_ref().map_or(Begin::Seed, |noise| Begin::Latents(&noise.values));
    let drawn = studio.draw(&plan, image, n, Asked { begin, labels: labels.as_deref(), film, columns })?;

    let mut about = studio.about();
    about["noise"] = json!(noise.as_ref().map(|noise| noise.hash.clone()));
    let files = write(&args.out, form, image, &drawn, columns, labels.as_deref(), &studio.model, &about)?;
    files.tell(
        output,
        &json!({
            "out": args.out, "n": n, "height": image[0], "width": image[1], "channels": image[2],
            "files": files.count, "settings": about,
        }),
    )
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
fn image_size<B: Machinery>(studio: &Studio<B>, noise: Option<&Noise>) -> Result<[usize; 3]> {
    let Some(noise) = noise else { return studio.image() };
    let channels = studio.channels()?;
    if noise.image[2] != channels {
        let what = format!("latents of {} channels for a model of {channels}", noise.image[2]);
        return Err(Failure::new(what).place("--noise").into());
    }
    Ok(noise.image)
}

/// Makes the folder that the result goes into, so that a bad place is known before the work.
pub(super) fn make_place(out: &Path, form: &Form) -> Result<()> {
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
pub(super) struct Files {
    /// Names.
    pub(super) listed: Vec<PathBuf>,
    /// How many.
    pub(super) count: usize,
}

impl Files {
    /// Names them to people and programs.
    pub(super) fn tell(&self, output: Output, about: &Value) -> Result<()> {
        for file in &self.listed {
            output.result(&file.display().to_string())?;
        }
        output.json(about)?;
        Ok(())
    }
}

/// Writes images in the form that a name asks for.
pub(super) fn write(
    out: &Path,
    form: &Form,
    image: [usize; 3],
    drawn: &Drawn,
    columns: usize,
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
            png::write(out, &grid::rows_of(columns, images)?, &text).at(out.display())?;
        }
        Form::Gif => film::write(out, &drawn.frames).at(out.display())?,
        Form::Npy => arrays::write_values(out, &shape, images.values)?,
        Form::Npz => {
            let mut all = vec![Array { name: "images", shape: shape.to_vec(), values: Values::F32(images.values) }];
            if let Some(labels) = labels {
                let values = Values::I64(labels.iter().map(|&label| label as i64).collect());
                all.push(Array { name: "labels", shape: vec![labels.len()], values });
            }
            arrays::write_npz(out, all)?;
        }
        Form::Folder => {
            for i in 0..images.n {
                let path = out.join(format!("{i:06}.png"));
                let text = about_picture(about, &json!(i), labels.map(|labels| &labels[i..=i]), model);
                png::write(&path, &grid::grid(images.one(i))?, &text).at(path.display())?;
            }
        }
    }
    let count = if *form == Form::Folder { images.n } else { 1 };
    Ok(Files { listed: vec![out.to_owned()], count })
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
