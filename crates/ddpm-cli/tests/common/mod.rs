//! What tests of the program share.
#![allow(clippy::unwrap_used, dead_code)] // each test takes what it needs

use std::{fs, path::Path};

use assert_cmd::{Command, cargo::cargo_bin_cmd};
use npyz::WriterBuilder;

/// A tiny network that learns 8x8 pictures in no time.
pub(crate) const TINY: &[&str] = &[
    "--set",
    "network.block_out_channels=8,8",
    "--set",
    "network.down_block_types=DownBlock2D,AttnDownBlock2D",
    "--set",
    "network.norm_num_groups=4",
    "--set",
    "network.layers_per_block=1",
    "--set",
    "data.size=8",
    "--set",
    "train.batch=4",
    "--set",
    "preview.count=0",
    "--set",
    "checkpoint.every=1",
    "--steps",
    "2",
    "--device",
    "cpu",
];

pub(crate) fn ddpm(folder: &Path) -> Command {
    let mut command = cargo_bin_cmd!("ddpm");
    command.current_dir(folder);
    command
}

/// Runs a command that must fail, and checks the form of its message.
pub(crate) fn fails(folder: &Path, args: &[&str], code: i32, parts: &[&str]) {
    let output = ddpm(folder).args(args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let shown = format!("ddpm {}\n{stdout}{stderr}", args.join(" "));
    assert_eq!(output.status.code(), Some(code), "{shown}");
    for bad in ["panicked", "RUST_BACKTRACE", "a mistake in the program"] {
        assert!(!stderr.contains(bad), "{shown}");
    }
    let lines = |start: &str| stderr.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!((lines("error: "), lines("where: "), lines("hint: ")), (1, 1, 1), "{shown}");
    for part in parts {
        assert!(stderr.contains(part), "no `{part}` in: {shown}");
    }
}

/// Runs a command that must succeed.
pub(crate) fn works(folder: &Path, args: &[&str]) -> String {
    let output = ddpm(folder).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ddpm {}\n{text}", args.join(" "));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn npy(path: &Path, shape: &[u64], values: &[f32]) {
    let file = fs::File::create(path).unwrap();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd().unwrap();
    writer.extend(values.iter().copied()).unwrap();
    writer.finish().unwrap();
}

/// [`TINY`] without its number of steps.
pub(crate) fn tiny_network() -> Vec<&'static str> {
    TINY.iter().copied().filter(|word| !["--steps", "2"].contains(word)).collect()
}

/// Makes the folder `pictures`: twelve grey slopes of 8x8, each a little lighter than the one before.
pub(crate) fn pictures(folder: &Path) {
    let pictures = folder.join("pictures");
    fs::create_dir(&pictures).unwrap();
    for i in 0..12u8 {
        let picture = image::GrayImage::from_fn(8, 8, |x, y| image::Luma([100 + i + 4 * (x as u8) + y as u8]));
        picture.save(pictures.join(format!("{i}.png"))).unwrap();
    }
}

/// A folder of one's own with a copy of another.
pub(crate) fn copy_of(other: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(other, folder.path());
    folder
}
