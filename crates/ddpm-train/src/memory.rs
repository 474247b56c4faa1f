//! How much memory a network takes: roughly, from its options alone, or to the byte, by a rehearsal.

use ddpm_kernels::{Backend, loss::LossKind};
use ddpm_nn::{
    Mode, Parameters, UNet, UNetConfig,
    config::{DownBlock, UpBlock},
    layout::{Parameter, Role},
};
use ddpm_tensor::{
    Cpu, Tensor,
    random::{Address, Purpose},
};

use crate::{
    error::Error,
    settings::{EmaSettings, OptimiserSettings},
};

const F32: u64 = 4;

/// An estimate, bytes. What the operations need in passing is estimated roughly: expect the truth within a third.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Numbers that are learned.
    pub parameters: u64,
    /// Weights, gradients, both moments and the average.
    pub training_fixed: u64,
    /// For each image that is in memory at once while training: what `backward` needs.
    pub training_per_image: u64,
    /// Weights, and what is kept of them while they are frozen.
    pub sampling_fixed: u64,
    /// For each image that is drawn at once.
    pub sampling_per_image: u64,
}

impl Memory {
    /// The estimate for images of `height` x `width` pixels.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub fn of(config: &UNetConfig, height: usize, width: usize) -> Result<Self, Error> {
        let unet = UNet::new(config)?;
        let layout_len = unet.layout().count() as u64;
        let maps = Maps::of(config, height * width);
        let kept = unet.layout().parameters().iter().map(kept_of).sum::<u64>();
        Ok(Self {
            parameters: layout_len,
            training_fixed: 5 * layout_len * F32,
            training_per_image: (maps.kept + 6 * maps.largest) * F32,
            sampling_fixed: (layout_len + kept) * F32,
            sampling_per_image: (maps.skips + 6 * maps.largest) * F32,
        })
    }

    /// Bytes to train with so many images in memory at once.
    pub fn training(&self, at_once: usize) -> u64 {
        self.training_fixed + at_once as u64 * self.training_per_image
    }

    /// Bytes to draw so many images at once.
    pub fn sampling(&self, at_once: usize) -> u64 {
        self.sampling_fixed + at_once as u64 * self.sampling_per_image
    }
}

/// The most bytes, to a few percent, that training holds at once on the CPU with so many images of `[height, width]` at a time: a whole step is
/// gone through on a handle that only counts (see [`Cpu::rehearsal`]; it must be a fresh one). Images that wait on the host and the
/// program itself are not among them.
///
/// # Errors
/// Options that contradict each other, or the device.
pub fn of_training(
    rehearsal: &Cpu<f32>,
    config: &UNetConfig,
    [height, width]: [usize; 2],
    at_once: usize,
) -> Result<u64, Error> {
    let unet = UNet::new(config)?;
    let zeros = || Parameters::zeros(rehearsal, unet.layout());
    let (mut parameters, mut grads, mut m, mut v, mut ema) = (zeros()?, zeros()?, zeros()?, zeros()?, zeros()?);
    let shape = [at_once, height, width, config.in_channels];
    let x_0 = Tensor::alloc(rehearsal, shape)?;
    let factors = vec![(1.0, 0.0); at_once];
    let (x_t, eps) = rehearsal.noise(x_0.view(), &factors, Address::new(0, Purpose::Noise))?;
    drop(x_0);
    let (times, classes) = (vec![0.0; at_once], vec![0; at_once]);
    let classes = config.is_class_conditional().then_some(classes.as_slice());
    let mode = Mode::Train { seed: 0, step: 0, first_sample: 0 };
    let (y, cache) = unet.forward(rehearsal, &parameters, x_t.view(), &times, classes, mode)?;
    drop(x_t);
    // a network may be shown more than it says, and say more than it is shown
    let target = if eps.shape() == y.shape() { eps } else { Tensor::alloc(rehearsal, y.shape())? };
    let loss = rehearsal.loss(LossKind::L2, y.view(), target.view(), &vec![1.0; at_once], 1.0)?;
    drop((y, target));
    if let Some(cache) = cache {
        unet.backward(rehearsal, &parameters, cache, loss.d_output.view(), Some(&mut grads), false)?;
    }
    drop(loss);
    rehearsal.squared_norm(grads.buffer())?;
    let update = OptimiserSettings::default().update(0, 1, 1.0, &EmaSettings::default());
    rehearsal.adamw(
        &update,
        parameters.buffer_mut(),
        grads.buffer_mut(),
        m.buffer_mut(),
        v.buffer_mut(),
        ema.buffer_mut(),
    )?;
    Ok(rehearsal.peak_bytes() as u64)
}

/// The most bytes, to a few percent, that drawing so many images of `[height, width]` at once takes on the CPU, gone through as in
/// [`of_training`]: the weights, what is kept of them while they are frozen, and the largest pass.
///
/// # Errors
/// Options that contradict each other, or the device.
pub fn of_sampling(
    rehearsal: &Cpu<f32>,
    config: &UNetConfig,
    [height, width]: [usize; 2],
    at_once: usize,
) -> Result<u64, Error> {
    let unet = UNet::new(config)?;
    let parameters = Parameters::zeros(rehearsal, unet.layout())?;
    let _frozen = parameters.frozen();
    let x = Tensor::alloc(rehearsal, [at_once, height, width, config.in_channels])?;
    let (times, classes) = (vec![0.0; at_once], vec![0; at_once]);
    let classes = config.is_class_conditional().then_some(classes.as_slice());
    unet.forward(rehearsal, &parameters, x.view(), &times, classes, Mode::Infer)?;
    Ok(rehearsal.peak_bytes() as u64)
}

/// The most images at once that `need(images)` bytes of memory are there for: at most `wanted`, a multiple of 16 where it is more.
///
/// # Errors
/// Those of `need`.
pub fn most_at_once<E>(
    wanted: usize,
    available: u64,
    mut need: impl FnMut(usize) -> Result<u64, E>,
) -> Result<Option<usize>, E> {
    let mut fits = |images: usize| Ok::<_, E>(need(images)? <= available);
    if fits(wanted)? {
        return Ok(Some(wanted));
    }
    let (mut some, mut too_many) = (0, wanted.div_ceil(16));
    while too_many - some > 1 {
        let middle = usize::midpoint(some, too_many);
        if fits(16 * middle)? {
            some = middle;
        } else {
            too_many = middle;
        }
    }
    if some > 0 {
        return Ok(Some(16 * some));
    }
    for images in [8, 4, 2, 1].into_iter().filter(|&images| images < wanted) {
        if fits(images)? {
            return Ok(Some(images));
        }
    }
    Ok(None)
}

/// Bytes that are free for this process: the least of what the machine and its control group leave; 4 GiB where neither
/// says (not Linux).
pub fn available() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let number = |file: &str| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let group = number("/sys/fs/cgroup/memory.max")
        .map(|most| most.saturating_sub(number("/sys/fs/cgroup/memory.current").unwrap_or(0)));
    [machine, group].into_iter().flatten().min().unwrap_or(4 << 30)
}

/// Numbers that the CPU keeps of a frozen parameter: four times a 3x3 convolution's weights, once others.
fn kept_of(parameter: &Parameter) -> u64 {
    let times = match (parameter.role, parameter.shape.nhwc()) {
        (Role::ConvWeight, [3, ..]) => 4,
        (Role::ConvWeight | Role::DenseWeight, _) => 1,
        _ => 0,
    };
    times * parameter.shape.len() as u64
}

/// Numbers of one image's feature maps.
struct Maps {
    /// Kept for `backward`.
    kept: u64,
    /// Kept for the way up.
    skips: u64,
    /// The largest one.
    largest: u64,
}

impl Maps {
    fn of(config: &UNetConfig, pixels: usize) -> Self {
        let levels = config.levels();
        let at = |level: usize, channels: usize| (channels * (pixels >> (2 * level))) as u64;
        let first = at(0, config.block_out_channels[0]);
        let mut maps = Self { kept: first, skips: first, largest: first };
        // A residual block keeps its hidden map and its result; an attention what it gives each pixel, and its result.
        for (level, &channels) in config.block_out_channels.iter().enumerate() {
            let map = at(level, channels);
            let attends = config.down_block_types[level] == DownBlock::Attention;
            let each = if attends { 4 } else { 2 };
            maps.kept += config.layers_per_block as u64 * each * map;
            maps.skips += config.layers_per_block as u64 * map;
            maps.largest = maps.largest.max(map);
            if level + 1 < levels {
                maps.kept += map / 4;
                maps.skips += map / 4;
            }
        }
        let last = at(levels - 1, config.block_out_channels[levels - 1]);
        maps.kept += (4 + if config.add_attention { 2 } else { 0 }) * last;
        for (i, block) in config.up_block_types.iter().enumerate() {
            let level = levels - 1 - i;
            let map = at(level, config.block_out_channels[level]);
            let each = if *block == UpBlock::Attention { 4 } else { 2 };
            maps.kept += (config.layers_per_block as u64 + 1) * each * map;
            if level > 0 {
                // Doubled, with the level's own channels.
                maps.kept += 4 * map;
                maps.largest = maps.largest.max(4 * map);
            }
        }
        maps
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ddpm_tensor::CpuOptions;

    use super::*;
    use crate::presets;

    #[test]
    fn a_rehearsal_counts_what_a_step_takes() {
        let settings = presets::find("digits").unwrap().settings();
        let config = settings.unet(1, 28, 28, None).unwrap();
        let unet = UNet::new(&config).unwrap();
        for (threads, images) in [(1, 3), (1, 20), (2, 16)] {
            let options = CpuOptions { threads: Some(threads), ..CpuOptions::default() };
            let rehearsed = of_training(&Cpu::rehearsal(options).unwrap(), &config, [28, 28], images).unwrap();
            // the same step, done
            let cpu = Cpu::new(options).unwrap();
            let done = of_training(&cpu, &config, [28, 28], images).unwrap();
            // jobs are not all alike; and it is chance whether two threads ask at the same time, which takes most
            let least = if threads == 1 { 0.97 } else { 0.85 };
            let share = done as f64 / rehearsed as f64;
            let about = format!("{threads} threads, {images} images: {rehearsed} rehearsed, {done} done");
            assert!((least..=1.03).contains(&share), "{about}");
            assert!(done > (5 * unet.layout().count() * size_of::<f32>()) as u64);
        }
    }

    #[test]
    fn a_rehearsal_counts_what_sampling_takes() {
        let settings = presets::find("digits").unwrap().settings();
        let config = settings.unet(1, 28, 28, None).unwrap();
        let weights = (UNet::new(&config).unwrap().layout().count() * size_of::<f32>()) as u64;
        let options = CpuOptions { threads: Some(1), ..CpuOptions::default() };
        let rehearsed = of_sampling(&Cpu::rehearsal(options).unwrap(), &config, [28, 28], 3).unwrap();
        let done = of_sampling(&Cpu::new(options).unwrap(), &config, [28, 28], 3).unwrap();
        let share = done as f64 / rehearsed as f64;
        assert!((0.97..=1.03).contains(&share), "{rehearsed} rehearsed, {done} done");
        // weights, and what is kept of them: nearly all are of 3x3 convolutions
        let kept = Memory::of(&config, 28, 28).unwrap().sampling_fixed;
        assert!(done > kept && kept > 4 * weights, "{done} bytes, {kept} of them for {weights} of weights");
    }

    #[test]
    fn networks_that_say_or_see_more_are_rehearsed() {
        let mut settings = presets::find("digits").unwrap().settings();
        settings.network.block_out_channels = vec![8, 8, 8];
        let of = |settings: &crate::settings::Settings| {
            let config = settings.unet(1, 28, 28, None).unwrap();
            of_training(&Cpu::rehearsal(CpuOptions::default()).unwrap(), &config, [28, 28], 4).unwrap()
        };
        let plain = of(&settings);
        settings.diffusion.variance = crate::diffusion::Variance::Learned;
        assert!(of(&settings) > plain);
        settings.diffusion.variance = crate::diffusion::Variance::default();
        settings.diffusion.self_conditioning = true;
        assert!(of(&settings) > plain);
    }

    #[test]
    fn the_most_images_that_fit_are_found() {
        let need = |images: usize| Ok::<_, ()>(100 + 10 * images as u64);
        for (wanted, available, most) in [
            (64, 740, Some(64)),
            (64, 739, Some(48)),
            (20, 270, Some(16)),
            (64, 259, Some(8)),
            (3, 125, Some(2)),
            (64, 109, None),
        ] {
            assert_eq!(most_at_once(wanted, available, need).unwrap(), most, "{wanted} of {available}");
        }
    }

    #[test]
    fn the_papers_networks_have_the_papers_parameters() {
        for (name, parameters) in [("cifar10", 35_746_307), ("digits", 1_112_801), ("lsun256", 113_673_219)] {
            let settings = presets::find(name).unwrap().settings();
            let (size, channels) = (settings.data.size, settings.data.channels);
            let config = settings.unet(channels, size.height(), size.width(), None).unwrap();
            let memory = Memory::of(&config, size.height(), size.width()).unwrap();
            assert_eq!(memory.parameters, parameters, "{name}");
            assert!(memory.training(16) > memory.sampling(16));
        }
    }
}
