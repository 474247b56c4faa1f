use proptest::prelude::*;

use super::*;
use crate::NnError;
use crate::layout::Init;

fn layout() -> Layout {
    let mut layout = Layout::default();
    layout.at("conv").add("weight", [3, 3, 2, 5], Role::ConvWeight, Init::PAPER);
    let mut at = layout.at("mid_block.attentions.0");
    at.at("to_q").add("weight", [4, 4], Role::DenseWeight, Init::PAPER);
    at.at("to_out.0").add("bias", [4], Role::Bias, Init::PAPER);
    layout
}

/// Distinct numbers, zero in the gaps.
fn flat(layout: &Layout) -> Vec<f32> {
    let mut flat = vec![0.0; layout.len()];
    for p in layout.parameters() {
        flat[p.range.clone()].iter_mut().enumerate().for_each(|(i, v)| *v = (p.range.start + i) as f32 + 0.5);
    }
    flat
}

fn file(tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
    let views = tensors.iter().map(|(n, d, s, b)| (*n, TensorView::new(*d, s.clone(), b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

fn error(layout: &Layout, weights: &[u8]) -> DiffusersError {
    match read(layout, weights) {
        Err(NnError::Diffusers(error)) => error,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read_back() {
    let layout = layout();
    let flat = flat(&layout);
    assert_eq!(read(&layout, &write(&layout, &flat).unwrap()).unwrap(), flat);
}

#[test]
fn layouts_are_diffusers() {
    let layout = layout();
    let flat = flat(&layout);
    let named = named(&layout, &flat).unwrap();
    assert_eq!(named[0].shape, [5, 2, 3, 3]);
    // w[o, i, h, w] there is w[h, w, i, o] here
    let (o, i, h, w) = (4, 1, 2, 0);
    assert_eq!(named[0].values[((o * 2 + i) * 3 + h) * 3 + w], flat[((h * 3 + w) * 2 + i) * 5 + o]);
    assert_eq!(named[1].values[3 * 4 + 1], flat[96 + 4 + 3]);
    assert_eq!(
        (named[2].name.as_str(), &named[2].values[..]),
        ("mid_block.attentions.0.to_out.0.bias", &flat[112..116])
    );
}

#[test]
fn old_attention_names_and_convolutions_are_read() {
    let layout = layout();
    let old = file(&[
        ("conv.weight", Dtype::F32, vec![5, 2, 3, 3], bytes(90)),
        ("mid_block.attentions.0.query.weight", Dtype::F32, vec![4, 4, 1, 1], bytes(16)),
        ("mid_block.attentions.0.proj_attn.bias", Dtype::F32, vec![4], bytes(4)),
    ]);
    let flat = read(&layout, &old).unwrap();
    assert_eq!(flat[96..100], [0.0, 4.0, 8.0, 12.0]);
    assert_eq!(flat[112..116], [0.0, 1.0, 2.0, 3.0]);
}

#[test]
fn errors_name_the_tensor() {
    let layout = layout();
    let conv = ("conv.weight", Dtype::F32, vec![5, 2, 3, 3], bytes(90));
    let q = ("mid_block.attentions.0.to_q.weight", Dtype::F32, vec![4, 4], bytes(16));
    let bias = ("mid_block.attentions.0.to_out.0.bias", Dtype::F32, vec![4], bytes(4));
    let all = [conv.clone(), q.clone(), bias.clone()];
    assert!(read(&layout, &file(&all)).is_ok());

    let e = error(&layout, &file(&[q.clone(), bias.clone()]));
    assert_eq!(e, DiffusersError::Missing { missing: 1, expected: 3, first: "conv.weight".into() });
    let mut more = all.to_vec();
    more.push(("conv.gain", Dtype::F32, vec![1], bytes(1)));
    let e = error(&layout, &file(&more));
    assert_eq!(e, DiffusersError::Unexpected { unexpected: 1, first: "conv.gain".into() });
    let mut twice = all.to_vec();
    twice.push(("mid_block.attentions.0.query.weight", Dtype::F32, vec![4, 4], bytes(16)));
    assert!(matches!(error(&layout, &file(&twice)), DiffusersError::Unexpected { .. }));
    let e = error(&layout, &file(&[(conv.0, conv.1, vec![5, 2, 9], conv.3.clone()), q.clone(), bias.clone()]));
    assert!(e.to_string().contains("`conv.weight` should be [5, 2, 3, 3], but is [5, 2, 9]"), "{e}");
    let e = error(&layout, &file(&[(conv.0, Dtype::I32, conv.2, conv.3), q, bias]));
    assert!(e.to_string().contains("conv.weight") && e.to_string().contains("I32"), "{e}");
    for junk in [&b""[..], b"junk", &[0xff; 64], &write(&layout, &flat(&layout)).unwrap()[..100]] {
        assert!(matches!(error(&layout, junk), DiffusersError::Unreadable(_)));
    }
    assert!(write(&layout, &[0.0]).is_err());
}

#[test]
fn half_precision_is_read() {
    for (bits, value) in
        [(0x3c00, 1.0), (0xc248, -3.140625), (0x0001, 2.0f32.powi(-24)), (0x7bff, 65504.0), (0xfc00, f32::NEG_INFINITY)]
    {
        assert_eq!(from_f16(bits), value);
    }
    assert!(from_f16(0x7e00).is_nan());
    let mut layout = Layout::default();
    layout.at("b").add("bias", [1], Role::Bias, Init::PAPER);
    for (dtype, bytes) in [
        (Dtype::F16, 0xc248u16.to_le_bytes().to_vec()),
        (Dtype::BF16, 0xc049u16.to_le_bytes().to_vec()),
        (Dtype::F64, (-3.140625f64).to_le_bytes().to_vec()),
    ] {
        let flat = read(&layout, &file(&[("b.bias", dtype, vec![1], bytes)])).unwrap();
        assert_eq!(flat[0], -3.140625);
    }
}

proptest! {
    /// Whatever happens to a file, it is read or refused; what is read has the layout's length.
    #[test]
    fn damaged_files_are_read_or_refused(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let layout = layout();
        let mut weights = write(&layout, &flat(&layout)).unwrap();
        // Half of the flips hit the header, where they mean something.
        for (i, (at, byte)) in flips.iter().enumerate() {
            let range = if i % 2 == 0 { weights.len() } else { weights.len().min(300) };
            weights[at.index(range)] ^= byte;
        }
        if cut {
            weights.truncate(end.index(weights.len()));
        }
        if let Ok(flat) = read(&layout, &weights) {
            prop_assert_eq!(flat.len(), layout.len());
            prop_assert!(!cut);
        }
    }
}
