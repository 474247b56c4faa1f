use std::ops::Range;

use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, IxDyn};

use crate::{Cpu, Device, Element, Shape, TensorError};

/// A dense row-major tensor that owns its memory on a device.
#[derive(Debug)]
pub struct Tensor<D: Device> {
    buffer: D::Buffer,
    shape: Shape,
}

/// A borrowed dense tensor: a whole [`Tensor`] or a range of a flat buffer (one parameter, say).
#[derive(Debug)]
pub struct View<'a, D: Device> {
    buffer: &'a D::Buffer,
    offset: usize,
    shape: Shape,
}

/// A borrowed dense tensor that can be written.
#[derive(Debug)]
pub struct ViewMut<'a, D: Device> {
    buffer: &'a mut D::Buffer,
    offset: usize,
    shape: Shape,
}

#[allow(clippy::expl_impl_clone_on_copy)] // deriving would ask for D: Copy
impl<D: Device> Clone for View<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D: Device> Copy for View<'_, D> {}

fn check(operation: &'static str, shape: Shape, got: usize) -> Result<(), TensorError> {
    if shape.len() == got { Ok(()) } else { Err(TensorError::Length { operation, shape, expected: shape.len(), got }) }
}

impl<D: Device> Tensor<D> {
    /// A tensor with unspecified values.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn alloc(device: &D, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        Ok(Self { buffer: device.alloc(shape.len())?, shape })
    }

    /// A tensor of zeros.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn zeros(device: &D, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        Ok(Self { buffer: device.zeros(shape.len())?, shape })
    }

    /// A tensor of the given numbers, row-major.
    ///
    /// # Errors
    /// When their count is not the shape's.
    pub fn from_slice(device: &D, shape: impl Into<Shape>, values: &[D::Elem]) -> Result<Self, TensorError> {
        let shape = shape.into();
        check("from_slice", shape, values.len())?;
        let mut buffer = device.alloc(values.len())?;
        device.upload(values, &mut buffer, 0)?;
        Ok(Self { buffer, shape })
    }

    /// A copy of a view.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn copy_of(device: &D, view: View<'_, D>) -> Result<Self, TensorError> {
        let mut buffer = device.alloc(view.shape.len())?;
        device.copy(view.buffer, view.range(), &mut buffer, 0)?;
        Ok(Self { buffer, shape: view.shape })
    }

    /// Takes a buffer as a tensor.
    ///
    /// # Errors
    /// When its length is not the shape's.
    pub fn from_buffer(buffer: D::Buffer, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        check("from_buffer", shape, D::len(&buffer))?;
        Ok(Self { buffer, shape })
    }

    /// Sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The same numbers under another shape.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        Self::from_buffer(self.buffer, shape)
    }

    /// The numbers, borrowed.
    pub fn view(&self) -> View<'_, D> {
        View { buffer: &self.buffer, offset: 0, shape: self.shape }
    }

    /// The numbers, borrowed to be written.
    pub fn view_mut(&mut self) -> ViewMut<'_, D> {
        ViewMut { offset: 0, shape: self.shape, buffer: &mut self.buffer }
    }

    /// The numbers on the host, row-major.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_vec(&self, device: &D) -> Result<Vec<D::Elem>, TensorError> {
        let mut out = vec![D::Elem::ZERO; self.shape.len()];
        device.download(&self.buffer, 0..out.len(), &mut out)?;
        Ok(out)
    }

    /// The numbers on the host as an ndarray.
    ///
    /// # Errors
    /// When the device fails.
    pub fn to_array(&self, device: &D) -> Result<ArrayD<D::Elem>, TensorError> {
        let values = self.to_vec(device)?;
        ArrayD::from_shape_vec(IxDyn(self.shape.dims()), values).map_err(|_| TensorError::Length {
            operation: "to_array",
            shape: self.shape,
            expected: self.shape.len(),
            got: 0,
        })
    }
}

impl<'a, D: Device> View<'a, D> {
    /// The range `offset .. offset + shape.len()` of a buffer.
    ///
    /// # Errors
    /// When the buffer ends before it.
    pub fn of(buffer: &'a D::Buffer, offset: usize, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        if offset + shape.len() > D::len(buffer) {
            return Err(TensorError::Length {
                operation: "view",
                shape,
                expected: offset + shape.len(),
                got: D::len(buffer),
            });
        }
        Ok(Self { buffer, offset, shape })
    }

    /// Sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The same numbers under another shape.
    ///
    /// # Errors
    /// When the number of elements differs.
    pub fn reshape(self, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        check("reshape", shape, self.shape.len())?;
        Ok(Self { shape, ..self })
    }

    /// The buffer that the view is a range of.
    pub fn buffer(&self) -> &'a D::Buffer {
        self.buffer
    }

    /// The elements' range in [`View::buffer`].
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.shape.len()
    }
}

impl<'a, D: Device> ViewMut<'a, D> {
    /// The range `offset .. offset + shape.len()` of a buffer.
    ///
    /// # Errors
    /// When the buffer ends before it.
    pub fn of(buffer: &'a mut D::Buffer, offset: usize, shape: impl Into<Shape>) -> Result<Self, TensorError> {
        let shape = shape.into();
        View::<D>::of(buffer, offset, shape)?;
        Ok(Self { buffer, offset, shape })
    }

    /// Sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The elements' range in the buffer.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.shape.len()
    }

    /// The buffer that the view is a range of.
    pub fn buffer(&mut self) -> &mut D::Buffer {
        self.buffer
    }
}

impl<T: Element> Tensor<Cpu<T>> {
    /// The numbers, row-major.
    pub fn as_slice(&self) -> &[T] {
        &self.buffer
    }

    /// The numbers, row-major, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.buffer
    }

    /// An ndarray view over the same memory.
    pub fn array(&self) -> ArrayViewD<'_, T> {
        self.view().array()
    }

    /// An ndarray view over the same memory, to be written.
    pub fn array_mut(&mut self) -> ArrayViewMutD<'_, T> {
        let shape = self.shape;
        // the buffer's length is the shape's by construction, so that this does not fail
        ArrayViewMutD::from_shape(IxDyn(shape.dims()), &mut self.buffer[..]).unwrap_or_else(|_| unreachable!())
    }
}

impl<'a, T: Element> View<'a, Cpu<T>> {
    /// The numbers, row-major.
    pub fn as_slice(&self) -> &'a [T] {
        &self.buffer[self.range()]
    }

    /// An ndarray view over the same memory.
    pub fn array(&self) -> ArrayViewD<'a, T> {
        // the range's length is the shape's by construction, so that this does not fail
        ArrayViewD::from_shape(IxDyn(self.shape.dims()), self.as_slice()).unwrap_or_else(|_| unreachable!())
    }
}

impl<T: Element> ViewMut<'_, Cpu<T>> {
    /// The numbers, row-major, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let range = self.range();
        &mut self.buffer[range]
    }
}
