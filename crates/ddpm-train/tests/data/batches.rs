//! Splits, batches, and what they depend on.

use std::sync::Arc;

use ddpm_train::data::{Crop, DataError, DataOptions, DataSet, Loader, ReadAhead, Source, digits, emoji, open};
use image::{DynamicImage, ImageFormat};
use tempfile::tempdir;

use crate::make::{noise, npy, pixels, save, sized};

/// Images whose every pixel tells which one it is and where it lies.
fn numbered(count: usize, options: &DataOptions) -> Arc<DataSet> {
    let images: Vec<u8> = (0..count * 12).map(|n| (n / 12 * 16 + n % 4 * 3) as u8).collect();
    let labels = (0..count).map(|n| n as u32).collect();
    let set = DataSet::from_pixels("numbered", images, [count, 3, 4, 1], Some(labels), None, options);
    Arc::new(set.unwrap())
}

fn classes() -> DataOptions {
    DataOptions { classes: true, ..DataOptions::default() }
}

#[test]
fn the_embedded_sets_are_what_they_are() {
    let digits = digits(&classes()).unwrap();
    assert_eq!((digits.count(), digits.size(), digits.channels()), (10_000, (28, 28), 1));
    assert_eq!((digits.train_indices(), digits.heldout_indices()), (0..9000, 9000..10_000));
    assert_eq!(digits.classes().unwrap().len(), 10);
    assert_eq!((digits.source(), digits.in_memory()), (Source::Embedded, true));
    let emoji = emoji(&classes()).unwrap();
    assert_eq!((emoji.count(), emoji.size(), emoji.channels()), (1906, (32, 32), 3));
    assert_eq!((emoji.classes().unwrap().len(), emoji.heldout_indices().len()), (9, 191));
    assert_eq!(emoji.classes().unwrap()[2], "Flags");
    // The corners are black and white respectively.
    assert_eq!((pixels(&digits)[0], pixels(&emoji)[0]), (0, 255));
    for set in [&digits, &emoji] {
        let classes = set.classes().unwrap().len() as u32;
        let labels = set.labels().unwrap();
        assert!((0..classes).all(|class| labels.contains(&class)));
        assert_eq!(set.hash().len(), 64);
    }
    assert_ne!(digits.hash(), ddpm_train::data::digits(&DataOptions::default()).unwrap().hash());
}

#[test]
fn a_file_gives_what_is_embedded() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/digits28.npz");
    let file = open(path.as_ref(), &classes()).unwrap();
    assert_eq!(file.hash(), digits(&classes()).unwrap().hash());
}

#[test]
fn the_last_part_is_held_out() {
    for (count, holdout, heldout) in [(16, 0.1, 2), (14, 0.1, 1), (3, 0.1, 1), (10, 0.0, 0), (2, 0.9, 1), (1, 0.1, 0)] {
        let data = numbered(count, &DataOptions { holdout, ..classes() });
        assert_eq!(data.heldout_indices(), count - heldout..count, "{count} {holdout}");
        assert_eq!(data.train_indices(), 0..count - heldout);
    }
    let data = numbered(16, &classes());
    let loader = Loader::new(data, 1);
    let (mut images, mut labels) = (vec![0.0; 24], vec![0; 2]);
    loader.heldout(0, &mut images, &mut labels).unwrap();
    assert_eq!((labels[0], labels[1], images[12]), (14, 15, 240.0 / 127.5 - 1.0));
    assert!(loader.heldout(1, &mut images, &mut labels).is_err());
    assert!(loader.heldout(usize::MAX, &mut images, &mut labels).is_err());
}

#[test]
fn the_sequence_does_not_depend_on_the_batch() {
    let data = numbered(14, &DataOptions { flip: true, ..classes() });
    let loader = Loader::new(Arc::clone(&data), 7);
    let sequence = |batch: usize| {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for step in 0..(120 / batch) as u64 {
            let (mut some, mut their) = (vec![0.0; batch * 12], vec![0; batch]);
            loader.batch(step, &mut some, &mut their).unwrap();
            images.extend(some);
            labels.extend(their);
        }
        (images, labels)
    };
    let (images, labels) = sequence(1);
    for batch in [2, 3, 4, 5, 8, 12] {
        assert_eq!(sequence(batch), (images.clone(), labels.clone()), "batches of {batch}");
    }
    // Every epoch has each of the 13 training images once, and the orders differ.
    let mut orders: Vec<&[u32]> = labels.chunks_exact(13).collect();
    for order in &orders {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..13).collect::<Vec<_>>());
    }
    orders.dedup();
    assert_eq!(orders.len(), 9);
    // Each image is itself or its mirror, both occur, and nothing else.
    let mut mirrored = 0;
    for (image, &label) in images.chunks_exact(12).zip(&labels) {
        let plain: Vec<f32> = (0..12).map(|n| (label * 16 + n % 4 * 3) as f32 / 127.5 - 1.0).collect();
        let mirror: Vec<f32> = (0..12).map(|n| (label * 16 + (3 - n % 4) * 3) as f32 / 127.5 - 1.0).collect();
        assert!(image == plain || image == mirror, "{image:?}");
        mirrored += usize::from(image == mirror);
    }
    assert!((35..85).contains(&mirrored), "{mirrored} of 120");
    assert_ne!(Loader::new(data, 8).draw(0), Loader::new(numbered(14, &classes()), 7).draw(0));
}

#[test]
fn colours_stay_in_order_when_mirrored() {
    let images = noise(4, 8 * 2 * 5 * 3);
    let options = DataOptions { flip: true, ..DataOptions::default() };
    let data = DataSet::from_pixels("colours", images.clone(), [8, 2, 5, 3], None, None, &options).unwrap();
    let loader = Loader::new(Arc::new(data), 3);
    let (mut out, mut labels) = (vec![0.0; 30], vec![0]);
    for position in 0..28 {
        let draw = loader.draw(position);
        loader.batch(position, &mut out, &mut labels).unwrap();
        for (n, &value) in out.iter().enumerate() {
            let (y, x, c) = (n / 15, n / 3 % 5, n % 3);
            let x = if draw.mirror { 4 - x } else { x };
            let byte = images[draw.index * 30 + y * 15 + x * 3 + c];
            assert_eq!(value, f32::from(byte) / 127.5 - 1.0);
        }
    }
}

#[test]
fn random_crops_wander_and_held_out_ones_do_not() {
    let folder = tempdir().unwrap();
    for n in 0..10 {
        // A ramp from left to right, 8 high and 24 wide.
        let ramp = image::GrayImage::from_fn(24, 8, |x, _| image::Luma([(x * 10) as u8]));
        save(&folder.path().join(format!("{n}.png")), &DynamicImage::ImageLuma8(ramp), ImageFormat::Png);
    }
    for cache_bytes in [None, Some(0)] {
        let options = DataOptions { crop: Crop::Random, cache_bytes, ..sized(8, 8) };
        let loader = Loader::new(Arc::new(open(folder.path(), &options).unwrap()), 5);
        let (mut out, mut labels) = (vec![0.0; 9 * 64], vec![0; 9]);
        let mut offsets = std::collections::BTreeSet::new();
        for step in 0..20 {
            loader.batch(step, &mut out, &mut labels).unwrap();
            for image in out.chunks_exact(64) {
                let first = ((image[0] + 1.0) * 12.75).round() as usize;
                assert!(first <= 16);
                assert!((0..64).all(|n| ((image[n] + 1.0) * 12.75).round() as usize == first + n % 8));
                offsets.insert(first);
            }
        }
        assert_eq!(offsets.len(), 17, "{offsets:?}");
        let (mut out, mut labels) = (vec![0.0; 64], vec![0]);
        loader.heldout(0, &mut out, &mut labels).unwrap();
        assert_eq!(((out[0] + 1.0) * 12.75).round(), 8.0);
    }
}

#[test]
fn reading_ahead_changes_nothing() {
    let data = numbered(14, &DataOptions { flip: true, ..classes() });
    let loader = Loader::new(data, 11);
    let mut ahead = ReadAhead::new(loader.clone(), 4, 3).unwrap();
    let (mut a, mut b) = ((vec![0.0; 48], vec![0; 4]), (vec![0.0; 48], vec![0; 4]));
    // Forward, again, back, far on, and other sizes of batch.
    for step in (0..40).chain([39, 39, 2, 3, 4, 1_000_000_007, 0]) {
        loader.batch(step, &mut a.0, &mut a.1).unwrap();
        ahead.batch(step, &mut b.0, &mut b.1).unwrap();
        assert_eq!(a, b, "step {step}");
    }
    ahead.batch(5, &mut b.0[..24], &mut b.1[..2]).unwrap();
    loader.batch(5, &mut a.0[..24], &mut a.1[..2]).unwrap();
    assert_eq!(a, b);
    assert!(ahead.batch(5, &mut b.0[..23], &mut b.1[..2]).is_err());
}

#[test]
fn errors_come_through_reading_ahead_and_do_not_end_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a.npy");
    let array = npy(&[8, 5, 5], &noise(5, 200));
    std::fs::write(&path, &array).unwrap();
    let options = DataOptions { cache_bytes: Some(0), ..DataOptions::default() };
    let loader = Loader::new(Arc::new(open(&path, &options).unwrap()), 11);
    let mut ahead = ReadAhead::new(loader, 7, 2).unwrap();
    let (mut images, mut labels) = (vec![0.0; 7 * 25], vec![0; 7]);
    ahead.batch(0, &mut images, &mut labels).unwrap();
    std::fs::write(&path, &array[..array.len() - 190]).unwrap();
    let failed = (1..6).map(|step| ahead.batch(step, &mut images, &mut labels)).filter(Result::is_err).count();
    assert!(failed >= 3, "{failed}"); // two batches were made already
    std::fs::write(&path, &array).unwrap();
    (6..10).for_each(|step| drop(ahead.batch(step, &mut images, &mut labels)));
    ahead.batch(20, &mut images, &mut labels).unwrap();
}

#[test]
fn a_set_smaller_than_a_batch_is_explained() {
    let data = numbered(14, &classes());
    data.check_batch(13).unwrap();
    let error = ReadAhead::new(Loader::new(data, 0), 64, 2).unwrap_err();
    assert!(matches!(error, DataError::SmallerThanBatch { .. }));
    let wanted = "numbered: 13 images to train on (1 of 14 are held out), fewer than one batch of 64; give a batch \
                  of at most 13, or more images";
    assert_eq!(error.to_string(), wanted);
}

#[test]
fn pixels_of_a_caller_must_fit() {
    let make = |length: usize, shape| {
        DataSet::from_pixels("mine", vec![0; length], shape, None, None, &DataOptions::default())
    };
    assert!(make(24, [2, 3, 4, 1]).is_ok());
    for (length, shape) in [(23, [2, 3, 4, 1]), (0, [0, 3, 4, 1]), (48, [2, 3, 4, 2]), (9, [usize::MAX, 3, 4, 1])] {
        assert!(matches!(make(length, shape), Err(DataError::Call { .. })));
    }
    let data = make(24, [2, 3, 4, 1]).unwrap();
    assert!(data.image(2, &mut [0; 12]).is_err() && data.image(0, &mut [0; 11]).is_err());
}
