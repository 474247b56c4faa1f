//! `.npy` and `.npz`: types, layouts, ranges, labels.

use std::fs;

use ddpm_train::data::{DataOptions, DataSet, Layout, OnError, Range, Source, open, recognise};
use tempfile::tempdir;

use crate::make::{gzip, noise, npy, npz, pixels, refusal, sized};

fn open_bytes(bytes: &[u8], options: &DataOptions) -> DataSet {
    let folder = tempdir().unwrap();
    // The name says nothing of the content.
    let path = folder.path().join("file.dat");
    fs::write(&path, bytes).unwrap();
    open(&path, options).unwrap()
}

fn refused(bytes: &[u8], options: &DataOptions) -> String {
    let folder = tempdir().unwrap();
    let path = folder.path().join("file.dat");
    fs::write(&path, bytes).unwrap();
    refusal(&path, options)
}

#[test]
fn npz_is_read_in_every_way_it_is_stored() {
    let images = noise(1, 10 * 5 * 6 * 3);
    let labels: Vec<i64> = (0..10).map(|n| n % 3).collect();
    let members = [("images", npy(&[10, 5, 6, 3], &images)), ("labels", npy(&[10], &labels))];
    let options = DataOptions { classes: true, ..DataOptions::default() };
    let mut hashes = Vec::new();
    for deflate in [false, true] {
        for cache_bytes in [None, Some(700)] {
            let options = DataOptions { cache_bytes: cache_bytes.filter(|_| !deflate), ..options.clone() };
            let folder = tempdir().unwrap();
            let path = folder.path().join("x.bin");
            fs::write(&path, npz(&members, deflate)).unwrap();
            let data = open(&path, &options).unwrap();
            assert_eq!(data.source(), Source::Npz);
            assert_eq!((data.count(), data.size(), data.channels()), (10, (5, 6), 3));
            assert_eq!(pixels(&data), images);
            assert_eq!(data.labels().unwrap(), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
            assert_eq!(data.classes().unwrap(), ["0", "1", "2"]);
            hashes.push(data.hash().to_owned());
        }
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 1);
    // Without classes the labels count for nothing, not even for the hash.
    let without = open_bytes(&npz(&members, true), &DataOptions::default());
    assert!(without.labels().is_none() && without.classes().is_none());
    assert_ne!(without.hash(), hashes[0]);
}

#[test]
fn the_images_are_found_among_other_arrays() {
    let images = noise(2, 6 * 5 * 5);
    let array = npy(&[6, 5, 5], &images);
    let labels = npy(&[6], &[1_u8; 6]);
    for members in [
        vec![("arr_0", array.clone()), ("arr_1", labels.clone())],
        vec![("pictures", array.clone()), ("y", labels.clone())],
        vec![("a", npy(&[2, 2], &[0_u8; 4])), ("b", array.clone()), ("labels", labels)],
        vec![("x_train", array.clone()), ("z", npy(&[6, 2, 2], &[0_u8; 24]))],
    ] {
        assert_eq!(pixels(&open_bytes(&npz(&members, true), &DataOptions::default())), images);
    }
    let two = npz(&[("a", array.clone()), ("b", array)], true);
    let message = refused(&two, &DataOptions::default());
    assert!(message.contains("a [6, 5, 5], b [6, 5, 5]"), "{message}");
}

#[test]
fn layouts_are_recognised_or_told() {
    // Pixel (n, y, x, c) has the value 100n + 10y + 3x + c, in whichever order it is stored.
    let value = |n: usize, y: usize, x: usize, c: usize| (100 * n + 20 * y + 3 * x + c) as u8;
    let (n, h, w, c) = (2, 5, 6, 3);
    let mut nhwc = Vec::new();
    for i in 0..n * h * w * c {
        nhwc.push(value(i / (h * w * c), i / (w * c) % h, i / c % w, i % c));
    }
    let mut nchw = Vec::new();
    for i in 0..n * h * w * c {
        nchw.push(value(i / (h * w * c), i / w % h, i % w, i / (h * w) % c));
    }
    let options = DataOptions::default();
    for array in [npy(&[2, 5, 6, 3], &nhwc), npy(&[2, 3, 5, 6], &nchw)] {
        let data = open_bytes(&array, &options);
        assert_eq!((data.size(), data.channels()), ((5, 6), 3));
        assert_eq!(pixels(&data), nhwc);
    }
    // [2, 3, 3, 3] may be either.
    let small = npy(&[2, 3, 3, 3], &noise(3, 54));
    assert!(refused(&small, &options).contains("two ways"));
    let told = |layout| DataOptions { layout: Some(layout), ..DataOptions::default() };
    assert_eq!(pixels(&open_bytes(&small, &told(Layout::Nhwc))), noise(3, 54));
    assert_ne!(pixels(&open_bytes(&small, &told(Layout::Nchw))), noise(3, 54));
    assert!(refused(&small, &told(Layout::Nhw)).contains("does not fit data.layout"));
    assert!(refused(&npy(&[8, 8, 3], &noise(4, 192)), &options).contains("may be one image"));
    assert!(refused(&npy(&[8, 784], &noise(4, 8 * 784)), &options).contains("reshape"));
    assert!(refused(&npy(&[8, 5, 5, 7], &noise(4, 8 * 175)), &options).contains("1, 3 or 4 channels"));
    assert!(refused(&npy::<u8>(&[0, 5, 5], &[]), &options).contains("no images"));
}

#[test]
fn every_type_of_number_gives_the_same_bytes() {
    let bytes: Vec<u8> = (0..=255).collect();
    let shape = [4, 8, 8];
    let whole = |b: &u8| i64::from(*b);
    let unit = |b: &u8| f32::from(*b) / 255.0;
    let symmetric = |b: &u8| f64::from(*b) / 127.5 - 1.0;
    let arrays = [
        ("u1", npy(&shape, &bytes)),
        ("u2", npy(&shape, &bytes.iter().map(|&b| u16::from(b) * 257).collect::<Vec<_>>())),
        ("i2", npy(&shape, &bytes.iter().map(|&b| i16::from(b)).collect::<Vec<_>>())),
        ("i8", npy(&shape, &bytes.iter().map(whole).collect::<Vec<_>>())),
        ("f4 0..1", npy(&shape, &bytes.iter().map(unit).collect::<Vec<_>>())),
        ("f8 -1..1", npy(&shape, &bytes.iter().map(symmetric).collect::<Vec<_>>())),
        ("f4 0..255", npy(&shape, &bytes.iter().map(|&b| f32::from(b)).collect::<Vec<_>>())),
    ];
    let hash = open_bytes(&arrays[0].1, &DataOptions::default()).hash().to_owned();
    for (name, array) in arrays {
        for array in [gzip(&array), array] {
            let data = open_bytes(&array, &DataOptions::default());
            assert_eq!(pixels(&data), bytes, "{name}");
            assert_eq!(data.hash(), hash, "{name}");
        }
    }
    // Big-endian floats and half floats, by hand: 1.0 and -1.0.
    let mut header = npy(&[1, 5, 2], &[0_f32; 10]);
    let at = header.windows(3).position(|w| w == b"<f4").unwrap();
    header[at..at + 3].copy_from_slice(b">f4");
    let body = header.len() - 40;
    for (n, value) in [1.0_f32, -1.0].repeat(5).into_iter().enumerate() {
        header[body + 4 * n..body + 4 * n + 4].copy_from_slice(&value.to_be_bytes());
    }
    assert!(refused(&header, &DataOptions::default()).contains("may be one image"));
    let nhw = DataOptions { layout: Some(Layout::Nhw), ..DataOptions::default() };
    assert_eq!(pixels(&open_bytes(&header, &nhw)), [255, 0].repeat(5));
    header[at..at + 3].copy_from_slice(b"<f2");
    header.truncate(body);
    header.extend([0x3c00_u16, 0xbc00].repeat(5).into_iter().flat_map(u16::to_le_bytes));
    assert_eq!(pixels(&open_bytes(&header, &nhw)), [255, 0].repeat(5));
}

#[test]
fn ranges_are_told_or_refused() {
    // Values within 0..1 that are told to be -1..1: black is then a middle grey.
    let array = npy(&[2, 5, 5], &[0.0_f32; 50]);
    let told = |range| DataOptions { range: Some(range), ..DataOptions::default() };
    assert_eq!(pixels(&open_bytes(&array, &DataOptions::default())), [0; 50]);
    assert_eq!(pixels(&open_bytes(&array, &told(Range::Symmetric))), [128; 50]);
    let mut values = vec![0.5_f32; 50];
    values[30] = 3.0;
    let array = npy(&[2, 5, 5], &values);
    let message = refused(&array, &told(Range::Unit));
    assert!(message.contains("image 1 holds pixels from 0.5 to 3"), "{message}");
    values[30] = -300.0;
    let message = refused(&npy(&[2, 5, 5], &values), &DataOptions::default());
    assert!(message.contains("image 1 holds pixels from -300 to 0.5"), "{message}");
    let message = refused(&npy(&[2, 5, 5], &[300_i32; 50]), &DataOptions::default());
    assert!(message.contains("whole numbers within 0..255"), "{message}");
}

#[test]
fn nan_and_infinity_are_named_or_skipped() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut values = vec![0.5_f32; 4 * 5 * 6 * 3];
        values[2 * 90 + 3 * 18 + 4 * 3 + 1] = bad;
        let array = npy(&[4, 5, 6, 3], &values);
        let message = refused(&array, &DataOptions::default());
        assert!(message.contains(&format!("image 2 has the value {bad} at row 3, column 4, channel 1")), "{message}");
        let skip = DataOptions { on_error: OnError::Skip, ..DataOptions::default() };
        let data = open_bytes(&array, &skip);
        assert_eq!((data.count(), data.skipped().len()), (3, 1));
        assert!(data.skipped()[0].name.starts_with("image 2 of "), "{:?}", data.skipped());
        assert_eq!(pixels(&data), vec![128; 3 * 90]);
        // Channels first: the same place is counted the other way.
        let mut values = vec![0.5_f32; 4 * 3 * 5 * 6];
        values[90 + 2 * 30 + 3 * 6 + 4] = bad;
        let message = refused(&npy(&[4, 3, 5, 6], &values), &DataOptions::default());
        assert!(message.contains("image 1 has") && message.contains("row 3, column 4, channel 2"), "{message}");
    }
}

#[test]
fn labels_that_do_not_fit_are_explained() {
    let images = npy(&[5, 6, 6], &noise(5, 180));
    let classes = DataOptions { classes: true, ..DataOptions::default() };
    let with = |labels: Vec<u8>| npz(&[("images", images.clone()), ("labels", labels)], true);
    let message = refused(&npz(&[("images", images.clone())], true), &classes);
    assert!(message.contains("labels (data.classes = true)"), "{message}");
    let message = refused(&with(npy(&[4], &[0_u8; 4])), &classes);
    assert!(message.contains("one label for each of 5 images, found 4"), "{message}");
    let message = refused(&with(npy(&[5], &[0_i32, 1, -1, 0, 0])), &classes);
    assert!(message.contains("found -1 for image 2"), "{message}");
    let message = refused(&with(npy(&[5], &[0.0_f32, 1.0, 1.5, 0.0, 0.0])), &classes);
    assert!(message.contains("found 1.5 for image 2"), "{message}");
    assert_eq!(
        open_bytes(&with(npy(&[5], &[0.0_f32, 1.0, 2.0, 0.0, 0.0])), &classes).labels().unwrap(),
        [0, 1, 2, 0, 0]
    );
}

#[test]
fn arrays_are_resized_and_recoloured_too() {
    let image: Vec<u8> = (0..3 * 8 * 8).map(|n| if n % 8 < 4 { 0 } else { 255 }).collect();
    let options = DataOptions { channels: Some(3), ..sized(4, 4) };
    let data = open_bytes(&npy(&[3, 8, 8], &image), &options);
    assert_eq!((data.size(), data.channels(), data.count()), ((4, 4), 3, 3));
    let first = &pixels(&data)[..12];
    assert!(first[..3].iter().all(|&v| v < 20) && first[9..].iter().all(|&v| v > 235), "{first:?}");
}

#[test]
fn a_folder_with_one_array_is_that_array() {
    let folder = tempdir().unwrap();
    let array = npy(&[3, 5, 5], &noise(6, 75));
    fs::write(folder.path().join("a.npy"), &array).unwrap();
    fs::write(folder.path().join("notes.txt"), "about them").unwrap();
    assert_eq!(recognise(folder.path()).unwrap(), Source::Npy);
    assert_eq!(pixels(&open(folder.path(), &DataOptions::default()).unwrap()), noise(6, 75));
    fs::write(folder.path().join("b.npy"), &array).unwrap();
    let message = refusal(folder.path(), &DataOptions::default());
    assert!(message.contains("2 array files"), "{message}");
}
