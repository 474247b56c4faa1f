//! Images of twice the channels: two of one size side by side, as a network has them that learns its variance or is shown
//! what it saw before. Both ways lead over the host.

use ddpm_kernels::{Backend, KernelError};
use ddpm_tensor::Tensor;

/// `[N, H, W, 2C]` → its first and its last C channels.
///
/// # Errors
/// An odd number of channels; when the device fails.
pub fn halves<B: Backend>(backend: &B, both: &Tensor<B>) -> Result<[Tensor<B>; 2], KernelError> {
    let [images, height, width, channels] = both.shape().nhwc();
    if channels % 2 != 0 {
        let what = format!("{channels} channels are no two images beside each other");
        return Err(KernelError::Setting { operation: "halves", what });
    }
    let half = channels / 2;
    let values = both.to_vec(backend)?;
    let part = |first: usize| {
        let own: Vec<B::Elem> =
            values.chunks_exact(channels.max(1)).flat_map(|pixel| &pixel[first..first + half]).copied().collect();
        Tensor::from_slice(backend, [images, height, width, half], &own)
    };
    Ok([part(0)?, part(half)?])
}

/// Two of `[N, H, W, C]` → `[N, H, W, 2C]`.
///
/// # Errors
/// Two shapes; when the device fails.
pub fn beside<B: Backend>(backend: &B, first: &Tensor<B>, second: &Tensor<B>) -> Result<Tensor<B>, KernelError> {
    if first.shape() != second.shape() {
        let what = format!("{} and {} are not of one size", first.shape(), second.shape());
        return Err(KernelError::Setting { operation: "beside", what });
    }
    let [images, height, width, channels] = first.shape().nhwc();
    let (first, second) = (first.to_vec(backend)?, second.to_vec(backend)?);
    let pixels = first.chunks_exact(channels.max(1)).zip(second.chunks_exact(channels.max(1)));
    let both: Vec<B::Elem> = pixels.flat_map(|(first, second)| first.iter().chain(second)).copied().collect();
    Ok(Tensor::from_slice(backend, [images, height, width, 2 * channels], &both)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ddpm_tensor::{Cpu, CpuOptions};

    use super::*;

    #[test]
    fn halves_and_beside_undo_each_other() {
        let cpu: Cpu<f32> = Cpu::new(CpuOptions::default()).unwrap();
        let tensor = |values: &[f32]| Tensor::from_slice(&cpu, [1, 2, 1, 2], values).unwrap();
        let both = beside(&cpu, &tensor(&[1.0, 2.0, 3.0, 4.0]), &tensor(&[5.0, 6.0, 7.0, 8.0])).unwrap();
        assert_eq!(both.shape().nhwc(), [1, 2, 1, 4]);
        assert_eq!(both.to_vec(&cpu).unwrap(), [1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 7.0, 8.0]);
        let [first, second] = halves(&cpu, &both).unwrap();
        assert_eq!(first.to_vec(&cpu).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(second.to_vec(&cpu).unwrap(), [5.0, 6.0, 7.0, 8.0]);
        let odd = Tensor::zeros(&cpu, [1, 2, 1, 3]).unwrap();
        assert!(halves(&cpu, &odd).is_err() && beside(&cpu, &odd, &first).is_err());
    }
}
