use std::fmt;

/// Sizes of a dense row-major tensor of at most four dimensions; images are `[N, H, W, C]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; 4],
    rank: u8,
}

impl Shape {
    /// The sizes, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }

    /// Number of dimensions, 0 to 4.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// Number of elements, the product of the sizes (1 for no dimensions).
    pub fn len(&self) -> usize {
        self.dims().iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `[N, H, W, C]` of an image batch; fewer dimensions are read as `[N, 1, 1, C]` (rank 2) and `[N, 1, P, C]` (rank 3).
    pub fn nhwc(&self) -> [usize; 4] {
        match *self.dims() {
            [] => [1, 1, 1, 1],
            [c] => [1, 1, 1, c],
            [n, c] => [n, 1, 1, c],
            [n, p, c] => [n, 1, p, c],
            _ => self.dims,
        }
    }
}

impl<const R: usize> From<[usize; R]> for Shape {
    /// # Panics
    /// At compile time for more than four dimensions.
    fn from(sizes: [usize; R]) -> Self {
        const { assert!(R <= 4, "a shape has at most four dimensions") };
        let mut dims = [1; 4];
        dims[..R].copy_from_slice(&sizes);
        Self { dims, rank: R as u8 }
    }
}

impl TryFrom<&[usize]> for Shape {
    type Error = crate::TensorError;

    fn try_from(sizes: &[usize]) -> Result<Self, Self::Error> {
        if sizes.len() > 4 {
            return Err(crate::TensorError::Npy(format!(
                "it has {} dimensions, tensors here have at most 4",
                sizes.len()
            )));
        }
        let mut dims = [1; 4];
        dims[..sizes.len()].copy_from_slice(sizes);
        Ok(Self { dims, rank: sizes.len() as u8 })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
