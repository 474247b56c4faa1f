//! A folder of picture files, searched with all its sub-folders.
//!
//! The order of the images is that of the BLAKE3 hashes of their relative paths: mixed, the same
//! on every machine, and hardly changed by files that are added (so held-out images stay held out).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use rayon::prelude::*;

use super::pixels::Pixels;
use super::source::{Colour, Found, Header, Pictures, Skipped, recognise_file};
use super::{DataError, DataOptions, OnError, Source};

/// A decoded picture may take this much memory: 18,000 x 18,000 pixels RGB.
const MOST_DECODED: u64 = 1 << 30;
/// Formats that are read.
const FORMATS: [ImageFormat; 6] =
    [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
/// Files named like this are meant to be pictures, whatever they hold.
const EXTENSIONS: [&str; 12] =
    ["png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "gif", "bmp", "dib", "tif", "tiff"];
/// Folders within folders that are followed.
const MOST_DEPTH: usize = 64;

/// The picture format that begins like this, of those that are read.
pub(super) fn picture_format(head: &[u8]) -> Option<ImageFormat> {
    image::guess_format(head).ok().filter(|format| FORMATS.contains(format))
}

fn named_as_picture(path: &Path) -> bool {
    path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext.eq_ignore_ascii_case(known)))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// The files and folders in a folder, hidden ones left out, in the order of their names.
fn listed(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>), DataError> {
    let failed = |e| DataError::io(folder, "listing the folder", e);
    let (mut files, mut folders) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_hidden(&path) {
            continue;
        }
        // Follows links; a dangling one is passed over.
        match fs::metadata(&path) {
            Ok(meta) if meta.is_dir() => folders.push(path),
            Ok(meta) if meta.is_file() => files.push(path),
            _ => {}
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

/// The files directly in a folder, in the order of their names.
pub(super) fn files_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    listed(folder).map(|(files, _)| files)
}

/// Leaves out the test part of a set whose names tell it from the training part.
pub(super) fn without_test_part(files: Vec<PathBuf>, notes: &mut Vec<String>) -> Vec<PathBuf> {
    let named = |file: &Path, parts: &[&str]| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        parts.iter().any(|part| name.contains(part))
    };
    if !files.iter().any(|file| named(file, &["train", "data_batch"])) {
        return files;
    }
    let (test, train): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| named(file, &["test", "t10k"]));
    for file in test {
        notes.push(format!("{} is the set's test part and was left out; give it alone to use it", file.display()));
    }
    train
}

/// What kind of data set a folder is: arrays that lie directly in it, else pictures.
pub(super) fn recognise(folder: &Path) -> Result<Source, DataError> {
    let (mut files, _) = listed(folder)?;
    // Files that do not look like pictures are asked first, so that a preview beside a data file
    // does not hide it, and a large folder of pictures is recognised by its first one.
    files.sort_by_key(|file| named_as_picture(file));
    for file in &files {
        if super::bytes::head(file, 32).is_ok_and(|head| picture_format(&head).is_some()) {
            return Ok(Source::Folder);
        }
        if let Ok(source) = recognise_file(file) {
            return Ok(source);
        }
    }
    Ok(Source::Folder)
}

/// The only array file in a folder.
pub(super) fn only_array(folder: &Path) -> Result<PathBuf, DataError> {
    let arrays: Vec<PathBuf> = files_in(folder)?
        .into_iter()
        .filter(|file| matches!(recognise_file(file), Ok(Source::Npz | Source::Npy)))
        .collect();
    match arrays.as_slice() {
        [one] => Ok(one.clone()),
        [first, second, ..] => Err(DataError::format(
            folder,
            "pictures, or one array file",
            format!("{} array files, among them {} and {}", arrays.len(), first.display(), second.display()),
            "give one of them as the path of the data",
        )),
        [] => Err(DataError::Empty { path: folder.to_path_buf(), found: "its array file is gone".to_owned() }),
    }
}

/// Picture files, opened when they are asked for.
#[derive(Debug)]
struct PictureFiles {
    files: Vec<PathBuf>,
}

impl Pictures for PictureFiles {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn name(&self, index: usize) -> String {
        self.files.get(index).map_or_else(String::new, |file| file.display().to_string())
    }

    fn header(&self, index: usize) -> Result<Header, DataError> {
        self.with_decoder(index, |mut decoder| {
            let (width, height) = decoder.dimensions();
            let (width, height) = (width as usize, height as usize);
            let turned = matches!(
                decoder.orientation(),
                Ok(Orientation::Rotate90
                    | Orientation::Rotate270
                    | Orientation::Rotate90FlipH
                    | Orientation::Rotate270FlipH)
            );
            let (height, width) = if turned { (width, height) } else { (height, width) };
            let colour = match decoder.color_type() {
                ColorType::L8 | ColorType::L16 | ColorType::La8 | ColorType::La16 => Colour::Grey,
                _ => Colour::Unknown,
            };
            Ok(Header { height, width, colour })
        })
    }

    fn read(&self, index: usize) -> Result<Pixels, DataError> {
        self.with_decoder(index, |mut decoder| {
            // A camera held upright says so beside the pixels.
            let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
            let mut picture = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
            picture.apply_orientation(orientation);
            Ok(pixels(picture))
        })
    }
}

impl PictureFiles {
    /// Opens the picture and hands its decoder on; a panic of a decoder is a broken picture too.
    fn with_decoder<T>(
        &self,
        index: usize,
        then: impl FnOnce(Box<dyn ImageDecoder>) -> Result<T, String>,
    ) -> Result<T, DataError> {
        let path = self.files.get(index).ok_or_else(|| DataError::Call {
            operation: "reading a picture",
            expected: format!("an index below {}", self.files.len()),
            found: index.to_string(),
        })?;
        let file = File::open(path).map_err(|e| DataError::io(path, "opening", e))?;
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            let reader = ImageReader::new(BufReader::new(file)).with_guessed_format().map_err(|e| e.to_string())?;
            let format = reader.format().ok_or_else(|| foreign_reason(path))?;
            if !FORMATS.contains(&format) {
                return Err(format!("it is of the format {format:?}, which is not read"));
            }
            let mut decoder = reader.into_decoder().map_err(|e| e.to_string())?;
            let mut limits = Limits::default();
            limits.max_image_width = Some(1 << 16);
            limits.max_image_height = Some(1 << 16);
            limits.max_alloc = Some(MOST_DECODED);
            let (width, height) = decoder.dimensions();
            if decoder.total_bytes() > MOST_DECODED {
                return Err(format!(
                    "its header says {height}x{width} pixels (height x width), more than 1 GiB decoded"
                ));
            }
            decoder.set_limits(limits).map_err(|e| e.to_string())?;
            if width == 0 || height == 0 {
                return Err("it has no pixels".to_owned());
            }
            then(Box::new(decoder))
        }));
        decoded
            .unwrap_or_else(|_| Err("its decoder failed on it".to_owned()))
            .map_err(|reason| DataError::Picture { path: path.clone(), reason })
    }
}

/// One picture file, decoded.
pub(super) fn picture(path: &Path) -> Result<Pixels, DataError> {
    PictureFiles { files: vec![path.to_owned()] }.read(0)
}

/// Why a file that is named as a picture is none.
fn foreign_reason(path: &Path) -> String {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(16).read_to_end(&mut head));
    let reason = match (read, head.get(4..8), head.get(8..12)) {
        (Ok(0), ..) => "it is empty",
        (_, Some(b"ftyp"), Some(b"avif" | b"avis")) => "it is AVIF, which is not read: convert it to PNG or JPEG",
        (_, Some(b"ftyp"), _) => "it is HEIC or a film, which is not read: convert it to PNG or JPEG",
        _ if head.starts_with(b"<") => "it is text (SVG or a web page), not pixels",
        _ => "its content is of no known picture format",
    };
    reason.to_owned()
}

/// 8 bits a channel; 16 bits are rounded, palettes looked up.
fn pixels(picture: DynamicImage) -> Pixels {
    let (height, width) = (picture.height() as usize, picture.width() as usize);
    let colour = picture.color();
    let (channels, data) = match (colour.has_color(), colour.has_alpha()) {
        (false, false) => (1, picture.into_luma8().into_raw()),
        (false, true) => (2, picture.into_luma_alpha8().into_raw()),
        (true, false) => (3, picture.into_rgb8().into_raw()),
        (true, true) => (4, picture.into_rgba8().into_raw()),
    };
    Pixels { height, width, channels, data }
}

/// What a file in the folder turned out to be.
enum Kind {
    Picture,
    Other,
    Broken(String),
}

fn kind(path: &Path) -> Kind {
    let mut head = Vec::new();
    match File::open(path).and_then(|file| file.take(32).read_to_end(&mut head)) {
        Ok(_) if picture_format(&head).is_some() => Kind::Picture,
        Ok(_) if named_as_picture(path) => {
            Kind::Broken(DataError::Picture { path: path.to_path_buf(), reason: foreign_reason(path) }.to_string())
        }
        Ok(_) => Kind::Other,
        Err(e) => Kind::Broken(DataError::io(path, "opening", e).to_string()),
    }
}

/// The path within the folder, with `/` on every system.
fn relative(root: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(root).unwrap_or(path);
    let parts: Vec<_> = inside.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// Every file below a folder; a folder that links lead to twice is visited once.
fn walk(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut all = Vec::new();
    let mut visited = BTreeSet::new();
    let mut waiting = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = waiting.pop() {
        let real = fs::canonicalize(&folder).map_err(|e| DataError::io(&folder, "following the folder", e))?;
        if depth > MOST_DEPTH || !visited.insert(real) {
            continue;
        }
        let (files, folders) = listed(&folder)?;
        all.extend(files);
        waiting.extend(folders.into_iter().rev().map(|inner| (inner, depth + 1)));
    }
    Ok(all)
}

/// Opens a folder of pictures.
pub(super) fn open(root: &Path, options: &DataOptions) -> Result<Found, DataError> {
    let mut paths: Vec<(blake3::Hash, String, PathBuf)> = walk(root)?
        .into_iter()
        .map(|path| {
            let name = relative(root, &path);
            (blake3::hash(name.as_bytes()), name, path)
        })
        .collect();
    paths.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()).then_with(|| a.1.cmp(&b.1)));
    let kinds: Vec<Kind> = paths.par_iter().map(|(_, _, path)| kind(path)).collect();

    let mut files = Vec::new();
    let mut names = Vec::new();
    let mut skipped = Vec::new();
    let mut others = Vec::new();
    for ((_, name, path), kind) in paths.into_iter().zip(kinds) {
        // A broken file keeps its place, so that errors come in the order of the images.
        match kind {
            Kind::Other => {
                others.push(name);
                continue;
            }
            Kind::Picture => {}
            Kind::Broken(reason) => skipped.push((files.len(), Skipped { name: path.display().to_string(), reason })),
        }
        files.push(path);
        names.push(name);
    }
    others.sort();
    let mut notes = Vec::new();
    if let Some(first) = others.first() {
        notes.push(format!(
            "{} files in {} are no pictures and were passed over, among them {first}",
            others.len(),
            root.display()
        ));
    }
    if files.is_empty() {
        let found = others.first().map_or_else(
            || "nothing is in it".to_owned(),
            |first| format!("{} files of other kinds, among them {first}", others.len()),
        );
        return Err(DataError::Empty { path: root.to_path_buf(), found });
    }
    if options.on_error == OnError::Stop
        && let Some((index, Skipped { .. })) = skipped.first()
    {
        // Asked again for the error itself; a file that was mended meanwhile is not an error.
        PictureFiles { files: vec![files[*index].clone()] }.header(0)?;
    }
    let (labels, classes) = if options.classes {
        let (labels, classes) = sub_folders(root, &names, options.on_error, &mut skipped, &files)?;
        (Some(labels), Some(classes))
    } else {
        (None, None)
    };
    let pictures = Box::new(PictureFiles { files });
    Ok(Found { source: Source::Folder, pictures, labels, classes, skipped, notes })
}

/// Labels from the first-level sub-folders, in the order of their names.
fn sub_folders(
    root: &Path,
    names: &[String],
    on_error: OnError,
    skipped: &mut Vec<(usize, Skipped)>,
    files: &[PathBuf],
) -> Result<(Vec<u32>, Vec<String>), DataError> {
    let folder = |name: &str| name.split_once('/').map(|(folder, _)| folder.to_owned());
    let classes: Vec<String> =
        names.iter().filter_map(|name| folder(name)).collect::<BTreeSet<_>>().into_iter().collect();
    if classes.is_empty() {
        return Err(DataError::format(
            root,
            "one sub-folder of pictures for each class (data.classes = true)",
            "pictures without sub-folders",
            "sort them into sub-folders, or set data.classes = false",
        ));
    }
    let mut labels = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        let class = folder(name).and_then(|folder| classes.binary_search(&folder).ok());
        if class.is_none() {
            let error = DataError::format(
                &files[index],
                "every picture in the sub-folder of its class (data.classes = true)",
                "one outside of any",
                "move it, or set data.classes = false",
            );
            if on_error == OnError::Stop {
                return Err(error);
            }
            if !skipped.iter().any(|&(broken, _)| broken == index) {
                skipped.push((index, Skipped { name: files[index].display().to_string(), reason: error.to_string() }));
            }
        }
        labels.push(class.unwrap_or(0) as u32);
    }
    skipped.sort_by_key(|&(index, _)| index);
    Ok((labels, classes))
}
