//! A trainer to a checkpoint and back.

use std::path::{Path, PathBuf};

use ddpm_kernels::Backend;
use ddpm_nn::Parameters;

use super::Trainer;
use super::log_variance::LogVariances;
use crate::checkpoint::{
    self, Checkpoint, Contents, EARLY, Entry, FromDevice, LOG_VARIANCE, LOSSES, More, Source, State, Target, ToDevice,
    Weights, entries,
};
use crate::diffusion::REMEMBERED;
use crate::error::Error;
use crate::settings::Settings;

impl<B: Backend<Elem = f32>> Trainer<B> {
    /// Writes where training stands into a folder of checkpoints and returns the checkpoint's own folder.
    ///
    /// # Errors
    /// Those of [`checkpoint::save`].
    pub fn save(&self, checkpoints: &Path) -> Result<PathBuf, Error> {
        let state = State {
            step: self.step,
            images: self.step * self.settings.train.batch as u64,
            ema_updates: self.step,
            isa: self.engine.isa.clone(),
            precision: self.engine.precision.clone(),
            classes: self.data().classes().unwrap_or_default().to_vec(),
            data: self.data().hash().to_owned(),
            config: String::new(),
        };
        let backend = &self.backend;
        let shapes = loss_shapes(self.schedule.time_steps());
        let losses = loss_entries(&shapes);
        let from = |numbers| FromDevice { backend, buffer: numbers };
        let losses = self.history.as_ref().map(|history| More {
            name: LOSSES,
            entries: &losses,
            sources: vec![Source { prefix: "", data: history.flat() }],
        });
        let variances_layout = self.log_variances.as_ref().map(LogVariances::layout).unwrap_or_default();
        let variances_entries = entries(&variances_layout);
        let buffers: Vec<_> =
            self.log_variances.iter().flat_map(|known| &known.numbers).map(|n| from(n.buffer())).collect();
        let variances = self.log_variances.as_ref().map(|_| More {
            name: LOG_VARIANCE,
            entries: &variances_entries,
            sources: LogVariances::<B>::PREFIXES
                .iter()
                .zip(&buffers)
                .map(|(prefix, data)| Source { prefix, data })
                .collect(),
        });
        let network = entries(self.unet.layout());
        let early = self.early.as_ref().map(|early| from(early.buffer()));
        let early = early.as_ref().map(|data| More {
            name: EARLY,
            entries: &network,
            sources: vec![Source { prefix: "", data }],
        });
        let more: Vec<More<'_>> = losses.into_iter().chain(variances).chain(early).collect();
        let contents = Contents {
            state,
            config: &self.settings.to_toml_of_numbers(),
            entries: &network,
            weights: &from(self.parameters.buffer()),
            ema: &from(self.ema.buffer()),
            m: &from(self.m.buffer()),
            v: &from(self.v.buffer()),
            more: &more,
        };
        Ok(checkpoint::save(checkpoints, contents)?)
    }

    /// Takes up training where a checkpoint of the same run left it. Returns one line if another instruction set or
    /// precision made it.
    ///
    /// # Errors
    /// [`Error::OtherRun`] if it was made by other settings or from other data; those of reading it.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<Option<String>, Error> {
        let state = checkpoint.state();
        let other = |what: String| Error::OtherRun { checkpoint: checkpoint.folder().to_owned(), what };
        if state.data != self.data().hash() {
            return Err(other("the data has changed since".to_owned()));
        }
        // Read first, so that settings that came later have their defaults, which are what was done before.
        let name = checkpoint.folder().join("config.toml").display().to_string();
        let before = Settings::from_toml(checkpoint.config(), &name)?.to_toml_of_numbers();
        if let Some(key) = first_difference(&before, &self.settings.to_toml_of_numbers()) {
            return Err(other(format!("{key} has changed since")));
        }
        let entries = entries(self.unet.layout());
        let backend = &self.backend;
        let (weights, ema) = (self.parameters.buffer_mut(), self.ema.buffer_mut());
        checkpoint.read_weights(Weights::Raw, &entries, &mut ToDevice { backend, buffer: weights })?;
        checkpoint.read_weights(Weights::Ema, &entries, &mut ToDevice { backend, buffer: ema })?;
        let mut m = ToDevice { backend, buffer: self.m.buffer_mut() };
        let mut v = ToDevice { backend, buffer: self.v.buffer_mut() };
        checkpoint.read_moments(&entries, &mut m, &mut v)?;
        if checkpoint.holds(Weights::Early) {
            let mut early = Parameters::zeros(backend, self.unet.layout())?;
            checkpoint.read_weights(Weights::Early, &entries, &mut ToDevice { backend, buffer: early.buffer_mut() })?;
            self.early = Some(early);
        }
        if let Some(history) = &mut self.history {
            let shapes = loss_shapes(self.schedule.time_steps());
            let mut target = [Target { prefix: "", data: history.flat_mut() }];
            checkpoint.read_more(LOSSES, &loss_entries(&shapes), &mut target)?;
        }
        if let Some(known) = &mut self.log_variances {
            let layout = known.layout();
            let mut buffers = known.numbers.each_mut().map(|n| ToDevice { backend, buffer: n.buffer_mut() });
            let named = LogVariances::<B>::PREFIXES.iter().zip(&mut buffers);
            let mut targets: Vec<Target<'_>> = named.map(|(prefix, data)| Target { prefix, data }).collect();
            checkpoint.read_more(LOG_VARIANCE, &self::entries(&layout), &mut targets)?;
            drop(targets);
            known.refresh(backend)?;
        }
        self.step = state.step;

        let (then, now) = ((&state.isa, &state.precision), (&self.engine.isa, &self.engine.precision));
        Ok((then != now).then(|| {
            format!(
                "resuming with {} ({}) what {} ({}) began: the numbers go on, but not to the bit as they would have",
                now.0, now.1, then.0, then.1
            )
        }))
    }
}

/// Shapes of the losses that are remembered, and of their counts.
fn loss_shapes(time_steps: usize) -> [Vec<usize>; 2] {
    [vec![time_steps, REMEMBERED], vec![time_steps]]
}

/// The same with names and places.
fn loss_entries([losses, counts]: &[Vec<usize>; 2]) -> [Entry<'_>; 2] {
    [
        Entry { name: "losses", shape: losses, start: 0 },
        Entry { name: "counts", shape: counts, start: losses.iter().product() },
    ]
}

/// The first setting that differs between two texts of [`Settings::to_toml_of_numbers`](crate::settings::Settings), but for
/// the number of steps, which a run may change.
fn first_difference(before: &str, after: &str) -> Option<String> {
    let keyed = |text: &str| {
        let mut section = String::new();
        let mut lines = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.clone_into(&mut section);
            } else {
                let (key, value) = line.split_once('=').unwrap_or((line, ""));
                lines.push((format!("{section}.{}", key.trim()), value.trim().to_owned()));
            }
        }
        lines.retain(|(key, _)| key != "train.steps");
        lines
    };
    let (before, after) = (keyed(before), keyed(after));
    let one_sided = before.iter().chain(&after).find(|line| before.contains(line) != after.contains(line));
    one_sided.map(|(key, _)| key.clone())
}

#[cfg(test)]
mod tests {
    use super::first_difference;

    #[test]
    fn a_changed_setting_is_named_and_steps_may_change() {
        let text = "[train]\nsteps = 3\nseed = 1\n\n[optimiser]\nlr = 0.1\n";
        assert_eq!(first_difference(text, text), None);
        assert_eq!(first_difference(text, &text.replace("steps = 3", "steps = 9")), None);
        let key = |other: &str| first_difference(text, other).unwrap_or_default();
        assert_eq!(key(&text.replace("0.1", "0.2")), "optimiser.lr");
        assert_eq!(key(&text.replace("seed = 1\n", "")), "train.seed");
        assert_eq!(key(&format!("{text}beta_1 = 0.9\n")), "optimiser.beta_1");
    }
}
