use super::*;

fn small() -> UNetConfig {
    UNetConfig {
        block_out_channels: vec![32, 64, 64],
        down_block_types: vec![DownBlock::Plain, DownBlock::Plain, DownBlock::Attention],
        up_block_types: vec![UpBlock::Attention, UpBlock::Plain, UpBlock::Plain],
        norm_num_groups: 8,
        attention_head_dim: None,
        ..UNetConfig::default()
    }
}

#[test]
fn json_round_trip() {
    let config = UNetConfig {
        sample_size: Some(SampleSize::new(24, 40)),
        class_embed_type: Some(ClassEmbedType::Timestep),
        norm_eps: 1e-6,
        ..small()
    };
    let text = config.to_json();
    assert!(text.contains("\"_class_name\": \"UNet2DModel\""), "{text}");
    assert!(text.contains("\"AttnUpBlock2D\""), "{text}");
    assert_eq!(UNetConfig::from_json(&text).unwrap(), config);
}

#[test]
fn missing_keys_are_diffusers_defaults_and_unknown_ones_are_ignored() {
    let config = UNetConfig::from_json(r#"{"attention_head_dim": null, "a_new_option": 7}"#).unwrap();
    assert_eq!(config, UNetConfig { attention_head_dim: None, ..UNetConfig::default() });
    assert_eq!((config.norm_eps, config.downsample_padding, config.freq_shift), (1e-5, 1, 0));
}

#[test]
fn unsupported_values_name_key_and_value() {
    let cases = [
        (r#"{"time_embedding_type": "learned"}"#, "time_embedding_type", "learned"),
        (r#"{"down_block_types": ["SkipDownBlock2D"]}"#, "down_block_types", "SkipDownBlock2D"),
        (r#"{"upsample_type": "resnet"}"#, "upsample_type", "resnet"),
        (r#"{"act_fn": "gelu"}"#, "act_fn", "gelu"),
        (r#"{"in_channels": -1}"#, "in_channels", "-1"),
        (r#"{"_class_name": "UNet2DConditionModel"}"#, "_class_name", "UNet2DConditionModel"),
    ];
    for (text, key, value) in cases {
        let message = UNetConfig::from_json(text).unwrap_err().to_string();
        assert!(message.contains(key) && message.contains(value), "{message}");
    }
    assert!(UNetConfig::from_json("[]").is_err());
    assert!(UNetConfig::from_json("{").is_err());
}

#[test]
fn sizes_that_do_not_fit_name_the_nearest() {
    small().validate(28, 28).unwrap();
    small().validate(28, 12).unwrap();
    let message = small().validate(30, 28).unwrap_err().to_string();
    assert!(message.contains("28x28 and 32x28"), "{message}");
    let message = small().validate(3, 3).unwrap_err().to_string();
    assert!(message.contains("nearest that fit are 4x4"), "{message}");
    assert!(small().validate(0, 0).is_err());
}

#[test]
fn numbers_that_contradict_each_other_are_named() {
    let cases = [
        (UNetConfig { norm_num_groups: 24, ..small() }, "norm_num_groups"),
        (UNetConfig { attention_head_dim: Some(7), ..small() }, "attention_head_dim"),
        (UNetConfig { up_block_types: vec![UpBlock::Plain], ..small() }, "up_block_types"),
        (UNetConfig { dropout: 1.0, ..small() }, "dropout"),
        (UNetConfig { dropout: f64::NAN, ..small() }, "dropout"),
        (UNetConfig { layers_per_block: 0, ..small() }, "layers_per_block"),
        (UNetConfig { block_out_channels: vec![], ..small() }, "block_out_channels"),
        (UNetConfig { freq_shift: 16, ..small() }, "freq_shift"),
        (UNetConfig { downsample_padding: 2, ..small() }, "downsample_padding"),
    ];
    for (config, key) in cases {
        let message = config.validate(28, 28).unwrap_err().to_string();
        assert!(message.contains(key), "{key}: {message}");
    }
    // Heads need not divide a level that does not attend.
    UNetConfig { attention_head_dim: Some(64), ..small() }.validate(28, 28).unwrap();
}

#[test]
fn heads_and_groups_follow_diffusers() {
    assert_eq!(small().heads(64), 1);
    assert_eq!(UNetConfig::default().heads(448), 56);
    assert_eq!(small().mid_attention_groups(), Some(8));
    let scale_shift = UNetConfig { resnet_time_scale_shift: TimeScaleShift::ScaleShift, ..small() };
    assert_eq!(scale_shift.mid_attention_groups(), None);
    assert_eq!(small().embedding_dim(), 128);
}
