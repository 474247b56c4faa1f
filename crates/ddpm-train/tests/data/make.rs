//! Small files that the tests read.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use ddpm_train::data::{DataError, DataOptions, DataSet, Size, open};
use flate2::{Compression, write::GzEncoder};
use image::{DynamicImage, ImageFormat};
use npyz::zip::{CompressionMethod, write::FileOptions};
use npyz::{AutoSerialize, WriterBuilder};

/// Options with a size.
pub(crate) fn sized(height: usize, width: usize) -> DataOptions {
    DataOptions { size: Some(Size { height, width }), ..DataOptions::default() }
}

/// The bytes of all images of a set, one after the other.
pub(crate) fn pixels(data: &DataSet) -> Vec<u8> {
    let mut all = vec![0; data.count() * data.image_len()];
    for (index, out) in all.chunks_exact_mut(data.image_len()).enumerate() {
        data.image(index, out).unwrap();
    }
    all
}

/// The message of opening what cannot be opened; it must name the path.
pub(crate) fn refusal(path: &Path, options: &DataOptions) -> String {
    let error = open(path, options).expect_err("it should not open");
    let message = error.to_string();
    let folder = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(message.contains(&folder) || matches!(error, DataError::Option { .. }), "{message}");
    message
}

pub(crate) fn picture_bytes(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Writes a picture under a name that need not fit its format.
pub(crate) fn save(path: &Path, picture: &DynamicImage, format: ImageFormat) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, picture_bytes(picture, format)).unwrap();
}

pub(crate) fn grey(height: u32, width: u32, value: u8) -> DynamicImage {
    DynamicImage::ImageLuma8(image::GrayImage::from_pixel(width, height, image::Luma([value])))
}

pub(crate) fn rgb(height: u32, width: u32, value: [u8; 3]) -> DynamicImage {
    DynamicImage::ImageRgb8(image::RgbImage::from_pixel(width, height, image::Rgb(value)))
}

/// An `.npy` file.
pub(crate) fn npy<T: AutoSerialize + Copy>(shape: &[u64], values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut bytes).begin_nd().unwrap();
    writer.extend(values.iter().copied()).unwrap();
    writer.finish().unwrap();
    bytes
}

/// An `.npz` file of `.npy` files.
pub(crate) fn npz(members: &[(&str, Vec<u8>)], deflate: bool) -> Vec<u8> {
    let method = if deflate { CompressionMethod::Deflated } else { CompressionMethod::Stored };
    let mut zip = npyz::zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(format!("{name}.npy"), FileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An IDX file of `u8`.
pub(crate) fn idx(sides: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sides.len() as u8];
    bytes.extend(sides.iter().flat_map(|side| side.to_be_bytes()));
    bytes.extend_from_slice(values);
    bytes
}

/// Bytes that look random and repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut hash = blake3::Hasher::new_derive_key("noise of the tests").update(&seed.to_le_bytes()).finalize_xof();
    let mut bytes = vec![0; length];
    hash.fill(&mut bytes);
    bytes
}
