//! MNIST's IDX files and CIFAR's binaries.

use std::fs;

use ddpm_train::data::{DataOptions, Source, open, recognise};
use tempfile::tempdir;

use crate::make::{gzip, idx, noise, pixels, refusal};

const CLASSES: fn() -> DataOptions = || DataOptions { classes: true, ..DataOptions::default() };

#[test]
fn mnist_is_read_from_a_file_or_its_folder() {
    let images = noise(1, 20 * 7 * 6);
    let labels: Vec<u8> = (0..20).map(|n| n % 10).collect();
    for packed in [false, true] {
        let pack = |bytes: Vec<u8>| if packed { gzip(&bytes) } else { bytes };
        let end = if packed { ".gz" } else { "" };
        let folder = tempdir().unwrap();
        let file = |name: &str| folder.path().join(format!("{name}{end}"));
        fs::write(file("train-images-idx3-ubyte"), pack(idx(&[20, 7, 6], &images))).unwrap();
        fs::write(file("train-labels-idx1-ubyte"), pack(idx(&[20], &labels))).unwrap();
        // As many test images: their labels must not be taken for the training ones.
        fs::write(file("t10k-images-idx3-ubyte"), pack(idx(&[20, 7, 6], &[7; 840]))).unwrap();
        fs::write(file("t10k-labels-idx1-ubyte"), pack(idx(&[20], &[3; 20]))).unwrap();
        for path in [folder.path().to_path_buf(), file("train-images-idx3-ubyte")] {
            assert_eq!(recognise(&path).unwrap(), Source::Idx);
            let data = open(&path, &CLASSES()).unwrap();
            assert_eq!((data.count(), data.size(), data.channels()), (20, (7, 6), 1));
            assert_eq!(pixels(&data), images);
            assert_eq!(data.labels().unwrap(), labels.iter().map(|&l| u32::from(l)).collect::<Vec<_>>());
            assert_eq!(data.notes().len(), usize::from(path.is_dir()));
        }
        let test = open(&file("t10k-images-idx3-ubyte"), &CLASSES()).unwrap();
        assert_eq!(test.labels().unwrap(), [3; 20]);
        let message = refusal(&file("train-labels-idx1-ubyte"), &CLASSES());
        assert!(message.contains("MNIST labels"), "{message}");
    }
}

#[test]
fn images_without_labels_do_without() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("images");
    fs::write(&path, idx(&[3, 5, 5], &noise(2, 75))).unwrap();
    assert_eq!(open(&path, &DataOptions::default()).unwrap().count(), 3);
    assert!(refusal(&path, &CLASSES()).contains("without any"));
}

#[test]
fn idx_that_is_cut_short_or_overlong_is_refused() {
    let folder = tempdir().unwrap();
    let whole = idx(&[4, 6, 6], &noise(3, 144));
    for length in [4, 9, 16, 17, 100, 159] {
        for pack in [false, true] {
            let path = folder.path().join("images");
            let cut = &whole[..length];
            fs::write(&path, if pack { gzip(cut) } else { cut.to_vec() }).unwrap();
            refusal(&path, &DataOptions::default());
        }
    }
    let path = folder.path().join("images.gz");
    fs::write(&path, gzip(&[whole, vec![0; 500]].concat())).unwrap();
    assert!(refusal(&path, &DataOptions::default()).contains("found more"));
    fs::write(&path, idx(&[u32::MAX, u32::MAX, u32::MAX], &[])).unwrap();
    refusal(&path, &DataOptions::default());
    fs::write(&path, gzip(&idx(&[u32::MAX, 1 << 15, 1 << 15], &[]))).unwrap();
    assert!(refusal(&path, &DataOptions::default()).contains("over the limit"));
}

/// Records with pixels that follow from (seed, n); also the same pixels as `[N, H, W, C]`.
fn cifar(seed: u64, labels: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
    let (mut file, mut nhwc) = (Vec::new(), Vec::new());
    for (n, label) in labels.iter().enumerate() {
        let planes = noise(seed + n as u64, 3072);
        file.extend_from_slice(label);
        file.extend_from_slice(&planes);
        (0..1024).for_each(|at| nhwc.extend([planes[at], planes[1024 + at], planes[2048 + at]]));
    }
    (file, nhwc)
}

#[test]
fn cifar_10_is_read_from_a_file_or_its_folder() {
    let (first, first_pixels) = cifar(10, &[&[0], &[9], &[3]]);
    let (second, second_pixels) = cifar(20, &[&[5], &[1]]);
    let folder = tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::write(file("data_batch_1.bin"), &first).unwrap();
    fs::write(file("data_batch_2.bin"), gzip(&second)).unwrap();
    fs::write(file("test_batch.bin"), cifar(30, &[&[2]]).0).unwrap();
    let names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
    fs::write(file("batches.meta.txt"), names.join("\n") + "\n\n").unwrap();
    assert_eq!(recognise(folder.path()).unwrap(), Source::Cifar10);
    let data = open(folder.path(), &CLASSES()).unwrap();
    assert_eq!((data.count(), data.size(), data.channels()), (5, (32, 32), 3));
    assert_eq!(data.labels().unwrap(), [0, 9, 3, 5, 1]);
    assert_eq!(data.classes().unwrap(), names);
    assert_eq!(pixels(&data), [first_pixels, second_pixels.clone()].concat());
    let one = open(&file("data_batch_2.bin"), &DataOptions::default()).unwrap();
    assert_eq!(pixels(&one), second_pixels);
    let too_little = DataOptions { cache_bytes: Some(5000), ..CLASSES() };
    assert!(refusal(&file("data_batch_2.bin"), &too_little).contains("over the limit of 5000"));
    // What is not compressed is read again where it does not fit.
    let again = open(&file("data_batch_1.bin"), &too_little).unwrap();
    assert!(!again.in_memory());
    assert_eq!(pixels(&again), cifar(10, &[&[0], &[9], &[3]]).1);
}

#[test]
fn cifar_100_takes_the_fine_label() {
    let (file, nhwc) = cifar(40, &[&[19, 99], &[0, 42]]);
    let folder = tempdir().unwrap();
    let path = folder.path().join("train.bin");
    fs::write(&path, &file).unwrap();
    let data = open(folder.path(), &CLASSES()).unwrap();
    assert_eq!(data.source(), Source::Cifar100);
    assert_eq!(data.labels().unwrap(), [99, 42]);
    assert_eq!(data.classes().unwrap().len(), 100);
    assert_eq!(pixels(&data), nhwc);
    // A label out of range, or one byte too few, and it is no CIFAR.
    for broken in [cifar(40, &[&[20, 99]]).0, file[..file.len() - 1].to_vec()] {
        fs::write(&path, broken).unwrap();
        refusal(&path, &CLASSES());
    }
}
