//! Broken, truncated, huge and wrong input: an error that helps, never a panic.

use std::fs;
use std::io::Write;
use std::path::Path;

use ddpm_nn::config::SampleSize;
use ddpm_train::data::{Crop, DataError, DataOptions, Filter, Layout, OnError, Range, Size, open};
use ddpm_train::settings::DataSettings;
use image::ImageFormat;
use proptest::prelude::*;
use tempfile::tempdir;

use crate::make::{grey, gzip, idx, noise, npy, npz, picture_bytes, pixels, refusal, rgb, save, sized};

fn in_folder(name: &str, bytes: &[u8], options: &DataOptions) -> Result<ddpm_train::data::DataSet, DataError> {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    open(folder.path(), options)
}

#[test]
fn a_truncated_picture_is_named_or_still_whole() {
    let picture = image::RgbImage::from_raw(12, 10, noise(1, 360)).unwrap().into();
    for format in
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff]
    {
        let bytes = picture_bytes(&picture, format);
        let step = (bytes.len() / 60).max(1);
        let mut refused = 0;
        for length in (0..bytes.len()).step_by(step) {
            // Some decoders forgive a missing end; what they give has the right size at least.
            match in_folder("cut.png", &bytes[..length], &DataOptions::default()) {
                Ok(data) => assert_eq!(data.size(), (10, 12)),
                Err(error) => {
                    assert!(error.to_string().contains("cut.png"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 30, "{format:?}: {refused}");
    }
}

#[test]
fn one_broken_picture_stops_or_is_skipped() {
    let folder = tempdir().unwrap();
    for n in 0..9 {
        save(&folder.path().join(format!("{n}.png")), &grey(8, 8, n), ImageFormat::Png);
    }
    let whole = picture_bytes(&grey(8, 8, 100), ImageFormat::Png);
    fs::write(folder.path().join("broken.png"), &whole[..whole.len() - 30]).unwrap();
    fs::write(folder.path().join("empty.jpg"), "").unwrap();
    fs::write(folder.path().join("web.gif"), "<html>not found</html>").unwrap();
    fs::write(folder.path().join("phone.png"), b"\0\0\0\x18ftypheic\0\0\0\0").unwrap();
    let message = refusal_of_file(folder.path());
    assert!(message.contains("data.on_error = \"skip\""), "{message}");
    let skip = DataOptions { on_error: OnError::Skip, ..DataOptions::default() };
    let data = open(folder.path(), &skip).unwrap();
    assert_eq!((data.count(), data.skipped().len()), (9, 4));
    for (file, reason) in
        [("empty.jpg", "it is empty"), ("web.gif", "text"), ("phone.png", "HEIC"), ("broken.png", "decoded")]
    {
        let skipped = data.skipped().iter().find(|skipped| skipped.name.ends_with(file)).unwrap();
        assert!(skipped.reason.contains(reason), "{skipped:?}");
    }
    let mut values: Vec<u8> = pixels(&data).chunks(64).map(|image| image[0]).collect();
    values.sort_unstable();
    assert_eq!(values, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    (0..9).for_each(|n| fs::remove_file(folder.path().join(format!("{n}.png"))).unwrap());
    let message = refusal(folder.path(), &skip);
    assert!(message.contains("all 4 are broken"), "{message}");
}

/// The message of a folder in which some file is broken.
fn refusal_of_file(folder: &Path) -> String {
    open(folder, &DataOptions::default()).unwrap_err().to_string()
}

#[test]
fn huge_headers_are_refused_before_memory_is_taken() {
    // 2^31 - 1 pixels wide, then 30,000 x 30,000 in 16 bits RGBA: both within the format.
    for (width, height, depth, colour) in
        [(i32::MAX as u32, 1, 8, 0), (30_000, 30_000, 16, 6), (1, i32::MAX as u32, 1, 0)]
    {
        let mut file = picture_bytes(&grey(4, 4, 1), ImageFormat::Png);
        file[16..20].copy_from_slice(&width.to_be_bytes());
        file[20..24].copy_from_slice(&height.to_be_bytes());
        (file[24], file[25]) = (depth, colour);
        let mut crc = flate2::Crc::new();
        crc.update(&file[12..29]);
        file[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        let error = in_folder("huge.png", &file, &sized(8, 8)).unwrap_err().to_string();
        assert!(error.contains("huge.png"), "{error}");
    }
    let folder = tempdir().unwrap();
    for shape in ["1000000, 100000, 100000, 3", "18446744073709551615, 2, 2, 1", "4, 4, 4, 99999999999999999999"] {
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape}), }}");
        bytes.extend(format!("{text:<117}\n").bytes());
        for (name, bytes) in [("a.npy", bytes.clone()), ("a.npz", npz(&[("images", bytes)], true))] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            refusal(&path, &DataOptions::default());
        }
    }
}

#[test]
fn compressed_bombs_are_refused() {
    let folder = tempdir().unwrap();
    // 100 MiB of zeros become 100 kB.
    let zeros = vec![0; 100 << 20];
    let path = folder.path().join("bomb");
    fs::write(&path, npz(&[("images", npy(&[100, 1024, 1024], &zeros))], true)).unwrap();
    let message = refusal(&path, &DataOptions::default());
    assert!(message.contains("over 500 times"), "{message}");
    fs::write(&path, gzip(&[idx(&[100, 1024, 1024], &zeros[16..]), vec![]].concat())).unwrap();
    assert!(refusal(&path, &DataOptions::default()).contains("over 500 times"));
    // A small header before a large member.
    let mut member = npy(&[2, 8, 8], &[0_u8; 128]);
    member.extend_from_slice(&zeros);
    fs::write(&path, npz(&[("images", member)], true)).unwrap();
    assert!(refusal(&path, &DataOptions::default()).contains("found more"));
}

#[test]
fn junk_is_described() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("given");
    let options = DataOptions::default();
    assert!(refusal(&path, &options).contains("there is no such file"));
    assert!(refusal(Path::new("bundled:faces"), &options).contains("expected bundled:digits or bundled:emoji"));
    for (bytes, said) in [
        (b"".to_vec(), "is empty"),
        (b"some words\n".to_vec(), "begins with the bytes 73 6f 6d"),
        (b"PAR1....".to_vec(), "Parquet"),
        (b"\x80\x04\x95abcdef".to_vec(), "pickle"),
        (b"\x89HDF\r\n\x1a\n".to_vec(), "HDF5"),
        (picture_bytes(&grey(4, 4, 4), ImageFormat::Png), "single picture"),
        (b"PK\x03\x04 and no more".to_vec(), "whole .npz archive"),
        (npz(&[], true), ""),
        (npz(&[("text", b"not an array".to_vec())], true), "text (no numbers)"),
        (b"\x93NUMPY\x01\x00\xff\xff{".to_vec(), "NumPy array header"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(), "one of 4294967295 bytes"),
        (b"\x93NUMPY\x01\x00\x00\x08".iter().copied().chain([b'('; 2048]).collect(), "brackets"),
    ] {
        fs::write(&path, &bytes).unwrap();
        let message = refusal(&path, &options);
        assert!(message.contains(said), "{said}: {message}");
    }
    let text = "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }";
    let bytes = [b"\x93NUMPY\x01\x00\x40\x00".as_slice(), format!("{text:<63}\n").as_bytes(), b"junk"].concat();
    fs::write(&path, bytes).unwrap();
    assert!(refusal(&path, &options).contains("pickled Python objects"));
    let text = "{'descr': '|u1', 'fortran_order': True, 'shape': (3, 8, 8), }";
    let bytes = [b"\x93NUMPY\x01\x00\x40\x00".as_slice(), format!("{text:<63}\n").as_bytes(), &[0; 192]].concat();
    fs::write(&path, bytes).unwrap();
    assert!(refusal(&path, &options).contains("ascontiguousarray"));
    let empty = tempdir().unwrap();
    assert!(refusal(empty.path(), &options).contains("nothing is in it"));
    fs::write(empty.path().join("a.txt"), "words").unwrap();
    assert!(refusal(empty.path(), &options).contains("1 files of other kinds, among them a.txt"));
}

#[test]
fn options_are_checked() {
    let folder = tempdir().unwrap();
    save(&folder.path().join("a.png"), &rgb(4, 4, [1, 2, 3]), ImageFormat::Png);
    for (options, said) in [
        (DataOptions { holdout: 1.0, ..DataOptions::default() }, "data.holdout"),
        (DataOptions { holdout: f64::NAN, ..DataOptions::default() }, "data.holdout"),
        (sized(0, 8), "data.size"),
        (sized(8, 100_000), "data.size"),
        (DataOptions { channels: Some(0), ..DataOptions::default() }, "data.channels"),
    ] {
        assert!(refusal(folder.path(), &options).contains(said));
    }
    let text =
        "size = 64\ncrop = \"center\"\nresize = \"box\"\nrange = \"-1..1\"\nlayout = \"NCHW\"\non_error = \"skip\"\n";
    let read: DataOptions = toml::from_str(text).unwrap();
    assert_eq!(read.size, Some(Size::square(64)));
    let again: DataOptions = toml::from_str(&toml::to_string(&read).unwrap()).unwrap();
    assert_eq!(read, again);
    let two: DataOptions = toml::from_str("size = [48, 64]").unwrap();
    assert_eq!(two.size, Some(Size { height: 48, width: 64 }));
    assert!(toml::from_str::<DataOptions>("size = \"big\"").unwrap_err().to_string().contains("[height, width]"));
    assert!(toml::from_str::<DataOptions>("sise = 3").is_err());
}

#[test]
fn settings_of_a_run_become_options() {
    let mut settings = DataSettings::default();
    assert_eq!(DataOptions::from_settings(&settings).unwrap(), DataOptions::default());
    settings.size = SampleSize::Square(64);
    settings.crop = "random".to_owned();
    settings.resize = "box".to_owned();
    settings.channels = 3;
    settings.range = "-1..1".to_owned();
    settings.layout = "NCHW".to_owned();
    settings.on_error = "skip".to_owned();
    settings.cache_mb = 2;
    let wanted = DataOptions {
        size: Some(Size::square(64)),
        crop: Crop::Random,
        resize: Filter::Box,
        channels: Some(3),
        range: Some(Range::Symmetric),
        layout: Some(Layout::Nchw),
        on_error: OnError::Skip,
        cache_bytes: Some(2 << 20),
        ..DataOptions::default()
    };
    assert_eq!(DataOptions::from_settings(&settings).unwrap(), wanted);
    settings.crop = "round".to_owned();
    let message = DataOptions::from_settings(&settings).unwrap_err().to_string();
    assert!(message.starts_with("data.crop: ") && message.contains("got \"round\""), "{message}");
}

#[test]
fn every_truncation_of_an_archive_is_an_error() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("cut");
    let images = npy(&[6, 8, 8, 3], &noise(9, 6 * 192));
    let whole = npz(&[("images", images.clone()), ("labels", npy(&[6], &[0_u8; 6]))], true);
    for bytes in [whole, images.clone(), gzip(&images)] {
        for length in (0..bytes.len()).step_by(bytes.len() / 100) {
            fs::write(&path, &bytes[..length]).unwrap();
            refusal(&path, &DataOptions::default());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn flipped_bytes_never_panic(kind in 0_usize..8, places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let picture = image::RgbImage::from_raw(12, 10, noise(1, 360)).unwrap().into();
        let array = npy(&[6, 8, 8], &noise(9, 6 * 64));
        let mut bytes = match kind {
            0 => picture_bytes(&picture, ImageFormat::Png),
            1 => picture_bytes(&picture, ImageFormat::Jpeg),
            2 => picture_bytes(&picture, ImageFormat::WebP),
            3 => picture_bytes(&picture, ImageFormat::Gif),
            4 => picture_bytes(&picture, ImageFormat::Tiff),
            5 => array,
            6 => npz(&[("images", array)], true),
            _ => idx(&[6, 8, 8], &noise(9, 6 * 64)),
        };
        for (place, byte) in places {
            let place = place.index(bytes.len());
            bytes[place] ^= byte;
        }
        // As the only file of a folder, and as a file given.
        let folder = tempdir().unwrap();
        let mut file = fs::File::create(folder.path().join("a.png")).unwrap();
        file.write_all(&bytes).unwrap();
        for path in [folder.path().to_path_buf(), folder.path().join("a.png")] {
            if let Ok(data) = open(&path, &DataOptions::default()) {
                pixels(&data);
            }
        }
    }
}
