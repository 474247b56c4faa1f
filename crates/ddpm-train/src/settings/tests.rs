#![allow(clippy::unwrap_used)]

use toml::Value;

use super::*;
use crate::data::DataOptions;
use crate::presets;

#[test]
fn the_list_of_keys_is_the_list_of_fields_and_every_key_has_a_meaning() {
    let table = Settings::default().table();
    let mut fields = Vec::new();
    for (section, names) in &table {
        for name in names.as_table().unwrap().keys() {
            fields.push(format!("{section}.{name}"));
        }
    }
    let keys = keys();
    let mut named: Vec<_> = keys.iter().map(|key| key.name.clone()).collect();
    fields.sort();
    named.sort();
    assert_eq!(fields, named);
    for key in &keys {
        assert!(key.doc.len() > 10 && key.doc.ends_with('.'), "{}: {}", key.name, key.doc);
        assert!(SECTIONS.iter().any(|(section, _)| *section == key.section()), "{}", key.name);
        assert!(!key.allowed.to_string().is_empty(), "{}", key.name);
    }
}

#[test]
fn every_value_of_every_preset_is_allowed_and_stored_as_it_is() {
    for settings in presets::all().map(presets::Preset::settings).chain([Settings::default()]) {
        for key in keys() {
            let value = settings.get(&key.name).unwrap();
            assert_eq!(key.check(&value, &Origin::Set).unwrap(), value, "{}", key.name);
        }
    }
}

#[test]
fn a_commented_file_reads_back_unchanged() {
    for preset in presets::all() {
        let settings = preset.settings();
        let text = settings.to_toml_commented();
        assert_eq!(Settings::from_toml(&text, "f.toml").unwrap(), settings, "{text}");
        for key in keys() {
            assert!(text.contains(&key.doc), "{} has no comment", key.name);
        }
    }
}

#[test]
fn later_layers_win() {
    let mut layers = Layers::new();
    layers.file("[train]\nsteps = 7\nbatch = 8\n[optimiser]\nlr = 1\n", "a.toml").unwrap();
    layers.set("train.steps=9").unwrap();
    layers.value("train.seed", 3, Origin::Flag("--seed")).unwrap();
    let settings = layers.over(&presets::find("digits").unwrap().settings()).unwrap();
    assert_eq!((settings.train.steps, settings.train.batch, settings.train.seed), (9, 8, 3));
    assert_eq!((settings.optimiser.lr, settings.ema.decay), (1.0, 0.995));
    assert!(layers.says("optimiser.lr") && !layers.says("ema.decay"));
    assert_eq!(layers.get("train.steps"), Some(&Value::Integer(9)));
}

#[test]
fn what_is_typed_becomes_what_the_setting_takes() {
    let set = |text: &str| {
        let mut layers = Layers::new();
        layers.set(text).unwrap();
        layers.over(&Settings::default()).unwrap()
    };
    assert_eq!(set("optimiser.lr=1").optimiser.lr, 1.0);
    assert_eq!(set("train.steps=1e5").train.steps, 100_000);
    assert_eq!(set("train.steps = 1_000").train.steps, 1000);
    assert_eq!(set("diffusion.schedule=cosine").diffusion.schedule.name(), "cosine");
    assert_eq!(set("diffusion.schedule=\"quad\"").diffusion.schedule.name(), "scaled_linear");
    assert_eq!(set("data.size=64").data.size.height(), 64);
    assert_eq!(set("data.size=[48, 64]").data.size.width(), 64);
    assert_eq!(set("data.size=48,64").data.size.height(), 48);
    assert_eq!(set("data.path=photos of 2026").data.path, "photos of 2026");
    assert_eq!(set("data.path=123").data.path, "123");
    assert_eq!(set("data.crop=center").data.crop, "centre");
    assert_eq!(set("network.block_out_channels=32,64,64,64").network.block_out_channels, [32, 64, 64, 64]);
    assert!(set("data.flip=true").data.flip);
}

#[test]
fn unknown_keys_are_answered_with_the_nearest() {
    let cases = [
        ("optimizer.lr=1", "optimiser.lr"),
        ("lr=1", "optimiser.lr"),
        ("train.step=1", "train.steps"),
        ("checkpoint.evry=1", "checkpoint.every"),
        ("training.batch=1", "train.batch"),
        ("difusion.timestep=1", "diffusion.timesteps"),
    ];
    for (text, nearest) in cases {
        let message = Layers::new().set(text).unwrap_err().to_string();
        assert!(message.contains(&format!("did you mean `{nearest}`?")), "{message}");
        assert!(message.contains("there is no setting"), "{message}");
    }
    assert!(!Layers::new().set("zzz=1").unwrap_err().to_string().contains("did you mean"));
    assert!(Layers::new().set("train.steps").unwrap_err().to_string().contains("section.name=value"));
    let message = Layers::new().file("[train]\nstps = 1\n", "my.toml").unwrap_err().to_string();
    assert!(message.contains("my.toml") && message.contains("train.steps"), "{message}");
    let message = Layers::new().file("steps = 1\n", "my.toml").unwrap_err().to_string();
    assert!(message.contains("train.steps"), "{message}");
    let message = Layers::new().file("[train\n", "my.toml").unwrap_err().to_string();
    assert!(message.contains("my.toml") && message.contains("line 1"), "{message}");
}

#[test]
fn values_out_of_range_name_key_value_and_range() {
    let cases = [
        ("train.steps=0", "from 1 to"),
        ("train.steps=1.5", "from 1 to"),
        ("train.steps=many", "from 1 to"),
        ("train.seed=-1", "from 0 to"),
        ("optimiser.lr=0", "above 0 and at most 10"),
        ("optimiser.lr=nan", "above 0 and at most 10"),
        ("optimiser.lr=inf", "above 0 and at most 10"),
        ("ema.decay=1", "at least 0 and below 1"),
        ("data.holdout=1.0", "at least 0 and below 1"),
        ("data.flip=yes", "true or false"),
        ("data.size=[1,2,3]", "pair [height, width]"),
        ("data.size=-4", "pair [height, width]"),
        ("data.size=[0,4]", "pair [height, width]"),
        ("network.block_out_channels=[]", "list of whole numbers"),
        ("network.block_out_channels=[0]", "list of whole numbers"),
        ("network.down_block_types=SkipDownBlock2D", "AttnDownBlock2D"),
        ("diffusion.schedule=cosin", "did you mean `cosine`?"),
        ("diffusion.variance=learnt_range", "did you mean `learned_range`?"),
        ("diffusion.variance_blend=1.5", "at least 0 and at most 1"),
    ];
    for (text, part) in cases {
        let (key, value) = text.split_once('=').unwrap();
        let message = Layers::new().set(text).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains(key), "{text}: {message}");
        let digits = value.trim_matches(|c: char| !c.is_alphanumeric());
        assert!(message.contains(digits.split(',').next().unwrap()), "{text}: {message}");
    }
}

#[test]
fn settings_that_contradict_each_other_are_named() {
    let cases: &[(&[&str], &str)] = &[
        (&["train.batch=8", "train.micro_batch=9"], "train.micro_batch"),
        (&["diffusion.beta_start=0.5"], "diffusion.beta_start"),
        (&["diffusion.zero_terminal_snr=true"], "pure noise"),
        (&["diffusion.weighting=min_snr"], "min_snr_gamma = 0"),
        (&["diffusion.weighting=p2", "diffusion.min_snr_gamma=5"], "min_snr_gamma = 5"),
        (&["network.norm_num_groups=7"], "norm_num_groups"),
        (&["network.block_out_channels=32,64"], "down_block_types"),
        (&["data.size=30"], "28x28 and 32x32"),
    ];
    for (sets, part) in cases {
        let mut layers = Layers::new();
        for set in *sets {
            layers.set(set).unwrap();
        }
        let message = layers.over(&presets::find("digits").unwrap().settings()).unwrap_err().to_string();
        assert!(message.contains(part), "{sets:?}: {message}");
    }
}

#[test]
fn a_resumed_run_may_change_how_long_and_what_it_shows() {
    let run = presets::find("digits").unwrap().settings();
    let mut layers = Layers::new();
    for set in
        ["train.steps=9", "preview.every=3", "log.every=2", "checkpoint.keep=1", "optimiser.lr=0.5", "train.seed=4"]
    {
        layers.set(set).unwrap();
    }
    let resume = run.resume_with(&layers.over(&run).unwrap());
    let names = |changes: &[Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>();
    assert_eq!(names(&resume.refused), ["train.seed", "optimiser.lr"]);
    assert_eq!(names(&resume.accepted), ["train.steps", "checkpoint.keep", "log.every", "preview.every"]);
    assert_eq!(resume.refused[1].to_string(), "optimiser.lr: 0.002 -> 0.5");
    assert_eq!(run.resume_with(&run), Resume::default());
}

#[test]
fn a_checkpoints_settings_hold_no_path_and_nothing_that_changes_no_bit() {
    let mut run = presets::find("digits").unwrap().settings();
    let text = run.to_toml_of_numbers();
    run.data.path = "/somewhere/else".to_owned();
    run.train.micro_batch = 16;
    run.checkpoint.every = 1;
    run.preview.count = 0;
    assert_eq!(run.to_toml_of_numbers(), text);
    run.optimiser.lr *= 2.0;
    assert_ne!(run.to_toml_of_numbers(), text);
    assert_eq!(Settings::from_toml(&text, "config.toml").unwrap().network, run.network);
}

#[test]
fn a_network_and_its_settings_say_the_same() {
    let settings = presets::find("cifar10").unwrap().settings();
    let config = settings.unet(3, 32, 32, Some(10)).unwrap();
    let again = Settings { network: NetworkSettings::of(&config), ..settings };
    assert_eq!(again.unet(3, 32, 32, Some(10)).unwrap(), config);
}

#[test]
fn every_name_of_a_data_setting_is_known_to_the_data() {
    for key in keys().iter().filter(|key| key.section() == "data") {
        if let Allowed::Name(name_of) = key.allowed {
            for name in name_of("").unwrap_err().known {
                let mut layers = Layers::new();
                layers.set(&format!("{}={name}", key.name)).unwrap();
                let settings = layers.over(&Settings::default()).unwrap();
                DataOptions::from_settings(&settings.data).unwrap_or_else(|e| panic!("{} = {name}: {e}", key.name));
            }
        }
    }
    let digits = DataOptions::from_settings(&presets::find("digits").unwrap().settings().data).unwrap();
    assert_eq!((digits.size.map(|size| size.width), digits.channels, digits.cache_bytes), (Some(28), Some(1), None));
}
