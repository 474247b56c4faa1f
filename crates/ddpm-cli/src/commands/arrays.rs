//! Arrays in files: `.npy` in, `.npy` and `.npz` out.

use std::{fs::File, io::BufReader, path::Path};

use anyhow::{Context, Result};
use ddpm_tensor::{Device, Tensor, read_npy, write_npy};
use npyz::WriterBuilder;

use crate::{failure::Explain, picture::png::appear};

/// Reads numbers of any type as f32.
pub(super) fn read<D: Device<Elem = f32>>(device: &D, path: &Path) -> Result<Tensor<D>> {
    let file = File::open(path).context("cannot open this array").at(path.display())?;
    read_npy(device, BufReader::new(file)).at(path.display()).next("numpy.save writes such a file")
}

/// Writes one array as `.npy`.
pub(super) fn write<D: Device<Elem = f32>>(device: &D, path: &Path, tensor: &Tensor<D>) -> Result<()> {
    appear(path, |file| Ok(write_npy(device, tensor, std::io::BufWriter::new(file))?)).at(path.display())
}

/// Writes dense numbers of a shape as `.npy`.
pub(super) fn write_values(path: &Path, shape: &[usize], values: &[f32]) -> Result<()> {
    appear(path, |file| {
        let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
        let out = std::io::BufWriter::new(file);
        let mut writer = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(out).begin_nd()?;
        writer.extend(values.iter().copied())?;
        Ok(writer.finish()?)
    })
    .at(path.display())
}

/// One array of an `.npz`.
pub(super) struct Array<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its shape.
    pub(super) shape: Vec<usize>,
    /// Its numbers.
    pub(super) values: Values<'a>,
}

/// Numbers of one type.
pub(super) enum Values<'a> {
    /// `<f4`.
    F32(&'a [f32]),
    /// `<i8`, 64 bits.
    I64(Vec<i64>),
}

/// Writes arrays as `.npz`.
#[allow(clippy::default_trait_access)] // the options' type is of a crate that npyz keeps to itself
pub(super) fn write_npz<'a>(path: &Path, arrays: impl IntoIterator<Item = Array<'a>>) -> Result<()> {
    appear(path, |file| {
        let mut npz = npyz::npz::NpzWriter::new(std::io::BufWriter::new(file));
        for Array { name, shape, values } in arrays {
            let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
            match values {
                Values::F32(values) => {
                    let mut out = npz.array(name, Default::default())?.default_dtype().shape(&shape).begin_nd()?;
                    out.extend(values.iter().copied())?;
                    out.finish()?;
                }
                Values::I64(values) => {
                    let mut out = npz.array(name, Default::default())?.default_dtype().shape(&shape).begin_nd()?;
                    out.extend(values)?;
                    out.finish()?;
                }
            }
        }
        Ok(())
    })
    .at(path.display())
}
