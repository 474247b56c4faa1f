use ddpm_kernels::Dropout;
use ddpm_tensor::random::{Address, Purpose};

/// Dropout layers that a step's addresses have room for.
const LAYERS: u64 = 4096;

/// What a forward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The output alone: nothing is kept, nothing is dropped out.
    Infer,
    /// The output and what `backward` needs; nothing is dropped out.
    Differentiate,
    /// The output and what `backward` needs, with dropout at an address of its own.
    Train {
        /// The run's seed.
        seed: u64,
        /// Training step, below 2^36.
        step: u64,
        /// Index of the batch's first image, counted over the whole step: image n draws as sample `first_sample + n`.
        first_sample: u64,
    },
}

impl Mode {
    /// Whether `backward` may follow.
    pub fn keeps(self) -> bool {
        self != Self::Infer
    }

    /// The dropout of the `layer`-th layer that has one, counted from 0 in the order of the forward pass.
    ///
    /// Its numbers lie at [`Purpose::Dropout`] and step `step·4096 + layer`, so that no two layers share a mask.
    pub fn dropout(self, probability: f64, layer: usize) -> Option<Dropout> {
        match self {
            Self::Train { seed, step, first_sample } if probability > 0.0 => Some(Dropout {
                probability: probability as f32,
                address: Address::new(seed, Purpose::Dropout)
                    .at_step(step * LAYERS + layer as u64)
                    .at_sample(first_sample),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropout_acts_in_training_only_and_layers_differ() {
        let train = Mode::Train { seed: 1, step: 2, first_sample: 3 };
        assert_eq!(Mode::Infer.dropout(0.5, 0), None);
        assert_eq!(Mode::Differentiate.dropout(0.5, 0), None);
        assert_eq!(train.dropout(0.0, 0), None);
        let address = |layer| train.dropout(0.5, layer).map(|d| d.address);
        assert_ne!(address(0), address(1));
        assert_eq!(address(7).map(|a| (a.seed, a.step, a.sample)), Some((1, 2 * 4096 + 7, 3)));
    }
}
