//! Files of reference statistics: `mu` and `sigma` (pytorch-fid, EDM; with `mu_s` and `sigma_s` for sFID in ADM's), `m2` and
//! `s2` (denoising-diffusion-pytorch), or images alone (`arr_0`, ADM). Written in EDM's form.

use std::io::{Read, Seek, Write};

use npyz::npz::{NpzArchive, NpzWriter};
use npyz::{DType, TypeChar, WriterBuilder};
use serde::{Deserialize, Serialize};

use super::error::EvalError;
use super::statistics::Statistics;

/// What a file of statistics says that it is of, where it says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// The feature network.
    pub features: String,
    /// BLAKE3 of its weights.
    pub features_hash: String,
    /// How images were brought to its size.
    pub resize: String,
    /// Number of images.
    pub n: usize,
}

/// What a file of statistics holds.
#[derive(Debug, Clone, PartialEq)]
pub enum ReferenceFile {
    /// Mean and covariance.
    Statistics {
        /// Of the features.
        pooled: Statistics,
        /// Of the features with places, if they are there.
        placed: Option<Statistics>,
        /// What it is of, if we wrote it.
        about: Option<Reference>,
    },
    /// Images: their features are to be made.
    Images,
}

/// Names of mean and covariance, by program.
const NAMES: [(&str, &str); 2] = [("mu", "sigma"), ("m2", "s2")];
/// The same of features with places.
const PLACED: (&str, &str) = ("mu_s", "sigma_s");
/// The array in which we say what it is of.
const ABOUT: &str = "about";
/// Names of arrays of images.
const IMAGES: [&str; 2] = ["arr_0", "images"];

impl ReferenceFile {
    /// Reads an `.npz` file.
    ///
    /// # Errors
    /// [`EvalError::Statistics`] says what is there instead of statistics.
    pub fn read<R: Read + Seek>(file: R) -> Result<Self, EvalError> {
        let mut npz = NpzArchive::new(file).map_err(|e| wrong("an .npz file", e.to_string()))?;
        let held: Vec<String> = npz.array_names().map(str::to_owned).collect();
        let has =
            |(mean, covariance): (&str, &str)| [mean, covariance].iter().all(|name| held.iter().any(|h| h == name));
        let Some(names) = NAMES.into_iter().find(|&names| has(names)) else {
            if IMAGES.iter().any(|name| held.iter().any(|h| h == name)) {
                return Ok(Self::Images);
            }
            let expected = "`mu` and `sigma`, `m2` and `s2`, or images in `arr_0`";
            return Err(wrong(expected, format!("the arrays {}", held.join(", "))));
        };
        let pooled = statistics(&mut npz, names)?;
        let placed = has(PLACED).then(|| statistics(&mut npz, PLACED)).transpose()?;
        let about = if held.iter().any(|name| name == ABOUT) {
            let bytes = npz.by_name(ABOUT).ok().flatten().and_then(|array| array.into_vec::<u8>().ok());
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok())
        } else {
            None
        };
        Ok(Self::Statistics { pooled, placed, about })
    }
}

fn wrong(expected: &str, got: String) -> EvalError {
    EvalError::Statistics { expected: expected.to_owned(), got }
}

fn statistics<R: Read + Seek>(
    npz: &mut NpzArchive<R>,
    (mean, covariance): (&str, &str),
) -> Result<Statistics, EvalError> {
    let mut numbers = |name: &str| -> Result<(Vec<u64>, Vec<f64>), EvalError> {
        let broken = |e: std::io::Error| wrong(&format!("numbers in `{name}`"), e.to_string());
        let array = npz.by_name(name).map_err(broken)?.ok_or_else(|| wrong(&format!("`{name}`"), "nothing".into()))?;
        let shape = array.shape().to_vec();
        let values = match array.dtype() {
            DType::Plain(plain) if plain.type_char() == TypeChar::Float && plain.size_field() == 4 => {
                array.into_vec::<f32>().map_err(broken)?.into_iter().map(f64::from).collect()
            }
            DType::Plain(plain) if plain.type_char() == TypeChar::Float && plain.size_field() == 8 => {
                array.into_vec::<f64>().map_err(broken)?
            }
            other => return Err(wrong(&format!("`{name}` of f32 or f64"), other.descr())),
        };
        Ok((shape, values))
    };
    let (mean_shape, mean_values) = numbers(mean)?;
    let (shape, values) = numbers(covariance)?;
    let width = mean_values.len() as u64;
    if mean_shape != [width] || shape != [width, width] {
        let got = format!("{mean_shape:?} and {shape:?}");
        return Err(wrong(&format!("a vector `{mean}` and a square `{covariance}` of its width"), got));
    }
    // a covariance is symmetric: rows or columns first is the same
    Ok(Statistics { mean: mean_values, covariance: values })
}

/// Writes statistics as EDM does: `mu`, `sigma`; `mu_s`, `sigma_s` where they are known; and what they are of.
///
/// # Errors
/// Those of writing.
#[allow(clippy::default_trait_access)] // the options' type is of a crate that npyz keeps to itself
pub fn write<W: Write + Seek>(
    file: W,
    pooled: &Statistics,
    placed: Option<&Statistics>,
    about: &Reference,
) -> std::io::Result<()> {
    let mut npz = NpzWriter::new(file);
    let sets = [Some(("mu", "sigma", pooled)), placed.map(|placed| (PLACED.0, PLACED.1, placed))];
    for (mean, covariance, statistics) in sets.into_iter().flatten() {
        let width = statistics.width() as u64;
        let arrays = [(mean, vec![width], &statistics.mean), (covariance, vec![width; 2], &statistics.covariance)];
        for (name, shape, values) in arrays {
            let mut out = npz.array(name, Default::default())?.default_dtype().shape(&shape).begin_nd()?;
            out.extend(values.iter().copied())?;
            out.finish()?;
        }
    }
    let text = serde_json::to_vec(about)?;
    let mut out = npz.array(ABOUT, Default::default())?.default_dtype().shape(&[text.len() as u64]).begin_nd()?;
    out.extend(text)?;
    out.finish()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn about() -> Reference {
        Reference { features: "f".into(), features_hash: "h".into(), resize: "none".into(), n: 7 }
    }

    #[test]
    fn what_is_written_is_read() {
        let pooled = Statistics { mean: vec![1.0, 2.0], covariance: vec![1.0, 0.5, 0.5, 2.0] };
        let placed = Statistics { mean: vec![3.0], covariance: vec![4.0] };
        for placed in [Some(placed), None] {
            let mut file = Cursor::new(Vec::new());
            write(&mut file, &pooled, placed.as_ref(), &about()).unwrap();
            let read = ReferenceFile::read(Cursor::new(file.into_inner())).unwrap();
            assert_eq!(read, ReferenceFile::Statistics { pooled: pooled.clone(), placed, about: Some(about()) });
        }
    }

    fn npz(arrays: &[(&str, &[u64])]) -> Cursor<Vec<u8>> {
        let mut file = Cursor::new(Vec::new());
        let mut npz = NpzWriter::new(&mut file);
        for (name, shape) in arrays {
            let options = npz.array(name, npyz::zip::write::FileOptions::default()).unwrap();
            let mut out = options.default_dtype().shape(shape).begin_nd().unwrap();
            out.extend((0..shape.iter().product()).map(|i: u64| i as f32)).unwrap();
            out.finish().unwrap();
        }
        drop(npz);
        Cursor::new(file.into_inner())
    }

    #[test]
    fn files_of_other_programs() {
        let of = |arrays: &[(&str, &[u64])]| ReferenceFile::read(npz(arrays));
        let statistics = |file| match file {
            ReferenceFile::Statistics { pooled, placed, about: None } => (pooled.width(), placed.map(|p| p.width())),
            other => panic!("{other:?}"),
        };
        assert_eq!(statistics(of(&[("m2", &[3]), ("s2", &[3, 3])]).unwrap()), (3, None));
        let adm: [(&str, &[u64]); 4] = [("mu", &[2]), ("sigma", &[2, 2]), ("mu_s", &[3]), ("sigma_s", &[3, 3])];
        assert_eq!(statistics(of(&adm).unwrap()), (2, Some(3)));
        assert_eq!(of(&[("arr_0", &[2, 4, 4, 3])]).unwrap(), ReferenceFile::Images);
        for bad in [&[("mu", &[3_u64][..]), ("sigma", &[3, 2])][..], &[("x", &[3])]] {
            let message = of(bad).unwrap_err().to_string();
            assert!(message.contains("mu"), "{message}");
        }
        assert!(ReferenceFile::read(Cursor::new(b"nothing".to_vec())).is_err());
    }
}
