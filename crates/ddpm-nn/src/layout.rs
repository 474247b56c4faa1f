//! Which numbers a network has: ordered names, shapes, and where each lies in one flat buffer.

use std::ops::Range;

use ddpm_tensor::Shape;

use crate::{NnError, Result};

/// Every parameter starts at a multiple of this many elements (a cache line of f32), so that vector loads are aligned.
pub const ALIGNMENT: usize = 16;

/// Number of a parameter in its [`Layout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(usize);

impl ParamId {
    /// Position in [`Layout::parameters`].
    pub fn index(self) -> usize {
        self.0
    }
}

/// What a parameter is for; decides how it is stored, started and (by a trainer) decayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Weights of a convolution, `[k, k, C_in, C_out]`.
    ConvWeight,
    /// Weights of a dense layer, `[C_in, C_out]`.
    DenseWeight,
    /// Bias of a convolution or dense layer, `[C]`.
    Bias,
    /// γ of a normalisation, `[C]`.
    Gamma,
    /// β of a normalisation, `[C]`.
    Beta,
    /// A table of embeddings, `[rows, C]`.
    Table,
    /// Numbers that belong to the network and are not learned, `[C]`: they have no gradient.
    Fixed,
}

/// How a parameter starts; see [`crate::init`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Uniform in `±√(3·scale/fan_avg)`, `fan_avg = (fan_in + fan_out)/2`.
    FanAvg {
        /// 1, or 1e-10 where the paper's code says "zero".
        scale: f64,
    },
    /// Standard normal.
    Normal,
    /// Normal of this standard deviation.
    NormalOf(f32),
    /// The same number everywhere.
    Constant(f32),
}

impl Init {
    /// The paper's ordinary layer.
    pub const PAPER: Self = Self::FanAvg { scale: 1.0 };
    /// The paper's last layer of a branch: so small that the branch starts as nothing, yet not exactly zero.
    pub const PAPER_ZERO: Self = Self::FanAvg { scale: 1e-10 };
}

/// One parameter of a [`Layout`].
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name, diffusers' where diffusers has the layer: `down_blocks.0.resnets.1.conv1.weight`.
    pub name: String,
    /// Sizes as stored here.
    pub shape: Shape,
    /// Where its elements lie in the flat buffer.
    pub range: Range<usize>,
    /// What it is for.
    pub role: Role,
    /// How it starts.
    pub init: Init,
}

/// Ordered names, shapes and ranges of a network's parameters; gradients, moments and EMA share it.
///
/// The gaps that [`ALIGNMENT`] leaves between parameters are filled with zeros and stay zero: their gradient is.
///
/// ```
/// use ddpm_nn::layout::{Init, Layout, Role};
/// let mut layout = Layout::default();
/// let gain = layout.at("filter").add("gain", [5], Role::Gamma, Init::Constant(1.0));
/// assert_eq!(layout.parameter(gain).name, "filter.gain");
/// assert_eq!((layout.count(), layout.len()), (5, 16));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    parameters: Vec<Parameter>,
    len: usize,
}

impl Layout {
    /// All parameters, in order.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// One parameter of this layout.
    pub fn parameter(&self, id: ParamId) -> &Parameter {
        &self.parameters[id.0]
    }

    /// Elements of the flat buffer, the gaps included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no parameter.
    pub fn is_empty(&self) -> bool {
        self.parameters.is_empty()
    }

    /// Number of parameters in the usual sense: elements without the gaps.
    pub fn count(&self) -> usize {
        self.parameters.iter().map(|p| p.range.len()).sum()
    }

    /// The parameter of that name.
    ///
    /// # Errors
    /// [`NnError::UnknownParameter`] if there is none.
    pub fn find(&self, name: &str) -> Result<ParamId> {
        self.parameters.iter().position(|p| p.name == name).map(ParamId).ok_or_else(|| NnError::UnknownParameter {
            name: name.into(),
            count: self.parameters.len(),
            first: self.parameters.first().map(|p| p.name.clone()).unwrap_or_default(),
        })
    }

    /// A place to add parameters whose names begin with `prefix`.
    pub fn at(&mut self, prefix: &str) -> Scope<'_> {
        Scope { layout: self, prefix: prefix.into() }
    }
}

/// A layout that grows, and the beginning of the names to come.
#[derive(Debug)]
pub struct Scope<'a> {
    layout: &'a mut Layout,
    prefix: String,
}

impl Scope<'_> {
    /// The place `prefix.name`.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let prefix = self.name(name);
        Scope { layout: self.layout, prefix }
    }

    /// Adds the parameter `prefix.name`; names must differ.
    pub fn add(&mut self, name: &str, shape: impl Into<Shape>, role: Role, init: Init) -> ParamId {
        let shape = shape.into();
        let name = self.name(name);
        debug_assert!(self.layout.find(&name).is_err(), "two parameters are called {name}");
        let start = self.layout.len;
        let range = start..start + shape.len();
        self.layout.len = range.end.next_multiple_of(ALIGNMENT);
        self.layout.parameters.push(Parameter { name, shape, range, role, init });
        ParamId(self.layout.parameters.len() - 1)
    }

    fn name(&self, name: impl std::fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_aligned_and_found_by_name() {
        let mut layout = Layout::default();
        let a = layout.at("").add("a", [3, 5], Role::DenseWeight, Init::PAPER);
        let b = layout.at("x").at("y").add("b", [16], Role::Bias, Init::Constant(0.0));
        let c = layout.at("c").add("d", [1], Role::Bias, Init::Constant(0.0));
        assert_eq!([a, b, c].map(|p| layout.parameter(p).range.clone()), [0..15, 16..32, 32..33]);
        assert_eq!((layout.len(), layout.count()), (48, 32));
        assert_eq!(layout.find("x.y.b").unwrap(), b);
        let message = layout.find("x.y").unwrap_err().to_string();
        assert!(message.contains("`x.y`") && message.contains('3'), "{message}");
    }
}
