//! Kills, full disks, truncations and flipped bits.

use super::*;
use std::fs;

const ENTRIES: [Entry<'static>; 2] =
    [Entry { name: "conv.weight", shape: &[3, 5], start: 0 }, Entry { name: "conv.bias", shape: &[3], start: 16 }];

fn numbers(step: u64, salt: f32) -> Vec<f32> {
    (0..19).map(|i| step as f32 + salt * i as f32).collect()
}

fn save_step(checkpoints: &Path, step: u64) -> Result<PathBuf, CheckpointError> {
    let state = State { step, images: 64 * step, ema_updates: step, isa: "portable".to_owned(), ..State::default() };
    let (weights, ema, m, v) = (numbers(step, 0.1), numbers(step, 0.2), numbers(step, 0.3), numbers(step, 0.4));
    let contents = Contents {
        state,
        config: "seed = 1\n",
        entries: &ENTRIES,
        weights: &weights,
        ema: &ema,
        m: &m,
        v: &v,
        more: &[],
    };
    save(checkpoints, contents)
}

/// Everything in it reads back as it was saved.
fn assert_holds(checkpoint: &Checkpoint, step: u64) {
    assert_eq!(checkpoint.state().step, step);
    let mut data = [vec![0.0; 19], vec![0.0; 19], vec![0.0; 19], vec![0.0; 19]];
    let [weights, ema, m, v] = &mut data;
    checkpoint.read_weights(Weights::Raw, &ENTRIES, weights).unwrap();
    checkpoint.read_weights(Weights::Ema, &ENTRIES, ema).unwrap();
    checkpoint.read_moments(&ENTRIES, m, v).unwrap();
    for (read, salt) in data.iter().zip([0.1, 0.2, 0.3, 0.4]) {
        let saved = numbers(step, salt);
        assert!(ENTRIES.iter().all(|entry| read[entry.range()] == saved[entry.range()]));
    }
}

fn bytes_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())).collect()
}

/// All cases under `DDPM_TORTURE=full`, every `stride`-th otherwise.
fn torture_stride(stride: usize) -> usize {
    if std::env::var("DDPM_TORTURE").is_ok_and(|value| value == "full") { 1 } else { stride }
}

#[test]
fn the_same_contents_give_the_same_bytes_anywhere() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = bytes_of(&save_step(one.path(), 3).unwrap());
    assert_eq!(first.len(), 5);
    assert_eq!(first, bytes_of(&save_step(&two.path().join("elsewhere"), 3).unwrap()));
}

#[test]
fn it_reads_back_and_knows_its_own_hash() {
    let folder = tempfile::tempdir().unwrap();
    let three = Checkpoint::open(&save_step(folder.path(), 3).unwrap()).unwrap();
    let four = Checkpoint::open(&save_step(folder.path(), 4).unwrap()).unwrap();
    assert_holds(&three, 3);
    assert_holds(&four, 4);
    assert_eq!(three.config(), "seed = 1\n");
    assert_ne!(three.hash(), four.hash());
    assert_eq!(three.state().config, blake3::hash(b"seed = 1\n").to_hex().as_str());
}

#[test]
fn another_network_is_a_mismatch_that_names_the_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&save_step(folder.path(), 3).unwrap()).unwrap();
    let mut data = vec![0.0; 64];
    let wider = [Entry { name: "conv.weight", shape: &[6, 5], start: 0 }, ENTRIES[1]];
    let error = checkpoint.read_weights(Weights::Raw, &wider, &mut data).unwrap_err();
    assert!(error.to_string().contains("`conv.weight` has shape [3, 5], the network's has [6, 5]"), "{error}");
    let error = checkpoint.read_weights(Weights::Raw, &ENTRIES[..1], &mut data).unwrap_err();
    assert!(error.to_string().contains("`conv.bias` is not one of"), "{error}");
    assert!(data.iter().all(|&x| x == 0.0), "nothing was read");
}

/// A kill before every single change of the disk, while saving step 3 over nothing, over 1 and 2, and over a damaged 3,
/// and while pruning: after each, the newest sound checkpoint is the one before or the new one, never less.
#[test]
fn a_kill_at_any_instant_loses_nothing() {
    for scenario in ["first", "later", "again"] {
        let mut killed_at = 0;
        loop {
            let folder = tempfile::tempdir().unwrap();
            let checkpoints = folder.path();
            fault::fail_at(None, false);
            if scenario != "first" {
                save_step(checkpoints, 1).unwrap();
                save_step(checkpoints, 2).unwrap();
            }
            if scenario == "again" {
                let damaged = save_step(checkpoints, 3).unwrap();
                fs::write(damaged.join(EMA), "half").unwrap();
            }

            fault::fail_at(Some(killed_at), true);
            let saved = save_step(checkpoints, 3).and_then(|_| prune(checkpoints, 3, 1, 0));
            let survived = saved.is_ok();
            fault::fail_at(None, false);

            let found = newest(checkpoints).unwrap();
            match &found.checkpoint {
                Some(checkpoint) if checkpoint.state().step == 3 => assert_holds(checkpoint, 3),
                Some(checkpoint) if scenario != "first" => assert_holds(checkpoint, 2),
                other => assert!(scenario == "first" && other.is_none() && !survived, "{scenario} at {killed_at}"),
            }
            remove_unfinished(checkpoints).unwrap();
            save_step(checkpoints, 3).unwrap();
            prune(checkpoints, 3, 1, 0).unwrap();
            let names: Vec<_> = fs::read_dir(checkpoints).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["step-000003"], "{scenario} at {killed_at}");
            if survived {
                break;
            }
            killed_at += 1;
        }
        assert!(killed_at >= 15, "{scenario}: {killed_at} points are fewer than the writes and syncs of five files");
    }
}

/// A disk that is full at any instant: an error that names the file, nothing half-made stays, the old ones are sound.
#[test]
fn a_full_disk_at_any_instant_is_an_error_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path();
    save_step(checkpoints, 1).unwrap();
    fault::fail_at(None, false);
    save_step(checkpoints, 2).unwrap();
    let points = fault::passed();
    fs::remove_dir_all(checkpoints.join(step_name(2))).unwrap();
    for at in 0..points {
        fault::fail_at(Some(at), false);
        let error = save_step(checkpoints, 2).unwrap_err();
        fault::fail_at(None, false);
        assert!(error.to_string().contains("step-000002"), "{error}");
        let found = newest(checkpoints).unwrap();
        assert!(found.passed_over.is_empty(), "at {at}: {:?}", found.report());
        let unfinished = fs::read_dir(checkpoints).unwrap().any(|entry| {
            let name = entry.unwrap().file_name();
            name.to_string_lossy().ends_with(".partial")
        });
        assert!(!unfinished, "at {at}");
        drop(fs::remove_dir_all(checkpoints.join(step_name(2))));
    }
}

#[test]
fn a_damaged_newest_falls_back_and_is_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    for step in 1..=3 {
        save_step(folder.path(), step).unwrap();
    }
    fs::remove_file(folder.path().join("step-000003").join(MOMENTS)).unwrap();
    let mut bytes = fs::read(folder.path().join("step-000002").join(WEIGHTS)).unwrap();
    *bytes.last_mut().unwrap() ^= 4;
    fs::write(folder.path().join("step-000002").join(WEIGHTS), bytes).unwrap();
    let found = newest(folder.path()).unwrap();
    let report = found.report().unwrap();
    assert!(report.contains("step 3") && report.contains("missing") && report.contains("of step 1"), "{report}");
    assert_holds(&found.checkpoint.unwrap(), 1);
    for (step, _) in &found.passed_over {
        put_aside(folder.path(), *step).unwrap();
    }
    let found = newest(folder.path()).unwrap();
    assert!(found.report().is_none() && found.checkpoint.unwrap().state().step == 1);
    assert!(folder.path().join("damaged-step-000003").join(EMA).exists());
}

#[test]
fn truncations_of_any_file_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = save_step(folder.path(), 3).unwrap();
    let files = bytes_of(&checkpoint);
    let total: usize = files.values().map(Vec::len).sum();
    let step = (total / 200).max(1) * torture_stride(10);
    let mut tried = 0;
    for (name, whole) in &files {
        for length in (0..whole.len()).step_by(step) {
            fs::write(checkpoint.join(name), &whole[..length]).unwrap();
            assert!(newest(folder.path()).unwrap().checkpoint.is_none(), "{name} cut to {length} bytes");
            tried += 1;
        }
        fs::write(checkpoint.join(name), whole).unwrap();
    }
    assert!(tried * torture_stride(10) >= 200, "{tried}");
    assert!(newest(folder.path()).unwrap().checkpoint.is_some());
}

#[test]
fn flipped_bits_of_any_file_are_detected() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = save_step(folder.path(), 3).unwrap();
    let files = bytes_of(&checkpoint);
    let bits: usize = files.values().map(|bytes| 8 * bytes.len()).sum();
    let stride = torture_stride(10);
    let chosen: Vec<usize> = (0..2000).step_by(stride).map(|i| i * bits / 2000 + i % 8).collect();
    let (mut first, mut tried) = (0, 0);
    for (name, whole) in &files {
        let here = first..first + 8 * whole.len();
        for &bit in chosen.iter().filter(|bit| here.contains(bit)) {
            let mut flipped = whole.clone();
            flipped[(bit - first) / 8] ^= 1 << ((bit - first) % 8);
            fs::write(checkpoint.join(name), flipped).unwrap();
            assert!(newest(folder.path()).unwrap().checkpoint.is_none(), "bit {} of {name}", bit - first);
            tried += 1;
        }
        fs::write(checkpoint.join(name), whole).unwrap();
        first = here.end;
    }
    assert_eq!(tried, chosen.len());
    assert!(newest(folder.path()).unwrap().checkpoint.is_some());
}
