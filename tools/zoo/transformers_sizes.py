"""Sizes and inputs of transformers models that no general rule can tell."""

from typing import Any

_RESNET = {
    "model_type": "resnet",
    "embedding_size": 16,
    "hidden_sizes": [16, 32, 48, 64],
    "depths": [1, 1, 2, 1],
    "out_features": ["stage4"],
}
_RESNET_THREE = _RESNET | {"out_features": ["stage2", "stage3", "stage4"]}
_SERIES = {
    "prediction_length": 8,
    "context_length": 16,
    "lags_sequence": [1, 2, 3],
    "num_time_features": 2,
}
_HEADS_16 = {"num_heads": 8, "head_dim": 16}
_EFFICIENT = {
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "width_coefficient": 0.5,
    "depth_coefficient": 0.5,
    "hidden_dim": 640,
    "image_size": 64,
}
_ACOUSTIC = {"num_filters": 4, "downsampling_ratios": [2, 4, 5], "depths": [1, 1, 1, 2]}
_SAM2_SIZES = [[16, 16], [8, 8], [4, 4]]

# By the name of a configuration class: values of its attributes. None stands for the value the
# class derives itself.
CONFIGS: dict[str, dict[str, Any]] = {
    "AlignConfig": {"projection_dim": 160},
    "AlignVisionConfig": _EFFICIENT,
    "AutoformerConfig": _SERIES | {"moving_average": 5},
    "BltConfig": {"encoder_hash_byte_group_vocab": 200},
    "ChameleonVQVAEConfig": {"base_channels": 32, "channel_multiplier": [1, 2]},
    "ChameleonConfig": {"vocabulary_map": {"<image>": 90}},
    "CohereCompassTextConfig": {
        "rope_parameters": {
            "full_attention": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [3, 3, 2],
            }
        }
    },
    "ConditionalDetrConfig": {"backbone_config": _RESNET},
    "ConvNextConfig": {"hidden_sizes": [16, 32, 48, 64]},
    "ConvNextV2Config": {"hidden_sizes": [16, 32, 48, 64]},
    "CvtConfig": {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
    "DabDetrConfig": {"backbone_config": _RESNET},
    "DacConfig": {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "hidden_size": 128},
    "DbrxAttentionConfig": {"rope_theta": 10000.0, "clip_qkv": 8.0},
    "DeformableDetrConfig": {"backbone_config": _RESNET_THREE},
    "DetrConfig": {"backbone_config": _RESNET},
    "DepthProConfig": {"patch_size": 64, "intermediate_hook_ids": [1, 0]},
    "DiffusionGemmaTextConfig": {
        "global_head_dim": 16,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    },
    "DoryConfig": {
        "num_hidden_layers": 4,
        "n_input_layers": 1,
        "n_recurrent_layers": 2,
        "n_output_layers": 1,
        "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
    },
    "Dots1Config": {"n_routed_experts": 4, "n_shared_experts": 1},
    "Dots3NoteAudioConfig": {"adapter_input_size": 64},
    "Dots3NoteTextConfig": {
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 16,
        "swa_kv_lora_rank": 16,
        "swa_head_dim": 16,
        "swa_qk_nope_head_dim": 8,
        "swa_v_head_dim": 16,
        "head_dim": 16,
        "rope_parameters": None,
    },
    "EfficientNetConfig": _EFFICIENT,
    "Emu3Config": {"vocabulary_map": {"<image>": 90}},
    "EmbeddingGemma2TextConfig": {"global_head_dim": 16},
    "EsmConfig": {"pad_token_id": 1, "mask_token_id": 2},
    "FocalNetConfig": {"embed_dim": 16, "hidden_sizes": [16, 32, 64, 128]},
    "FunAsrNanoAdaptorConfig": {"intermediate_size": 16},
    "GPTNeoConfig": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "Gemma4AudioConfig": {"subsampling_conv_channels": [128, 16]},
    "Gemma4TextConfig": {"global_head_dim": 16},
    "Gemma4UnifiedTextConfig": {"global_head_dim": 16},
    "GraniteSpeech5EncoderConfig": {"context_size": 16},
    "InformerConfig": _SERIES,
    "JambaConfig": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "JanusVQVAEConfig": {"base_channels": 32, "channel_multiplier": [1, 2]},
    "LayoutLMv3Config": {"coordinate_size": 12, "shape_size": 8},
    "Lfm2MoeConfig": {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"]},
    "LiltConfig": {"hidden_size": 48},
    "Llama4VisionConfig": {"intermediate_size": 256},
    "Mamba2Config": _HEADS_16,
    "MistralLarge4TextConfig": {"kv_source_layers": None},
    "MoonshineStreamingConfig": {"num_key_value_heads": 4},
    "Molmo2AdapterConfig": {"vision_feature_layer": [-1]},
    "Nemotron3_5TranscribeWordTimestampConfig": {"blank_token_id": 95},
    "NeuCodecConfig": {"encoder_hidden_size": 8, "quantization_dim": 128},
    "PPLCNetV4Config": {"stem_channels": [3, 48, 96]},
    "PaddleOCRTextConfig": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 3, 3],
        }
    },
    "Qwen4ExpTextConfig": {
        "indexer_n_heads": 4,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 8,
        "indexer_compress_ratio": 2,
    },
    "ReformerConfig": {"axial_pos_embds_dim": [32, 32], "axial_pos_shape": [8, 8]},
    "Sam2HieraDetConfig": {
        "image_size": [64, 64],
        "window_positional_embedding_background_size": [4, 4],
        "blocks_per_stage": [1, 2, 1, 1],
        "embed_dim_per_stage": [16, 32, 48, 64],
        "num_attention_heads_per_stage": [1, 2, 2, 4],
        "hidden_size": 16,
        "num_attention_heads": 1,
        "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [2],
    },
    "Sam2VisionConfig": {
        "backbone_channel_list": [64, 48, 32, 16],
        "backbone_feature_sizes": _SAM2_SIZES,
    },
    "Sam3VisionConfig": {"backbone_feature_sizes": _SAM2_SIZES},
    "Sapiens2Config": {"num_key_value_heads": 4},
    "SegGptConfig": {
        "merge_index": 0,
        "image_size": [128, 64],
        "pretrain_image_size": 64,
        "num_hidden_layers": 2,
        "intermediate_hidden_state_indices": [0, 1],
    },
    "Step3p7TextConfig": {"sliding_window": 64},
    "SuperPointConfig": {"keypoint_decoder_dim": 65},
    "SwinConfig": {"window_size": 2},
    "DonutSwinConfig": {"window_size": 2},
    "T5Gemma2TextConfig": {"dropout_rate": 0.0},
    "TableTransformerConfig": {"backbone_config": _RESNET},
    "TimeSeriesTransformerConfig": _SERIES,
    "TvpConfig": {"max_img_size": 64, "num_frames": 2, "visual_prompt_size": 8},
    "VibeVoiceAcousticTokenizerConfig": _ACOUSTIC,
    "VibeVoiceAcousticTokenizerDecoderConfig": _ACOUSTIC,
    "VibeVoiceAcousticTokenizerEncoderConfig": _ACOUSTIC,
    "VitsConfig": {"noise_scale": 0.0, "noise_scale_duration": 0.0},
    "Xcodec2Config": {"encoder_hidden_size": 8, "quantization_dim": 128},
    "XcodecConfig": {"codebook_dim": 192},
    "XmodConfig": {"default_language": "en_XX"},
    "ZambaConfig": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
    },
}

# By the name of a model class: the name of its configuration class, where it does not tell.
CONFIG_CLASSES: dict[str, str] = {"T5Gemma2Encoder": "T5Gemma2EncoderConfig"}

# By the name of a model class: attributes set on the finished configuration.
OPTIONS: dict[str, dict[str, Any]] = {
    "T5GemmaEncoderModel": {"is_encoder_decoder": False},
}

_PAIR = {"pixel_values": ("randn", (1, 2, 3, 64, 64))}
_LAGGED = {
    "past_values": ("randn", (1, 19)),
    "past_time_features": ("randn", (1, 19, 2)),
    "past_observed_mask": ("floats", (1, 19)),
    "future_values": ("randn", (1, 8)),
    "future_time_features": ("randn", (1, 8, 2)),
}

# By the name of a model class: all its inputs, each described by how to fill it and its shape.
INPUTS: dict[str, dict[str, Any]] = {
    "AudioFlamingo3Encoder": {
        "input_features": ("randn", (1, 128, 128)),
        "input_features_mask": ("ones", (1, 128)),
    },
    "AutoformerModel": _LAGGED,
    "Blip2QFormerModel": {
        "query_embeds": ("randn", (1, 8, 64)),
        "encoder_hidden_states": ("randn", (1, 10, 64)),
    },
    "ClapModel": {
        "input_ids": ("tokens", (1, 10)),
        "input_features": ("randn", (1, 1, 32, 64)),
    },
    "DecisionTransformerModel": {
        "states": ("randn", (1, 6, 16)),
        "actions": ("randn", (1, 6, 4)),
        "rewards": ("randn", (1, 6, 1)),
        "returns_to_go": ("randn", (1, 6, 1)),
        "timesteps": ("values", [[0, 1, 2, 3, 4, 5]]),
        "attention_mask": ("ones", (1, 6)),
    },
    "DepthProModel": {"pixel_values": ("randn", (1, 3, 256, 256))},
    "DiaModel": {
        "input_ids": ("tokens", (1, 10)),
        "decoder_input_ids": ("tokens", (1, 8, 9)),
    },
    "EfficientLoFTRModel": _PAIR,
    "FunAsrNanoEncoder": {
        "input_features": ("randn", (1, 32, 560)),
        "input_features_mask": ("ones", (1, 32)),
    },
    "Gemma3nAudioEncoder": {
        "audio_mel": ("randn", (1, 32, 128)),
        "audio_mel_mask": ("false", (1, 32)),
    },
    "Gemma4AudioModel": {"input_features": ("randn", (1, 32, 128))},
    "Gemma4VisionModel": {
        "pixel_values": ("randn", (1, 16, 768)),
        "pixel_position_ids": ("values", [[[i % 4, i // 4] for i in range(16)]]),
    },
    "GraniteSpeech5Encoder": {"input_features": ("randn", (1, 32, 320))},
    "GraniteSpeech5ForCTC": {"input_features": ("randn", (1, 32, 320))},
    "IdeficsModel": {
        "input_ids": ("tokens", (1, 10)),
        "pixel_values": ("randn", (1, 1, 3, 64, 64)),
        "image_attention_mask": ("ones", (1, 10, 1)),
    },
    "InformerModel": _LAGGED,
    "Kimi_K25VisionModel": {
        "pixel_values": ("randn", (16, 3, 14, 14)),
        "grid_thw": ("values", [[1, 4, 4]]),
    },
    "LightGlueForKeypointMatching": _PAIR,
    "LxmertModel": {
        "input_ids": ("tokens", (1, 10)),
        "visual_feats": ("randn", (1, 6, 64)),
        "visual_pos": ("rand", (1, 6, 4)),
    },
    "MllamaVisionModel": {
        "pixel_values": ("randn", (1, 1, 4, 3, 64, 64)),
        "aspect_ratio_ids": ("ones", (1, 1)),
        "aspect_ratio_mask": ("ones", (1, 1, 4)),
    },
    "MuseSparkAudioModel": {"input_values": ("randn", (1, 1920))},
    "MusicgenMelodyModel": {"input_ids": ("tokens", (4, 10))},
    "MusicgenModel": {"input_ids": ("tokens", (4, 10))},
    "OneFormerModel": {
        "pixel_values": ("randn", (1, 3, 64, 64)),
        "task_inputs": ("rand", (1, 64)),
    },
    "PPOCRV5MobileRecModel": {"pixel_values": ("randn", (1, 3, 96, 96))},
    "PatchTSTModel": {"past_values": ("randn", (1, 32, 1))},
    "PerceiverModel": {"inputs": ("randn", (1, 10, 64))},
    "Qwen3ASREncoder": {
        "input_features": ("randn", (1, 128, 100)),
        "input_features_mask": ("ones", (1, 100)),
    },
    "SegGptModel": {
        "pixel_values": ("randn", (1, 3, 64, 64)),
        "prompt_pixel_values": ("randn", (1, 3, 64, 64)),
        "prompt_masks": ("randn", (1, 3, 64, 64)),
    },
    "Siglip2Model": {
        "input_ids": ("tokens", (1, 10)),
        "pixel_values": ("randn", (1, 16, 768)),
        "pixel_attention_mask": ("ones", (1, 16)),
        "spatial_shapes": ("values", [[4, 4]]),
    },
    "SpeechT5Model": {
        "input_values": ("randn", (1, 10, 64)),
        "decoder_input_values": ("randn", (1, 8, 64)),
    },
    "TimeSeriesTransformerModel": _LAGGED,
    "TimesFmModel": {
        "past_values": ("randn", (1, 64)),
        "past_values_padding": ("ones", (1, 64)),
        "freq": ("zeros", (1, 1)),
    },
    "TvpModel": {
        "input_ids": ("tokens", (1, 10)),
        "pixel_values": ("randn", (1, 2, 3, 64, 64)),
        "attention_mask": ("ones", (1, 10)),
    },
    "VibeVoiceAcousticTokenizerDecoderModel": {"hidden_states": ("randn", (1, 64, 10))},
    "VibeVoiceAcousticTokenizerEncoderModel": {"hidden_states": ("randn", (1, 1, 1600))},
    "VibeVoiceAcousticTokenizerModel": {"input_values": ("randn", (1, 1, 1600))},
    "ViTMAEModel": {
        "pixel_values": ("randn", (1, 3, 64, 64)),
        "noise": ("rand", (1, 16)),
    },
    "XcodecModel": {"input_values": ("randn", (1, 1, 2000))},
}

# Classes whose forward method needs an object that is no tensor, with what it needs.
NO_TENSOR_INPUTS: dict[str, str] = {
    "BarkModel": "it has no forward method",
    "EdgeTamVideoModel": "needs an inference session",
    "GlmImageVQVAE": "it has no forward method",
    "Sam2VideoModel": "needs an inference session",
    "Sam3TrackerVideoModel": "needs an inference session",
    "Sam3VideoModel": "needs an inference session",
}
