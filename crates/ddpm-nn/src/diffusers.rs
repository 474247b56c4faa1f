//! The mapping between a network's parameters and diffusers' format: `config.json` and safetensors, text and bytes that
//! the caller reads and writes.
//!
//! Names are the same on both sides. What differs is the order in memory: convolutions are OIHW there and
//! `[k, k, C_in, C_out]` here, dense layers `[out, in]` there and `[C_in, C_out]` here. Of old files, the attention's
//! names `query`, `key`, `value`, `proj_attn` and its weights as 1x1 convolutions `[C, C, 1, 1]` are understood too.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::config::UNetConfig;
use crate::layout::{Layout, Parameter, Role};
use crate::{Result, UNet};

/// Why weights in diffusers' format cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DiffusersError {
    /// The bytes are no safetensors file.
    #[error("weights: not a safetensors file: {0}")]
    Unreadable(String),
    /// The network has parameters that the file lacks.
    #[error(
        "weights: {missing} of the {expected} tensors that the configuration asks for are missing; the first is `{first}`"
    )]
    Missing {
        /// How many are missing.
        missing: usize,
        /// How many the network has.
        expected: usize,
        /// The first missing one's name.
        first: String,
    },
    /// The file has tensors that the network lacks.
    #[error(
        "weights: {unexpected} tensors are not in the network that the configuration describes; the first is `{first}`"
    )]
    Unexpected {
        /// How many there are.
        unexpected: usize,
        /// The first one's name.
        first: String,
    },
    /// A tensor of another shape than the network's.
    #[error("weights: `{name}` should be {expected:?}, but is {got:?}")]
    Shape {
        /// The tensor.
        name: String,
        /// Shape in diffusers' layout.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A tensor of a number type that is not read.
    #[error("weights: `{name}` holds {dtype}; F32, F64, F16 and BF16 are read")]
    NumberType {
        /// The tensor.
        name: String,
        /// The type as the file calls it.
        dtype: String,
    },
    /// A number of elements that is not the layout's.
    #[error("weights: the layout has {expected} numbers, but {got} came")]
    Length {
        /// [`Layout::len`].
        expected: usize,
        /// Count that came.
        got: usize,
    },
}

/// One parameter (or its gradient) under diffusers' name and in diffusers' layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// diffusers' name.
    pub name: String,
    /// Sizes in diffusers' layout.
    pub shape: Vec<usize>,
    /// Row-major numbers.
    pub values: Vec<f32>,
}

/// The network of a `config.json` text and its parameters from the bytes of `diffusion_pytorch_model.safetensors`, flat,
/// for [`Parameters::from_host`](crate::Parameters::from_host).
///
/// # Errors
/// [`ConfigError`](crate::config::ConfigError) for the text, [`DiffusersError`] for the bytes.
pub fn import(config: &str, weights: &[u8]) -> Result<(UNet, Vec<f32>)> {
    let unet = UNet::new(&UNetConfig::from_json(config)?)?;
    let flat = read(unet.layout(), weights)?;
    Ok((unet, flat))
}

/// The `config.json` text and the safetensors bytes of a network with these flat parameters.
///
/// # Errors
/// [`DiffusersError::Length`] when their count is not the layout's.
pub fn export(unet: &UNet, flat: &[f32]) -> Result<(String, Vec<u8>)> {
    Ok((unet.config().to_json(), write(unet.layout(), flat)?))
}

/// A layout's parameters from safetensors bytes, flat, gaps zero.
///
/// # Errors
/// [`DiffusersError`] names the first tensor that is missing, unexpected, misshapen or of an unknown number type.
pub fn read(layout: &Layout, weights: &[u8]) -> Result<Vec<f32>> {
    let file = SafeTensors::deserialize(weights).map_err(|e| DiffusersError::Unreadable(e.to_string()))?;
    let mut tensors: BTreeMap<String, TensorView<'_>> = BTreeMap::new();
    for (name, tensor) in file.iter() {
        let modern = modern_name(name).into_owned();
        if tensors.insert(modern, tensor).is_some() {
            // under its old and its new name
            return Err(DiffusersError::Unexpected { unexpected: 1, first: name.to_owned() }.into());
        }
    }
    let mut flat = vec![0.0; layout.len()];
    let mut missing: Vec<&str> = Vec::new();
    for p in layout.parameters() {
        match tensors.remove(&p.name) {
            Some(tensor) => {
                let values = numbers(&p.name, &tensor)?;
                from_diffusers(p, tensor.shape(), &values, &mut flat[p.range.clone()])?;
            }
            None => missing.push(&p.name),
        }
    }
    // A tensor under a wrong name is both: what the network lacks says more.
    if let Some(first) = missing.first() {
        let expected = layout.parameters().len();
        return Err(DiffusersError::Missing { missing: missing.len(), expected, first: (*first).into() }.into());
    }
    if let Some(first) = tensors.keys().next() {
        return Err(DiffusersError::Unexpected { unexpected: tensors.len(), first: first.clone() }.into());
    }
    Ok(flat)
}

/// The safetensors bytes of flat parameters (f32, diffusers' names and layout).
///
/// # Errors
/// [`DiffusersError::Length`] when their count is not the layout's.
pub fn write(layout: &Layout, flat: &[f32]) -> Result<Vec<u8>> {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = named(layout, flat)?
        .into_iter()
        .map(|t| (t.name, t.shape, t.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let unreadable = |e: safetensors::SafeTensorError| DiffusersError::Unreadable(e.to_string());
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    // diffusers asks who wrote the file.
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views, Some(about)).map_err(unreadable)?)
}

/// Every parameter of flat numbers (parameters, gradients, an average) under diffusers' name and in its layout.
///
/// # Errors
/// [`DiffusersError::Length`] when their count is not the layout's.
pub fn named(layout: &Layout, flat: &[f32]) -> Result<Vec<Named>> {
    if flat.len() != layout.len() {
        return Err(DiffusersError::Length { expected: layout.len(), got: flat.len() }.into());
    }
    Ok(layout
        .parameters()
        .iter()
        .map(|p| {
            let values = reversed(&flat[p.range.clone()], stored_blocks(p));
            Named { name: p.name.clone(), shape: diffusers_shape(p), values }
        })
        .collect())
}

/// Sizes `[a, b, c]` of a parameter as stored, such that diffusers stores `[c, b, a]`.
fn stored_blocks(p: &Parameter) -> [usize; 3] {
    match (p.role, p.shape.dims()) {
        (Role::ConvWeight, &[k, l, c_in, c_out]) => [k * l, c_in, c_out],
        (Role::DenseWeight, &[c_in, c_out]) => [1, c_in, c_out],
        _ => [1, p.shape.len(), 1],
    }
}

/// `[a, b, c]` to `[c, b, a]`.
fn reversed(values: &[f32], [a, b, c]: [usize; 3]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for k in 0..c {
        for j in 0..b {
            out.extend((0..a).map(|i| values[(i * b + j) * c + k]));
        }
    }
    out
}

/// Sizes of a parameter in diffusers' layout.
fn diffusers_shape(p: &Parameter) -> Vec<usize> {
    match (p.role, p.shape.dims()) {
        (Role::ConvWeight, &[k, l, c_in, c_out]) => vec![c_out, c_in, k, l],
        (Role::DenseWeight, &[c_in, c_out]) => vec![c_out, c_in],
        (_, dims) => dims.to_vec(),
    }
}

fn from_diffusers(p: &Parameter, shape: &[usize], values: &[f32], out: &mut [f32]) -> Result<()> {
    let expected = diffusers_shape(p);
    let as_convolution = p.role == Role::DenseWeight && matches!(shape, [o, i, 1, 1] if [*o, *i] == *expected);
    if shape != expected && !as_convolution {
        return Err(DiffusersError::Shape { name: p.name.clone(), expected, got: shape.to_vec() }.into());
    }
    let [a, b, c] = stored_blocks(p);
    out.copy_from_slice(&reversed(values, [c, b, a]));
    Ok(())
}

/// The present name of a parameter of an attention that had another one in 2022.
fn modern_name(name: &str) -> Cow<'_, str> {
    const RENAMED: [(&str, &str); 4] =
        [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    match RENAMED.iter().find(|(old, _)| name.contains(".attentions.") && name.contains(old)) {
        Some((old, new)) => Cow::Owned(name.replace(old, new)),
        None => Cow::Borrowed(name),
    }
}

/// A tensor's numbers as f32.
fn numbers(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>> {
    let bytes = tensor.data();
    // The bytes lie at any alignment; chunks of a fixed size compile to plain loads.
    Ok(match tensor.dtype() {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F64 => bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
        Dtype::BF16 => {
            bytes.as_chunks().0.iter().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect()
        }
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| from_f16(u16::from_le_bytes(*b))).collect(),
        other => {
            return Err(DiffusersError::NumberType { name: name.into(), dtype: format!("{other:?}") }.into());
        }
    })
}

/// The value of IEEE binary16 bits: sign, 5 bits of exponent (bias 15), 10 of fraction.
fn from_f16(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2.0f32.powi(-24),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1024.0 + fraction) * 2.0f32.powi(exponent - 25),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
