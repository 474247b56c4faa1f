use std::ops::Range;
use std::sync::Arc;

use ddpm_tensor::{Device, Element, Frozen, View};

use crate::error::expect;
use crate::layout::{Layout, ParamId};
use crate::{NnError, Result};

/// One flat buffer of a [`Layout`]: a network's parameters, their gradients, an optimiser's moments, or an average.
///
/// Whatever treats all numbers alike (clipping, AdamW, EMA, checkpoints) works on [`Parameters::buffer`].
#[derive(Debug)]
pub struct Parameters<B: Device> {
    layout: Arc<Layout>,
    buffer: B::Buffer,
}

impl<B: Device> Parameters<B> {
    /// Zeros: fresh gradients or moments.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn zeros(backend: &B, layout: &Arc<Layout>) -> Result<Self> {
        Ok(Self { buffer: backend.zeros(layout.len())?, layout: Arc::clone(layout) })
    }

    /// Takes over flat numbers in the layout's order, gaps included, as [`crate::init::paper`] makes them.
    ///
    /// # Errors
    /// When their count is not [`Layout::len`], or the device has no memory left.
    pub fn from_host(backend: &B, layout: &Arc<Layout>, flat: &[f32]) -> Result<Self> {
        let values: Vec<B::Elem> = flat.iter().map(|&v| B::Elem::of_f32(v)).collect();
        let mut new = Self { buffer: backend.alloc(layout.len())?, layout: Arc::clone(layout) };
        new.upload(backend, &values)?;
        Ok(new)
    }

    /// Another set of the same numbers.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn duplicate(&self, backend: &B) -> Result<Self> {
        let mut buffer = backend.alloc(self.layout.len())?;
        backend.copy(&self.buffer, 0..self.layout.len(), &mut buffer, 0)?;
        Ok(Self { buffer, layout: Arc::clone(&self.layout) })
    }

    /// Names, shapes and ranges.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// All numbers.
    pub fn buffer(&self) -> &B::Buffer {
        &self.buffer
    }

    /// All numbers, to be written; the gaps must stay zero.
    pub fn buffer_mut(&mut self) -> &mut B::Buffer {
        &mut self.buffer
    }

    /// For a network that is run many times with the same numbers: while the result is alive, operations keep what they make of
    /// weights (packed or transformed, up to four times their size), and make it once. No bit of their results depends on it.
    pub fn frozen(&self) -> Frozen<'_, B> {
        Frozen::new(&self.buffer)
    }

    /// Where a parameter lies in the buffer.
    pub fn range(&self, id: ParamId) -> Range<usize> {
        self.layout.parameter(id).range.clone()
    }

    /// A parameter's numbers.
    ///
    /// # Errors
    /// Only for the id of another layout.
    pub fn view(&self, id: ParamId) -> Result<View<'_, B>> {
        let p = self.layout.parameter(id);
        Ok(View::of(&self.buffer, p.range.start, p.shape)?)
    }

    /// The numbers of the parameter of that name.
    ///
    /// # Errors
    /// [`NnError::UnknownParameter`] if there is none.
    pub fn named(&self, name: &str) -> Result<View<'_, B>> {
        self.view(self.layout.find(name)?)
    }

    /// A copy of one parameter on the host, in the stored layout.
    ///
    /// # Errors
    /// When the name is unknown or the device fails.
    pub fn read(&self, backend: &B, name: &str) -> Result<Vec<B::Elem>> {
        let range = self.range(self.layout.find(name)?);
        let mut values = vec![B::Elem::ZERO; range.len()];
        backend.download(&self.buffer, range, &mut values)?;
        Ok(values)
    }

    /// Overwrites one parameter, in the stored layout.
    ///
    /// # Errors
    /// When the name is unknown, the count differs or the device fails.
    pub fn write(&mut self, backend: &B, name: &str, values: &[B::Elem]) -> Result<()> {
        let range = self.range(self.layout.find(name)?);
        expect(
            values.len() == range.len(),
            "writing a parameter",
            || format!("{} numbers for `{name}`", range.len()),
            || values.len().to_string(),
        )?;
        Ok(backend.upload(values, &mut self.buffer, range.start)?)
    }

    /// All numbers on the host, in the layout's order, gaps included.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_host(&self, backend: &B) -> Result<Vec<B::Elem>> {
        let mut values = vec![B::Elem::ZERO; self.layout.len()];
        backend.download(&self.buffer, 0..values.len(), &mut values)?;
        Ok(values)
    }

    /// Overwrites all numbers, gaps included.
    ///
    /// # Errors
    /// When their count is not [`Layout::len`] or the device fails.
    pub fn upload(&mut self, backend: &B, flat: &[B::Elem]) -> Result<()> {
        expect(
            flat.len() == self.layout.len(),
            "filling the parameters",
            || format!("{} numbers, the layout's length", self.layout.len()),
            || flat.len().to_string(),
        )?;
        Ok(backend.upload(flat, &mut self.buffer, 0)?)
    }

    /// Fails unless these are of that layout.
    pub(crate) fn check(&self, operation: &'static str, layout: &Arc<Layout>) -> Result<()> {
        if Arc::ptr_eq(&self.layout, layout) || *self.layout == **layout {
            return Ok(());
        }
        let words = |l: &Layout| format!("{} tensors with {} numbers", l.parameters().len(), l.count());
        Err(NnError::Input {
            operation,
            expected: format!("parameters of the network's own layout ({})", words(layout)),
            got: format!("another layout ({})", words(&self.layout)),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ddpm_tensor::{Cpu, CpuOptions};

    use super::*;
    use crate::layout::{Init, Role};

    #[test]
    fn numbers_are_read_and_written_by_name() {
        let cpu = Cpu::<f32>::new(CpuOptions::default()).unwrap();
        let mut layout = Layout::default();
        layout.at("a").add("weight", [2, 2], Role::DenseWeight, Init::PAPER);
        layout.at("b").add("weight", [3], Role::Bias, Init::Constant(0.0));
        let mut p = Parameters::zeros(&cpu, &Arc::new(layout)).unwrap();
        p.write(&cpu, "b.weight", &[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(p.read(&cpu, "b.weight").unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(p.named("b.weight").unwrap().as_slice(), [1.0, 2.0, 3.0]);
        let flat = p.to_host(&cpu).unwrap();
        assert_eq!((flat.len(), flat[16], flat[19]), (32, 1.0, 0.0));
        let again = Parameters::from_host(&cpu, p.layout(), &flat).unwrap();
        assert_eq!(again.duplicate(&cpu).unwrap().to_host(&cpu).unwrap(), flat);
        assert!(p.write(&cpu, "b.weight", &[1.0]).unwrap_err().to_string().contains("3 numbers"));
        assert!(Parameters::from_host(&cpu, p.layout(), &flat[1..]).is_err());
    }
}
