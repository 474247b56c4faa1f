use ddpm_kernels::Backend;
use ddpm_tensor::{Tensor, View};

use super::{TimeCache, TimeEmbedding, Waves, plus};
use crate::config::{ClassEmbedType, UNetConfig};
use crate::error::expect;
use crate::layout::{Init, Layout, ParamId, Role};
use crate::{Parameters, Result};

/// The classes of a batch.
///
/// `None`, `Some(&labels[..])` and `&labels[..]` convert into it.
#[derive(Debug)]
pub enum Classes<'a, B: Backend> {
    /// The network takes none.
    None,
    /// One label for each image.
    Labels(&'a [usize]),
    /// One vector `[N, embedding]` for each image, for diffusers' `class_embed_type="identity"`.
    Vectors(View<'a, B>),
}

#[allow(clippy::expl_impl_clone_on_copy)] // deriving would ask for B: Copy
impl<B: Backend> Clone for Classes<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Classes<'_, B> {}

impl<'a, B: Backend> From<Option<&'a [usize]>> for Classes<'a, B> {
    fn from(labels: Option<&'a [usize]>) -> Self {
        labels.map_or(Self::None, Self::Labels)
    }
}

impl<'a, B: Backend> From<&'a [usize]> for Classes<'a, B> {
    fn from(labels: &'a [usize]) -> Self {
        Self::Labels(labels)
    }
}

/// How a class becomes a vector, which is added to the time embedding.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ClassEmbedding {
    /// The network takes no class.
    None,
    /// A learned table of rows.
    Table {
        /// `[rows, dim]`.
        weight: ParamId,
        /// Number of classes.
        rows: usize,
    },
    /// The label goes the way of a time step.
    Timestep(TimeEmbedding),
    /// The class is the vector.
    Identity,
}

/// What [`ClassEmbedding::backward`] needs of the forward pass.
#[derive(Debug)]
pub enum ClassCache<B: Backend> {
    /// Nothing.
    None,
    /// The labels.
    Labels(Vec<usize>),
    /// The embedding's own cache.
    Timestep(TimeCache<B>),
}

impl ClassEmbedding {
    /// Adds what `class_embed_type` and `num_class_embeds` ask for.
    pub fn new(layout: &mut Layout, config: &UNetConfig, waves: impl Into<Waves>) -> Self {
        let mut at = layout.at("class_embedding");
        let dim = config.embedding_dim();
        match (config.class_embed_type, config.num_class_embeds) {
            (Some(ClassEmbedType::Timestep), _) => Self::Timestep(TimeEmbedding::new(at, waves, dim)),
            (Some(ClassEmbedType::Identity), _) => Self::Identity,
            (None, Some(rows)) => {
                Self::Table { weight: at.add("weight", [rows, dim], Role::Table, Init::Normal), rows }
            }
            (None, None) => Self::None,
        }
    }

    /// Adds the classes' vectors to `time [N, 1, 1, dim]`.
    ///
    /// # Errors
    /// When classes are missing, not wanted, too many or too few, or not among the table's.
    pub fn forward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        classes: Classes<'_, B>,
        time: Tensor<B>,
    ) -> Result<(Tensor<B>, ClassCache<B>)> {
        let [n, _, _, dim] = time.shape().nhwc();
        self.check(classes, n, dim)?;
        Ok(match (self, classes) {
            (Self::Table { weight, .. }, Classes::Labels(labels)) => {
                let rows = backend.gather_rows(parameters.view(*weight)?, labels)?;
                (plus(backend, time, rows.view().reshape([n, 1, 1, dim])?)?, ClassCache::Labels(labels.to_vec()))
            }
            (Self::Timestep(embedding), Classes::Labels(labels)) => {
                let labels: Vec<f32> = labels.iter().map(|&l| l as f32).collect();
                let (y, cache) = embedding.forward(backend, parameters, &labels)?;
                (plus(backend, time, y.view())?, ClassCache::Timestep(cache))
            }
            (Self::Identity, Classes::Vectors(vectors)) => {
                (plus(backend, time, vectors.reshape([n, 1, 1, dim])?)?, ClassCache::None)
            }
            _ => (time, ClassCache::None),
        })
    }

    fn check<B: Backend>(&self, classes: Classes<'_, B>, n: usize, dim: usize) -> Result<()> {
        let expected = || match self {
            Self::None => "no classes, for this network takes none".into(),
            Self::Table { rows, .. } => format!("{n} class labels (one for each image) from 0 to {}", rows - 1),
            Self::Timestep(_) => format!("{n} class labels, one for each image"),
            Self::Identity => format!("class vectors [{n}, {dim}], one for each image"),
        };
        let got = || match classes {
            Classes::None => "none".into(),
            Classes::Labels(labels) => match self {
                Self::Table { rows, .. } if labels.len() == n => {
                    let wrong = labels.iter().find(|l| *l >= rows);
                    format!("the label {}", wrong.copied().unwrap_or_default())
                }
                _ => format!("{} class labels", labels.len()),
            },
            Classes::Vectors(v) => format!("class vectors {}", v.shape()),
        };
        let ok = match (self, classes) {
            (Self::None, Classes::None) => true,
            (Self::Table { rows, .. }, Classes::Labels(labels)) => labels.len() == n && labels.iter().all(|l| l < rows),
            (Self::Timestep(_), Classes::Labels(labels)) => labels.len() == n,
            (Self::Identity, Classes::Vectors(v)) => v.shape().nhwc() == [n, 1, 1, dim],
            _ => false,
        };
        expect(ok, "class embedding", expected, got)
    }

    /// Adds the parameters' gradients; `dy [N, 1, 1, dim]` is the embedding's.
    ///
    /// # Errors
    /// When shapes do not fit or the device fails.
    pub fn backward<B: Backend>(
        &self,
        backend: &B,
        parameters: &Parameters<B>,
        cache: ClassCache<B>,
        dy: View<'_, B>,
        grads: &mut Parameters<B>,
    ) -> Result<()> {
        match (self, cache) {
            (Self::Table { weight, .. }, ClassCache::Labels(labels)) => {
                let [n, _, _, dim] = dy.shape().nhwc();
                let range = grads.range(*weight);
                Ok(backend.scatter_rows(dy.reshape([n, dim])?, &labels, grads.buffer_mut(), range)?)
            }
            (Self::Timestep(embedding), ClassCache::Timestep(cache)) => {
                embedding.backward(backend, parameters, cache, dy, grads)
            }
            _ => Ok(()),
        }
    }
}
