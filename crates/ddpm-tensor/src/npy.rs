use std::io::{Read, Write};

use npyz::{DType, NpyFile, TypeChar, WriterBuilder};

use crate::{Device, Element, Shape, Tensor, TensorError};

/// Elements that are read before their memory is asked for in one piece: a header can lie.
const TRUSTED_ELEMENTS: u64 = 1 << 28;

/// Reads a tensor from NumPy's `.npy` format: floats and integers of any width, C order, at most four dimensions.
///
/// # Errors
/// [`TensorError::Npy`] for another format, type, order or number of dimensions, or a file that ends early.
pub fn read_npy<D: Device>(device: &D, from: impl Read) -> Result<Tensor<D>, TensorError> {
    let bad = |e: std::io::Error| TensorError::Npy(e.to_string());
    let file = NpyFile::new(from).map_err(bad)?;
    let sizes: Vec<usize> = file.shape().iter().map(|&s| s as usize).collect();
    let shape = Shape::try_from(&sizes[..])?;
    let declared = file.shape().iter().try_fold(1u64, |n, &s| n.checked_mul(s));
    if declared.is_none_or(|n| n > TRUSTED_ELEMENTS) {
        return Err(TensorError::Npy(format!("its header declares the shape {shape}, more than is read here")));
    }
    if file.order() != npyz::Order::C {
        return Err(TensorError::Npy("it is in Fortran order; save it with numpy.ascontiguousarray".into()));
    }
    let DType::Plain(kind) = file.dtype() else {
        return Err(TensorError::Npy("it holds records, not numbers".into()));
    };
    macro_rules! read {
        ($t:ty) => {
            file.data::<$t>()
                .map_err(|e| TensorError::Npy(e.to_string()))?
                .map(|v| v.map(|v| D::Elem::of(v as f64)))
                .collect::<Result<Vec<_>, _>>()
                .map_err(bad)?
        };
    }
    let values = match (kind.type_char(), kind.size_field()) {
        (TypeChar::Float, 4) => read!(f32),
        (TypeChar::Float, 8) => read!(f64),
        (TypeChar::Uint, 1) => read!(u8),
        (TypeChar::Uint, 2) => read!(u16),
        (TypeChar::Uint, 4) => read!(u32),
        (TypeChar::Uint, 8) => read!(u64),
        (TypeChar::Int, 1) => read!(i8),
        (TypeChar::Int, 2) => read!(i16),
        (TypeChar::Int, 4) => read!(i32),
        (TypeChar::Int, 8) => read!(i64),
        _ => {
            return Err(TensorError::Npy(format!("its type {kind} is neither integer nor f32 or f64")));
        }
    };
    Tensor::from_slice(device, shape, &values)
}

/// Writes a tensor in NumPy's `.npy` format, as `<f4`, C order.
///
/// # Errors
/// When writing fails.
pub fn write_npy<D: Device>(device: &D, tensor: &Tensor<D>, to: impl Write) -> Result<(), TensorError> {
    let sizes: Vec<u64> = tensor.shape().dims().iter().map(|&s| s as u64).collect();
    let mut writer = npyz::WriteOptions::new().default_dtype().shape(&sizes).writer(to).begin_nd()?;
    for value in tensor.to_vec(device)? {
        writer.push(&value.to_f32())?;
    }
    Ok(writer.finish()?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{Cpu, CpuOptions};

    #[test]
    fn what_is_written_is_read() {
        let cpu = Cpu::<f32>::new(CpuOptions::default()).unwrap();
        let x = Tensor::from_slice(&cpu, [2, 1, 3], &[1.0, -2.5, 3e-9, 4.0, 5.0, f32::MAX]).unwrap();
        let mut bytes = Vec::new();
        write_npy(&cpu, &x, &mut bytes).unwrap();
        let y = read_npy(&cpu, &bytes[..]).unwrap();
        assert_eq!((x.shape(), x.as_slice()), (y.shape(), y.as_slice()));
        for len in 0..bytes.len() {
            assert!(read_npy(&cpu, &bytes[..len]).is_err(), "{len} bytes of {}", bytes.len());
        }
    }
}
