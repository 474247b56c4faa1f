//! Every setting, section by section. What stands above a field is what users read about it.

use ddpm_nn::config::{DownBlock, SampleSize, TimeScaleShift, UpBlock};

use super::key::{Allowed, NameOf, Range, name_of, section};
use crate::{
    diffusion::{BetaSchedule, Prediction, TimeSteps, Variance, Weighting},
    named::{UnknownName, named_enum},
    optimiser::{Decay, OptimiserKind},
    samplers::{self, Levels},
};

/// A whole number of steps, images or bytes that is large enough for every use.
const MANY: i64 = 1_000_000_000_000;

named_enum! {
    /// How far a prediction is from its target.
    #[derive(Default)]
    Loss: "loss" {
        /// Squared difference: L_simple of Ho et al. 2020, eq. 14.
        #[default]
        L2 = "l2" | "mse",
        /// Absolute difference.
        L1 = "l1",
        /// Squared near 0, absolute beyond `huber_delta`.
        Huber = "huber",
        /// The variational bound's term L_t: Ho et al. 2020, eq. 5.
        Vlb = "vlb" | "kl",
    }
}

fn one_of(what: &'static str, known: &[&'static str], text: &str) -> Result<String, UnknownName> {
    let same = |name: &&&str| name.eq_ignore_ascii_case(text);
    let unknown = || UnknownName { what, got: text.to_owned(), known: known.to_vec() };
    known.iter().find(same).map(|&name| name.to_owned()).ok_or_else(unknown)
}

/// Names that another crate or module understands.
macro_rules! names {
    ($what:literal: $($name:literal),+) => {
        Allowed::Name((|text| one_of($what, &[$($name),+], text)) as NameOf)
    };
}

const DOWN_BLOCKS: NameOf = |text| one_of("down block", &["DownBlock2D", "AttnDownBlock2D"], text);
const UP_BLOCKS: NameOf = |text| one_of("up block", &["UpBlock2D", "AttnUpBlock2D"], text);

section! {
    /// The U-Net: the options of diffusers' UNet2DModel under their own names; channels and classes follow from the data.
    NetworkSettings: "network" {
        /// Channels of each level, from the image's resolution downwards; each level halves the image once more.
        block_out_channels: Vec<usize> = vec![128, 256, 256, 256], Allowed::Wholes(1, 65536);
        /// One block type a level, from the image's resolution downwards: with or without attention.
        down_block_types: Vec<DownBlock> = vec![DownBlock::Plain, DownBlock::Attention, DownBlock::Plain, DownBlock::Plain],
            Allowed::Names(DOWN_BLOCKS);
        /// One block type a level, from the lowest resolution upwards; an empty list mirrors down_block_types.
        up_block_types: Vec<UpBlock> = vec![], Allowed::Names(UP_BLOCKS);
        /// Residual blocks a level on the way down; the way up has one more.
        layers_per_block: usize = 2, Allowed::Whole(1, 64);
        /// Attention between the way down and the way up.
        add_attention: bool = true, Allowed::Switch;
        /// Channels of one attention head; 0 is a single head as wide as the level.
        attention_head_dim: usize = 0, Allowed::Whole(0, 65536);
        /// Groups of every group normalisation; must divide every level's channels.
        norm_num_groups: usize = 32, Allowed::Whole(1, 65536);
        /// Added to the variance in every normalisation.
        norm_eps: f64 = 1e-6, Allowed::Number(Range::above(0.0, 1.0));
        /// Groups of the middle attention's normalisation; 0 takes norm_num_groups (none at all with scale_shift).
        attn_norm_num_groups: usize = 0, Allowed::Whole(0, 65536);
        /// How the time embedding enters a residual block: added, or as a scale and a shift after the normalisation.
        resnet_time_scale_shift: TimeScaleShift = TimeScaleShift::Default, names!("time scale shift": "default", "scale_shift");
        /// Probability that a value inside a residual block is dropped in training.
        dropout: f64 = 0.0, Allowed::Number(Range::below(0.0, 1.0));
        /// Padding before halving: 0 pads below and to the right only (the paper's code), 1 all around.
        downsample_padding: usize = 0, Allowed::Whole(0, 1);
        /// Time frequencies end at 1/10000 (1, the paper's code) or one step before (0).
        freq_shift: usize = 1, Allowed::Whole(0, 16);
        /// Time embedding as [cos, sin] instead of the paper's [sin, cos].
        flip_sin_to_cos: bool = false, Allowed::Switch;
        /// The middle blocks' outputs are divided by this.
        mid_block_scale_factor: f64 = 1.0, Allowed::Number(Range::above(0.0, 1e6));
        /// Width of the time embedding; 0 is four times the first level's channels.
        time_embedding_dim: usize = 0, Allowed::Whole(0, 65536);
    }
}

section! {
    /// What is learned from.
    DataSettings: "data" {
        /// A folder of pictures, an .npz or .npy, IDX or CIFAR file; or bundled:digits, bundled:emoji.
        path: String = String::new(), Allowed::Text;
        /// Height and width in pixels; 0 takes the size that all pictures have.
        size: SampleSize = SampleSize::Square(0), Allowed::Size(8192);
        /// 1 grey, 3 colour, 4 with transparency; 0 takes what the pictures have.
        channels: usize = 0, Allowed::Whole(0, 4096);
        /// How a picture of another shape is cut: the centre, a random part each time, or none (stretched).
        crop: String = "centre".to_owned(), CROP;
        /// The filter that resizes.
        resize: String = "lanczos3".to_owned(), names!("filter": "lanczos3", "bicubic", "bilinear", "box", "nearest");
        /// Mirror each picture left to right with probability one half.
        flip: bool = false, Allowed::Switch;
        /// Learn classes: the sub-folders' names, or the labels in the file.
        classes: bool = false, Allowed::Switch;
        /// Probability with which a picture is learned without its class (Ho and Salimans 2022: 0.1), which guidance needs.
        class_dropout: f64 = 0.0, Allowed::Number(Range::below(0.0, 1.0));
        /// Part of the data that is never trained on: its loss says whether to go on.
        holdout: f64 = 0.1, Allowed::Number(Range::below(0.0, 1.0));
        /// The values of black and white in files of floats; auto finds out.
        range: String = "auto".to_owned(), names!("range": "auto", "0..1", "-1..1", "0..255");
        /// The order of the axes in array files; auto finds out.
        layout: String = "auto".to_owned(), names!("layout": "auto", "NHWC", "NCHW", "NHW");
        /// What a broken picture does: stop with its name, or be skipped with a line.
        on_error: String = "stop".to_owned(), names!("reaction": "stop", "skip");
        /// Memory for decoded pictures in MiB; 0 is a quarter of what is free. What does not fit is read again.
        cache_mb: usize = 0, Allowed::Whole(0, MANY);
    }
}

/// `center` is understood too.
const CROP: Allowed = Allowed::Name(|text| {
    let text = if text.eq_ignore_ascii_case("center") { "centre" } else { text };
    one_of("crop", &["centre", "random", "none"], text)
});

section! {
    /// The diffusion process, the loss and the reverse steps.
    DiffusionSettings: "diffusion" {
        /// How the noise variance beta grows over the time steps.
        schedule: BetaSchedule = BetaSchedule::Linear, Allowed::Name(name_of::<BetaSchedule>);
        /// T, the number of time steps.
        timesteps: usize = 1000, Allowed::Whole(1, 1_000_000);
        /// beta of the first step.
        beta_start: f64 = 1e-4, Allowed::Number(Range::open(0.0, 1.0));
        /// beta of the last step.
        beta_end: f64 = 0.02, Allowed::Number(Range::open(0.0, 1.0));
        /// Shift and scale the schedule so that the last step is pure noise (Lin et al. 2024); not with the prediction eps.
        zero_terminal_snr: bool = false, Allowed::Switch;
        /// What the network predicts: the noise, the picture, v (Salimans and Ho 2022), or the mean of the step before.
        prediction: Prediction = Prediction::Eps, Allowed::Name(name_of::<Prediction>);
        /// Variance of an ancestral reverse step: beta (fixed_large), the posterior's (fixed_small), a blend of the two, or learned.
        variance: Variance = Variance::FixedLarge, Allowed::Name(name_of::<Variance>);
        /// How much of a blend is beta (latent diffusion's v_posterior).
        variance_blend: f64 = 0.0, Allowed::Number(Range::closed(0.0, 1.0));
        /// Show the network what it saw in the step before, in half of the training steps and while sampling (Chen et al. 2023).
        self_conditioning: bool = false, Allowed::Switch;
        /// Clip the predicted picture to [-clip_range, clip_range] while sampling.
        clip: bool = true, Allowed::Switch;
        /// Where the predicted picture is clipped.
        clip_range: f64 = 1.0, Allowed::Number(Range::above(0.0, 1e6));
        /// Strength of noise that all pixels of a channel share, added to the noise in training (about 0.1); it lets pictures be as a whole dark or bright.
        offset_noise: f64 = 0.0, Allowed::Number(Range::closed(0.0, 10.0));
        /// How the time steps of a batch are drawn: each by itself, one from each equal part of 0..T, which makes gradients steadier, in pairs t and T-1-t, or by their losses so far.
        time_steps: TimeSteps = TimeSteps::Uniform, Allowed::Name(name_of::<TimeSteps>);
        /// The loss: squared, absolute or Huber's difference, or the variational bound's term.
        loss: Loss = Loss::L2, Allowed::Name(name_of::<Loss>);
        /// Where Huber's loss turns from squared to absolute.
        huber_delta: f64 = 1.0, Allowed::Number(Range::above(0.0, 1e6));
        /// Time steps count by min(SNR, this)/SNR (Hang et al. 2023), so that faint noise does not crowd out shapes; 0 counts all alike.
        min_snr_gamma: f64 = 0.0, Allowed::Number(Range::closed(0.0, 1e6));
        /// What time steps count for: all alike, as in a loss on the noise whatever is predicted (snr), by P2 (Choi et al. 2022) or by min_snr_gamma.
        weighting: Weighting = Weighting::Uniform, Allowed::Name(name_of::<Weighting>);
        /// gamma of P2's 1/(k + SNR)^gamma.
        p2_gamma: f64 = 1.0, Allowed::Number(Range::closed(0.0, 100.0));
        /// k of P2's 1/(k + SNR)^gamma.
        p2_k: f64 = 1.0, Allowed::Number(Range::above(0.0, 1e6));
        /// What the loss itself counts for (latent diffusion's l_simple_weight).
        simple_weight: f64 = 1.0, Allowed::Number(Range::closed(0.0, 1e6));
        /// What the loss counts for once more, weighted as the bound weighs it (latent diffusion's original_elbo_weight).
        elbo_weight: f64 = 0.0, Allowed::Number(Range::closed(0.0, 1e6));
        /// What the whole bound, T times its term at t in bits per dimension, counts for: as the loss vlb, and beside another loss where the variance is learned (Nichol and Dhariwal 2021: 0.001).
        vlb_weight: f64 = 0.001, Allowed::Number(Range::above(0.0, 1e6));
        /// Learn the logarithm s_t of the loss's own variance at each time step: the loss becomes loss/e^s_t + s_t (latent diffusion's learn_logvar).
        learn_log_variance: bool = false, Allowed::Switch;
        /// What s_t starts from.
        log_variance_init: f64 = 0.0, Allowed::Number(Range::closed(-100.0, 100.0));
    }
}

section! {
    /// How weights follow from gradients.
    OptimiserSettings: "optimiser" {
        /// adamw, or adam, which has no weight decay.
        kind: OptimiserKind = OptimiserKind::AdamW, Allowed::Name(name_of::<OptimiserKind>);
        /// Learning rate after the warm-up.
        lr: f64 = 2e-4, Allowed::Number(Range::above(0.0, 10.0));
        /// Steps over which the learning rate grows.
        warmup: u64 = 5000, Allowed::Whole(0, MANY);
        /// How the learning rate runs after the warm-up, until train.steps.
        decay: Decay = Decay::Constant, Allowed::Name(name_of::<Decay>);
        /// What a decay leaves of lr at the end.
        final_share: f64 = 0.0, Allowed::Number(Range::closed(0.0, 1.0));
        /// Part of the old mean gradient that an update keeps.
        beta_1: f64 = 0.9, Allowed::Number(Range::below(0.0, 1.0));
        /// Part of the old mean square that an update keeps.
        beta_2: f64 = 0.999, Allowed::Number(Range::below(0.0, 1.0));
        /// Added to the root of the second moment.
        eps: f64 = 1e-8, Allowed::Number(Range::above(0.0, 1.0));
        /// Pull of the weights towards 0, times the learning rate.
        weight_decay: f64 = 0.0, Allowed::Number(Range::closed(0.0, 10.0));
        /// The gradient's norm is cut to this; 0 leaves it.
        clip_norm: f64 = 1.0, Allowed::Number(Range::closed(0.0, 1e6));
    }
}

section! {
    /// The moving average of the weights, which samples best.
    EmaSettings: "ema" {
        /// Part of the old average that an update keeps; 0 makes the average the weights themselves.
        decay: f64 = 0.9999, Allowed::Number(Range::below(0.0, 1.0));
        /// Forget faster at first: the n-th update keeps min(decay, (1 + n) / (10 + n)).
        warmup: bool = false, Allowed::Switch;
        /// The average as it is after this many steps is kept beside it, for guidance away from it (Karras et al. 2024); 0 keeps none.
        early: u64 = 0, Allowed::Whole(0, MANY);
    }
}

section! {
    /// The run.
    TrainSettings: "train" {
        /// Name of the run's folder in runs/ where --out does not say.
        name: String = "run".to_owned(), Allowed::Text;
        /// Updates of the weights.
        steps: u64 = 100_000, Allowed::Whole(1, MANY);
        /// Pictures an update learns from.
        batch: usize = 64, Allowed::Whole(1, 1_000_000);
        /// Pictures that are in memory at once; 0 is the whole batch. Multiples of 16 give the same bits.
        micro_batch: usize = 0, Allowed::Whole(0, 1_000_000);
        /// Where all randomness comes from.
        seed: u64 = 0, Allowed::Whole(0, i64::MAX);
    }
}

section! {
    /// When a checkpoint is written and how many stay.
    CheckpointSettings: "checkpoint" {
        /// Steps between checkpoints; 0 writes only the last.
        every: u64 = 5000, Allowed::Whole(0, MANY);
        /// How many of the newest stay.
        keep: usize = 3, Allowed::Whole(1, MANY);
        /// Multiples of this many steps stay for good; 0 for none.
        keep_every: u64 = 0, Allowed::Whole(0, MANY);
    }
}

section! {
    /// What is written to metrics.jsonl.
    LogSettings: "log" {
        /// Steps between two lines.
        every: u64 = 1, Allowed::Whole(1, MANY);
        /// Write the same numbers, and previews, to an event file for TensorBoard as well.
        tensorboard: bool = false, Allowed::Switch;
    }
}

section! {
    /// Pictures and the held-out loss while training, and the pictures at its end.
    PreviewSettings: "preview" {
        /// Steps between previews; 0 makes them only at the end.
        every: u64 = 5000, Allowed::Whole(0, MANY);
        /// Pictures in a preview; 0 for none.
        count: usize = 64, Allowed::Whole(0, 4096);
        /// The sampler of previews and of the final pictures; --sampler of `ddpm sample` takes the same names.
        sampler: String = "ddim".to_owned(), Allowed::Name(|name| samplers::find(name).map(|known| known.name.to_owned()));
        /// Steps of a preview; all time steps if there are fewer.
        steps: usize = 50, Allowed::Whole(1, 1_000_000);
        /// How the noise levels of a preview follow each other, where the sampler visits levels (dpm++…, euler, heun, lms, unipc).
        levels: Levels = Levels::TimeSteps, Allowed::Name(name_of::<Levels>);
        /// eta where the sampler is ddim: 0 adds no noise; 1 adds a posterior step's, which corrects what a briefly trained network got wrong.
        eta: f64 = 0.0, Allowed::Number(Range::closed(0.0, 1.0));
        /// Strength of guidance towards the classes (Ho and Salimans 2022), where data.class_dropout allows it: 1 follows them, more exaggerates.
        guidance: f64 = 1.0, Allowed::Number(Range::closed(0.0, 100.0));
        /// Strength of guidance away from the weights that ema.early keeps (Karras et al. 2024): 1 is none, 2 to 3 make up for a short training.
        autoguidance: f64 = 1.0, Allowed::Number(Range::closed(0.0, 100.0));
        /// The lowest time step at which pictures are guided: near the image guidance only roughens (Kynkäänniemi et al. 2024).
        guidance_from: u64 = 0, Allowed::Whole(0, MANY);
        /// Held-out pictures whose loss is measured, at most; 0 for none.
        heldout: usize = 512, Allowed::Whole(0, MANY);
    }
}

section! {
    /// Scores while training, of the averaged weights' pictures against the training data: fid and is in metrics.jsonl.
    EvalSettings: "eval" {
        /// Steps between scores; 0 for none.
        every: u64 = 0, Allowed::Whole(0, MANY);
        /// Pictures that are drawn for a score, by the sampler of previews.
        count: usize = 1000, Allowed::Whole(2, 10_000_000);
        /// Inception-v3 as a safetensors file; empty is the program's own classifier, for 28x28x1 digits.
        features: String = String::new(), Allowed::Text;
    }
}
