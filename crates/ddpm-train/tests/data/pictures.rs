//! Folders of pictures: formats, colours, sizes, classes.

use std::fs;
use std::io::Write;

use ddpm_train::data::{Crop, DataOptions, Filter, OnError, Source, open, survey};
use flate2::{Compression, Crc, write::ZlibEncoder};
use image::{DynamicImage, ImageFormat};
use tempfile::tempdir;

use crate::make::{grey, noise, picture_bytes, pixels, refusal, rgb, save, sized};

/// A PNG made by hand, in any depth and colour type, interlaced or not, of samples `at(y, x)`.
fn png(
    [height, width]: [usize; 2],
    depth: u8,
    colour: u8,
    interlaced: bool,
    palette: Option<&[u8]>,
    at: impl Fn(usize, usize) -> Vec<u16>,
) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], body: &[u8]| {
        file.extend((body.len() as u32).to_be_bytes());
        let mut crc = Crc::new();
        crc.update(kind);
        crc.update(body);
        file.extend(kind);
        file.extend(body);
        file.extend(crc.sum().to_be_bytes());
    };
    let mut header = Vec::new();
    header.extend((width as u32).to_be_bytes());
    header.extend((height as u32).to_be_bytes());
    header.extend([depth, colour, 0, 0, u8::from(interlaced)]);
    chunk(b"IHDR", &header);
    if let Some(palette) = palette {
        chunk(b"PLTE", palette);
    }
    // Adam7: (first row, first column, step down, step right) of each pass.
    let adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)];
    let passes = if interlaced { adam7.as_slice() } else { &[(0, 0, 1, 1)] };
    let mut raw = Vec::new();
    for &(top, left, down, right) in passes {
        for y in (top..height).step_by(down) {
            if left >= width {
                continue;
            }
            raw.push(0);
            let mut bits = Vec::new();
            for sample in (left..width).step_by(right).flat_map(|x| at(y, x)) {
                bits.extend((0..depth).rev().map(|bit| (sample >> bit & 1) as u8));
            }
            raw.extend(bits.chunks(8).map(|byte| byte.iter().enumerate().fold(0, |n, (at, bit)| n | bit << (7 - at))));
        }
    }
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
    zlib.write_all(&raw).unwrap();
    chunk(b"IDAT", &zlib.finish().unwrap());
    chunk(b"IEND", &[]);
    file
}

/// The channels and pixels of one picture as a set of its own.
fn read(bytes: &[u8], options: &DataOptions) -> (usize, Vec<u8>) {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("picture"), bytes).unwrap();
    let data = open(folder.path(), options).unwrap();
    (data.channels(), pixels(&data))
}

#[test]
fn every_kind_of_png_gives_its_pixels() {
    let options = DataOptions::default();
    let size = [11, 13];
    for interlaced in [false, true] {
        // Grey of 1 to 16 bits: a ramp, stretched to 8 bits.
        for depth in [1, 2, 4, 8, 16] {
            let most = (1_u32 << depth) - 1;
            let sample = |y: usize, x: usize| ((y * 13 + x) as u32 * 40503 % (most + 1)) as u16;
            let file = png(size, depth, 0, interlaced, None, |y, x| vec![sample(y, x)]);
            let wanted: Vec<u8> = (0..11 * 13)
                .map(|n| (f64::from(sample(n / 13, n % 13)) * 255.0 / f64::from(most)).round() as u8)
                .collect();
            assert_eq!(read(&file, &options), (1, wanted), "grey {depth} bits, interlaced {interlaced}");
        }
        // Palettes of 1 to 8 bits.
        for depth in [1, 2, 4, 8_u8] {
            let palette = noise(u64::from(depth), 3 << depth);
            let entry = |y: usize, x: usize| (y * 7 + x * 3) % (1 << depth);
            let file = png(size, depth, 3, interlaced, Some(&palette), |y, x| vec![entry(y, x) as u16]);
            let wanted: Vec<u8> =
                (0..11 * 13).flat_map(|n| palette[3 * entry(n / 13, n % 13)..][..3].to_vec()).collect();
            assert_eq!(read(&file, &options), (3, wanted), "palette {depth} bits, interlaced {interlaced}");
        }
        // RGB, grey with alpha, RGBA.
        let value = |y: usize, x: usize, c: usize| (y * 20 + x * 5 + c * 60) as u8;
        for depth in [8, 16_u8] {
            let wide = |v: u8| if depth == 16 { u16::from(v) * 257 } else { u16::from(v) };
            let file = png(size, depth, 2, interlaced, None, |y, x| (0..3).map(|c| wide(value(y, x, c))).collect());
            let wanted: Vec<u8> = (0..11 * 13 * 3).map(|n| value(n / 39, n / 3 % 13, n % 3)).collect();
            assert_eq!(read(&file, &options), (3, wanted), "RGB {depth} bits, interlaced {interlaced}");
            // Transparent on the left, which is white then.
            let alpha = |x: usize| if x < 6 { 0 } else { 255 };
            let file = png(size, depth, 4, interlaced, None, |y, x| vec![wide(value(y, x, 0)), wide(alpha(x))]);
            let shown = |y, x, c| if x < 6 { 255 } else { value(y, x, c) };
            let wanted: Vec<u8> = (0..11 * 13).map(|n| shown(n / 13, n % 13, 0)).collect();
            assert_eq!(read(&file, &options), (1, wanted), "grey and alpha {depth} bits, interlaced {interlaced}");
            let file = png(size, depth, 6, interlaced, None, |y, x| {
                (0..3).map(|c| wide(value(y, x, c))).chain([wide(alpha(x))]).collect()
            });
            let wanted: Vec<u8> = (0..11 * 13 * 3).map(|n| shown(n / 39, n / 3 % 13, n % 3)).collect();
            assert_eq!(read(&file, &options), (3, wanted), "RGBA {depth} bits, interlaced {interlaced}");
            let four = DataOptions { channels: Some(4), ..DataOptions::default() };
            let kept: Vec<u8> = (0..11 * 13 * 4)
                .map(|n| if n % 4 == 3 { alpha(n / 4 % 13) } else { value(n / 52, n / 4 % 13, n % 4) })
                .collect();
            assert_eq!(read(&file, &four), (4, kept));
        }
    }
    // One pixel wide, and one pixel in all.
    for size in [[9, 1], [1, 9], [1, 1]] {
        let file = png(size, 2, 0, true, None, |y, x| vec![((y + x) % 4) as u16]);
        let wanted: Vec<u8> = (0..size[0] * size[1]).map(|n| (n % 4 * 85) as u8).collect();
        assert_eq!(read(&file, &options), (1, wanted), "{size:?}");
    }
}

#[test]
fn every_format_is_recognised_under_any_name() {
    let folder = tempdir().unwrap();
    let picture = rgb(16, 16, [200, 100, 50]);
    let formats =
        [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
    for (n, format) in formats.into_iter().enumerate() {
        let name = ["a.jpg", "b/c.png", "b/d", "b/e/f.txt", "g.JPEG", ".k/h.gif"][n];
        save(&folder.path().join(name.trim_start_matches('.')), &picture, format);
    }
    fs::write(folder.path().join("notes.txt"), "nothing to see").unwrap();
    fs::write(folder.path().join(".hidden.png"), "no picture").unwrap();
    let data = open(folder.path(), &DataOptions::default()).unwrap();
    assert_eq!((data.source(), data.count(), data.size(), data.channels()), (Source::Folder, 6, (16, 16), 3));
    for pixel in pixels(&data).chunks_exact(3) {
        let worst = pixel.iter().zip([200, 100, 50]).map(|(&a, b)| i32::from(a).abs_diff(b)).max();
        assert!(worst <= Some(4), "{pixel:?}"); // JPEG is not exact
    }
    assert!(data.notes()[0].contains("1 files") && data.notes()[0].contains("notes.txt"), "{:?}", data.notes());
    // 16 bits in TIFF.
    let deep = image::ImageBuffer::from_fn(4, 4, |x, y| image::Luma([(x * 4 + y) as u16 * 4000]));
    let file = picture_bytes(&DynamicImage::ImageLuma16(deep), ImageFormat::Tiff);
    let (channels, bytes) = read(&file, &DataOptions::default());
    assert_eq!(
        (channels, bytes[1], bytes[15]),
        (1, (16000.0_f32 / 257.0).round() as u8, (60000.0_f32 / 257.0).round() as u8)
    );
}

#[test]
fn channels_follow_the_pixels_not_the_format() {
    let folder = tempdir().unwrap();
    for n in 0..5 {
        // RGB files whose pixels are grey.
        save(&folder.path().join(format!("{n}.png")), &rgb(4, 4, [n * 50; 3]), ImageFormat::Png);
    }
    assert_eq!(open(folder.path(), &DataOptions::default()).unwrap().channels(), 1);
    let three = DataOptions { channels: Some(3), ..DataOptions::default() };
    assert_eq!(open(folder.path(), &three).unwrap().channels(), 3);
    save(&folder.path().join("colour.png"), &rgb(4, 4, [0, 0, 1]), ImageFormat::Png);
    assert_eq!(open(folder.path(), &DataOptions::default()).unwrap().channels(), 3);
    let wrong = DataOptions { channels: Some(2), ..DataOptions::default() };
    assert!(refusal(folder.path(), &wrong).contains("data.channels: expected 1 (grey), 3 (RGB) or 4 (RGBA), got 2"));
}

#[test]
fn mixed_sizes_need_a_size() {
    let folder = tempdir().unwrap();
    save(&folder.path().join("a.png"), &grey(10, 20, 9), ImageFormat::Png);
    save(&folder.path().join("b.png"), &grey(30, 12, 9), ImageFormat::Png);
    let message = refusal(folder.path(), &DataOptions::default());
    assert!(message.contains("10x20") && message.contains("30x12") && message.contains("set data.size"), "{message}");
    let seen = survey(folder.path(), &DataOptions::default()).unwrap();
    assert_eq!((seen.count(), seen.common_size(), seen.least_size(), seen.channels()), (2, None, (10, 12), 1));
    assert_eq!(seen.load(Some((8, 8))).unwrap().size(), (8, 8));
    for crop in [Crop::Centre, Crop::Random, Crop::None] {
        for resize in [Filter::Lanczos3, Filter::Bicubic, Filter::Bilinear, Filter::Box, Filter::Nearest] {
            let options = DataOptions { crop, resize, ..sized(7, 9) };
            let data = open(folder.path(), &options).unwrap();
            assert_eq!((data.count(), data.size()), (2, (7, 9)));
            assert_eq!(pixels(&data), [9; 126], "{crop:?} {resize:?}");
        }
    }
}

#[test]
fn a_camera_held_upright_is_heeded() {
    // A JPEG whose EXIF says "turn by a quarter clockwise" (6): the left half, black, comes up.
    let mut wide = image::GrayImage::from_pixel(32, 16, image::Luma([255]));
    (0..16).for_each(|y| (0..16).for_each(|x| wide.put_pixel(x, y, image::Luma([0]))));
    let mut file = picture_bytes(&DynamicImage::ImageLuma8(wide), ImageFormat::Jpeg);
    let mut exif = b"\xff\xe1\x00\x22Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01".to_vec();
    exif.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0]);
    file.splice(2..2, exif);
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("a.jpg"), file).unwrap();
    let data = open(folder.path(), &DataOptions::default()).unwrap();
    assert_eq!(data.size(), (32, 16));
    let pixels = pixels(&data);
    assert!(pixels[..16 * 14].iter().all(|&v| v < 40) && pixels[16 * 18..].iter().all(|&v| v > 215));
}

#[test]
fn classes_come_from_the_first_level() {
    let folder = tempdir().unwrap();
    for (n, name) in ["dogs/a.png", "cats/b.png", "cats/deep/er/c.png", "ants/d.png"].into_iter().enumerate() {
        save(&folder.path().join(name), &grey(4, 4, n as u8), ImageFormat::Png);
    }
    let classes = DataOptions { classes: true, ..DataOptions::default() };
    let data = open(folder.path(), &classes).unwrap();
    assert_eq!(data.classes().unwrap(), ["ants", "cats", "dogs"]);
    let by_value: Vec<u32> = pixels(&data).chunks(16).map(|image| [2, 1, 1, 0][usize::from(image[0])]).collect();
    assert_eq!(data.labels().unwrap(), by_value);
    // A picture outside of any class.
    save(&folder.path().join("stray.png"), &grey(4, 4, 7), ImageFormat::Png);
    assert!(refusal(folder.path(), &classes).contains("sub-folder of its class"));
    let skip = DataOptions { on_error: OnError::Skip, ..classes.clone() };
    assert_eq!(open(folder.path(), &skip).unwrap().skipped().len(), 1);
    let flat = tempdir().unwrap();
    save(&flat.path().join("a.png"), &grey(4, 4, 7), ImageFormat::Png);
    assert!(refusal(flat.path(), &classes).contains("pictures without sub-folders"));
}

#[test]
fn order_is_mixed_stable_and_little_changed_by_more_files() {
    let folder = tempdir().unwrap();
    let write = |n: u8| save(&folder.path().join(format!("{n:03}.png")), &grey(2, 2, n), ImageFormat::Png);
    let order =
        || pixels(&open(folder.path(), &DataOptions::default()).unwrap()).chunks(4).map(|p| p[0]).collect::<Vec<_>>();
    (0..100).for_each(write);
    let before = order();
    assert_eq!(before, order());
    assert!(!before.is_sorted());
    (100..110).for_each(write);
    let after = order();
    assert_eq!(after.into_iter().filter(|&n| n < 100).collect::<Vec<_>>(), before);
}

#[test]
fn what_does_not_fit_in_memory_is_read_again() {
    let folder = tempdir().unwrap();
    for n in 0..20 {
        let bytes = noise(n, 6 * 5 * 3);
        let picture = image::RgbImage::from_raw(5, 6, bytes).unwrap();
        save(&folder.path().join(format!("{n}.png")), &DynamicImage::ImageRgb8(picture), ImageFormat::Png);
    }
    let whole = open(folder.path(), &DataOptions::default()).unwrap();
    assert!(whole.in_memory());
    for cache_bytes in [0, 1, 90, 500] {
        let options = DataOptions { cache_bytes: Some(cache_bytes), ..DataOptions::default() };
        let data = open(folder.path(), &options).unwrap();
        assert!(!data.in_memory());
        assert_eq!((pixels(&data), data.hash()), (pixels(&whole), whole.hash()));
        // A file that changes meanwhile is noticed.
        let last = data.count() - 1;
        let mut image = vec![0; 90];
        data.image(last, &mut image).unwrap();
        let victim = (0..20)
            .map(|n| folder.path().join(format!("{n}.png")))
            .find(|path| image::open(path).unwrap().into_rgb8().into_raw() == image);
        let victim = victim.unwrap();
        let before = fs::read(&victim).unwrap();
        save(&victim, &rgb(6, 5, [1, 2, 3]), ImageFormat::Png);
        let message = data.image(last, &mut image).unwrap_err().to_string();
        assert!(message.contains("has changed"), "{message}");
        fs::remove_file(&victim).unwrap();
        assert!(data.image(last, &mut image).is_err());
        fs::write(&victim, before).unwrap();
        data.image(last, &mut image).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_once() {
    let folder = tempdir().unwrap();
    let elsewhere = tempdir().unwrap();
    save(&folder.path().join("in/a.png"), &grey(4, 4, 1), ImageFormat::Png);
    save(&elsewhere.path().join("b.png"), &grey(4, 4, 2), ImageFormat::Png);
    std::os::unix::fs::symlink(folder.path(), folder.path().join("in/loop")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("out")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("dangling.png")).unwrap();
    assert_eq!(open(folder.path(), &DataOptions::default()).unwrap().count(), 2);
}
