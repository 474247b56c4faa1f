//! Where a checkpoint meets a network: its tensors as a [`Layout`] has them, on whatever device.

use std::io;
use std::sync::Arc;

use ddpm_kernels::Backend;
use ddpm_nn::{Layout, Parameters};

use super::{Checkpoint, Entry, ReadFlat, Weights, WriteFlat};
use crate::error::Error;

/// The tensors of a layout as a checkpoint lists them.
pub fn entries(layout: &Layout) -> Vec<Entry<'_>> {
    layout.parameters().iter().map(|p| Entry { name: &p.name, shape: p.shape.dims(), start: p.range.start }).collect()
}

/// A flat buffer of a device, to be written to a checkpoint.
#[derive(Debug)]
pub struct FromDevice<'a, B: Backend> {
    /// The device.
    pub backend: &'a B,
    /// Its buffer.
    pub buffer: &'a B::Buffer,
}

/// A flat buffer of a device, to be read from a checkpoint.
#[derive(Debug)]
pub struct ToDevice<'a, B: Backend> {
    /// The device.
    pub backend: &'a B,
    /// Its buffer.
    pub buffer: &'a mut B::Buffer,
}

impl<B: Backend<Elem = f32>> ReadFlat for FromDevice<'_, B> {
    fn read(&self, start: usize, out: &mut [f32]) -> io::Result<()> {
        let range = start..start + out.len();
        self.backend.download(self.buffer, range, out).map_err(io::Error::other)
    }
}

impl<B: Backend<Elem = f32>> WriteFlat for ToDevice<'_, B> {
    fn write(&mut self, start: usize, values: &[f32]) -> io::Result<()> {
        self.backend.upload(values, self.buffer, start).map_err(io::Error::other)
    }
}

impl Checkpoint {
    /// One set of the network's parameters, on a device.
    ///
    /// # Errors
    /// [`CheckpointError`](super::CheckpointError) if the file is damaged or another network's; the device's failures.
    pub fn parameters<B: Backend<Elem = f32>>(
        &self,
        backend: &B,
        layout: &Arc<Layout>,
        which: Weights,
    ) -> Result<Parameters<B>, Error> {
        let mut parameters = Parameters::zeros(backend, layout)?;
        let mut target = ToDevice { backend, buffer: parameters.buffer_mut() };
        self.read_weights(which, &entries(layout), &mut target)?;
        Ok(parameters)
    }
}
