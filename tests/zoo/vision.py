"""Vision, audio and detection families of transformers, tiny and with random weights. Part of the zoo.

Comes in: what registers a net and what builds a transformers model. Goes out: nothing; the nets stand in the zoo. One line a family where
possible: model class, configuration class, sizes, and what each input looks like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Draw = Callable[[int], dict[str, Tensor]]


def images(size: int = 16, name: str = "pixel_values", channels: int = 3) -> Draw:
    return lambda batch: {name: torch.randn(batch, channels, size, size)}


def audio(length: int) -> Draw:
    return lambda batch: {"input_values": torch.randn(batch, length)}


def text_and_images(size: int = 16) -> Draw:
    return lambda batch: {"input_ids": torch.randint(1, 40, (batch, 5)), "pixel_values": torch.randn(batch, 3, size, size)}


_VIT = {"image_size": 16, "patch_size": 8, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
_TEXT = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4,
         "max_position_embeddings": 8, "bos_token_id": 0, "eos_token_id": 39, "pad_token_id": 1}  # fmt: skip
_SWIN = {"image_size": 16, "patch_size": 2, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4, "mlp_ratio": 1.5}
_SPEECH = {"vocab_size": 12, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4,
           "conv_dim": [16, 16], "conv_kernel": [5, 3], "conv_stride": [3, 2], "num_conv_pos_embeddings": 4,
           "num_conv_pos_embedding_groups": 4}  # fmt: skip
_DETR = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_queries": 4, "use_timm_backbone": False,
         "use_pretrained_backbone": False, "backbone": None, "backbone_config": {"model_type": "resnet", "embedding_size": 8,
         "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic", "out_features": ["stage2"]}}  # fmt: skip

NETS: dict[str, tuple[str, str, dict[str, Any], Draw]] = {
    # transformers on patches
    "deit": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", _VIT, images()),
    "beit": ("BeitForImageClassification", "BeitConfig", _VIT | {"use_relative_position_bias": True,
             "layer_scale_init_value": 0.5}, images()),
    "beit_shared_bias": ("BeitForImageClassification", "BeitConfig", _VIT | {"use_shared_relative_position_bias": True}, images()),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", _VIT, images()),
    "dinov2_swiglu": ("Dinov2ForImageClassification", "Dinov2Config", _VIT | {"use_swiglu_ffn": True}, images()),
    # windows, spatial reduction
    "swin": ("SwinForImageClassification", "SwinConfig", _SWIN, images()),
    "swinv2": ("Swinv2ForImageClassification", "Swinv2Config", _SWIN, images()),
    "pvt": ("PvtForImageClassification", "PvtConfig", {"image_size": 32, "num_encoder_blocks": 2, "depths": [1, 1],
            "hidden_sizes": [16, 32], "sequence_reduction_ratios": [2, 1], "patch_sizes": [4, 2], "strides": [4, 2],
            "num_attention_heads": [2, 4],
            "mlp_ratios": [2, 2]}, images(32)),
    "pvt_v2": ("PvtV2ForImageClassification", "PvtV2Config", {"image_size": 32, "num_encoder_blocks": 2, "depths": [1, 1],
               "hidden_sizes": [16, 32], "sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4],
               "mlp_ratios": [2, 2]}, images(32)),
    "segformer": ("SegformerForSemanticSegmentation", "SegformerConfig", {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1],
                  "hidden_sizes": [16, 32], "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [2, 4], "mlp_ratios": [2, 2],
                  "decoder_hidden_size": 16, "num_labels": 3}, images(32)),
    # convolutions
    "convnext": ("ConvNextForImageClassification", "ConvNextConfig", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2,
                 "patch_size": 2}, images()),
    "convnext_v2": ("ConvNextV2ForImageClassification", "ConvNextV2Config", {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2,
                    "patch_size": 2}, images()),
    "hf_resnet": ("ResNetForImageClassification", "ResNetConfig", {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1],
                  "layer_type": "bottleneck"}, images(32)),
    "hf_regnet": ("RegNetForImageClassification", "RegNetConfig", {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1],
                  "groups_width": 4}, images(32)),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", "MobileNetV1Config", {"depth_multiplier": 0.125, "image_size": 32}, images(32)),
    "hf_mobilenet_v2": ("MobileNetV2ForImageClassification", "MobileNetV2Config", {"depth_multiplier": 0.25, "image_size": 32}, images(32)),
    "efficientnet": ("EfficientNetForImageClassification", "EfficientNetConfig", {"image_size": 32, "width_coefficient": 0.05,
                     "in_channels": [160, 160, 320], "out_channels": [160, 320, 320], "kernel_sizes": [3, 3, 5], "strides": [1, 2, 2],
                     "num_block_repeats": [1, 2, 1], "expand_ratios": [1, 4, 4], "depthwise_padding": [], "hidden_dim": 64,
                     "depth_coefficient": 1.0}, images(32)),
    "levit": ("LevitForImageClassification", "LevitConfig", {"image_size": 64, "hidden_sizes": [16, 32, 48],
              "num_attention_heads": [2, 2, 3],
              "depths": [1, 1, 1], "key_dim": [4, 4, 4], "mlp_ratio": [2, 2, 2], "attention_ratio": [2, 2, 2],
              "down_ops": [["Subsample", 4, 4, 4, 2, 2], ["Subsample", 4, 8, 4, 2, 2]]}, images(64)),
    "cvt": ("CvtForImageClassification", "CvtConfig", {"patch_sizes": [3, 3], "patch_stride": [2, 2], "patch_padding": [1, 1],
            "embed_dim": [16, 32], "num_heads": [2, 4], "depth": [1, 2], "mlp_ratio": [2.0, 2.0], "qkv_bias": [True, True],
            "cls_token": [False, True], "attention_drop_rate": [0.0, 0.0], "drop_rate": [0.0, 0.0], "drop_path_rate": [0.0, 0.0],
            "qkv_projection_method": ["dw_bn", "dw_bn"], "kernel_qkv": [3, 3], "padding_kv": [1, 1], "stride_kv": [2, 2], "num_stages": 2,
            "padding_q": [1, 1], "stride_q": [1, 1]}, images()),
    "poolformer": ("PoolFormerForImageClassification", "PoolFormerConfig", {"hidden_sizes": [16, 32], "depths": [1, 1],
                   "num_encoder_blocks": 2, "patch_sizes": [7, 3], "strides": [4, 2], "padding": [2, 1], "mlp_ratio": 2.0}, images(32)),
    # two towers
    "clip": ("CLIPModel", "CLIPConfig", {"text_config": _TEXT | {"projection_dim": 24}, "vision_config": _VIT | {"projection_dim": 24},
             "projection_dim": 24}, text_and_images()),
    "siglip": ("SiglipModel", "SiglipConfig", {"text_config": _TEXT, "vision_config": _VIT}, text_and_images()),
    # audio
    "wav2vec2": ("Wav2Vec2ForCTC", "Wav2Vec2Config", _SPEECH | {"feat_extract_norm": "group"}, audio(80)),
    "hubert": ("HubertForCTC", "HubertConfig", _SPEECH | {"feat_extract_norm": "layer", "conv_bias": True,
               "do_stable_layer_norm": True}, audio(80)),
    "audio_spectrogram": ("ASTForAudioClassification", "ASTConfig", _VIT | {"max_length": 24, "num_mel_bins": 16, "frequency_stride": 8,
                          "time_stride": 8}, lambda batch: {"input_values": torch.randn(batch, 24, 16)}),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", {"vocab_size": 40, "num_mel_bins": 8, "encoder_layers": 1,
                "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 40,
                "decoder_ffn_dim": 40, "d_model": 32, "max_source_positions": 12, "max_target_positions": 8, "use_cache": False,
                "pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2},
                lambda batch: {"input_features": torch.randn(batch, 8, 24), "decoder_input_ids": torch.randint(1, 40, (batch, 4))}),
    # detection
    "yolos": ("YolosForObjectDetection", "YolosConfig", _VIT | {"image_size": [16, 16], "num_detection_tokens": 4,
              "use_mid_position_embeddings": False}, images()),
    "detr": ("DetrForObjectDetection", "DetrConfig", _DETR, images(32)),
    "conditional_detr": ("ConditionalDetrForObjectDetection", "ConditionalDetrConfig", _DETR, images(32)),
    "rt_detr": ("RTDetrForObjectDetection", "RTDetrConfig", {"backbone_config": {"model_type": "rt_detr_resnet", "embedding_size": 8,
                "hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic", "out_features": ["stage3", "stage4"]},
                "encoder_hidden_dim": 16, "encoder_in_channels": [16, 16], "feat_strides": [16, 32], "encoder_layers": 1,
                "encoder_ffn_dim": 24, "encoder_attention_heads": 2, "encode_proj_layers": [1], "d_model": 16, "num_queries": 4,
                "decoder_in_channels": [16, 16], "decoder_ffn_dim": 24, "num_feature_levels": 2, "decoder_n_points": 2,
                "decoder_layers": 1, "decoder_attention_heads": 2, "num_denoising": 0, "anchor_image_size": [32, 32],
                "hidden_expansion": 0.5, "use_pretrained_backbone": False}, images(32)),
    "owl_vit": ("OwlViTForObjectDetection", "OwlViTConfig", {"text_config": _TEXT, "vision_config": _VIT, "projection_dim": 32},
                text_and_images()),
    # segmentation, depth
    "dpt": ("DPTForSemanticSegmentation", "DPTConfig", _VIT | {"num_hidden_layers": 2, "backbone_out_indices": [0, 1],
            "neck_hidden_sizes": [8, 12], "fusion_hidden_size": 8, "reassemble_factors": [2, 1], "is_hybrid": False,
            "readout_type": "project", "image_size": 32}, images(32)),
    "upernet": ("UperNetForSemanticSegmentation", "UperNetConfig", {"backbone_config": {"model_type": "convnext", "num_stages": 2,
                "hidden_sizes": [8, 16], "depths": [1, 1], "out_features": ["stage1", "stage2"]}, "hidden_size": 8, "pool_scales": [1, 2],
                "use_auxiliary_head": False}, images(32)),
    "vit_mae": ("ViTMAEForPreTraining", "ViTMAEConfig", _VIT | {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1,
                "decoder_num_attention_heads": 2, "decoder_intermediate_size": 24},
                lambda batch: {"pixel_values": torch.randn(batch, 3, 16, 16), "noise": torch.rand(batch, 4)}),
    "swin2sr": ("Swin2SRForImageSuperResolution", "Swin2SRConfig", {"image_size": 16, "embed_dim": 16, "depths": [1], "num_heads": [2],
                "window_size": 4, "mlp_ratio": 1.5, "upscale": 2, "upsampler": "pixelshuffle"}, images()),
    "mobilevit_v2": ("MobileViTV2ForImageClassification", "MobileViTV2Config", {"image_size": 64, "width_multiplier": 0.125,
                     "base_attn_unit_dims": [64, 64, 64], "n_attn_blocks": [1, 1, 1], "expand_ratio": 1.0}, images(64)),
    "focalnet": ("FocalNetForImageClassification", "FocalNetConfig", {"image_size": 16, "patch_size": 4, "embed_dim": 8,
                 "hidden_sizes": [8, 16], "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3], "mlp_ratio": 2.0}, images()),
    "hiera": ("HieraForImageClassification", "HieraConfig", {"image_size": [16, 16], "patch_size": [3, 3], "patch_stride": [2, 2],
              "patch_padding": [1, 1], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "mlp_ratio": 2.0,
              "query_stride": [2, 2], "masked_unit_size": [4, 4], "masked_unit_attention": [True, False], "num_query_pool": 1},
              images()),
    "swiftformer": ("SwiftFormerForImageClassification", "SwiftFormerConfig", {"image_size": 32, "depths": [1, 1], "embed_dims": [8, 16],
                    "mlp_ratio": 2, "downsamples": [True, True], "down_patch_size": 3}, images(32)),
    "videomae": ("VideoMAEForVideoClassification", "VideoMAEConfig", _VIT | {"num_frames": 4, "tubelet_size": 2},
                 lambda batch: {"pixel_values": torch.randn(batch, 4, 3, 16, 16)}),
    # more audio
    "sew": ("SEWForCTC", "SEWConfig", _SPEECH | {"squeeze_factor": 2}, audio(80)),
    "wavlm": ("WavLMForCTC", "WavLMConfig", _SPEECH | {"num_buckets": 8, "max_bucket_distance": 8}, audio(80)),
    "conformer": ("Wav2Vec2ConformerForCTC", "Wav2Vec2ConformerConfig", _SPEECH | {"position_embeddings_type": "relative",
                  "conv_depthwise_kernel_size": 3}, audio(80)),
}  # fmt: skip


def register(add: Callable[..., None], hugging_face: Callable[..., Any]) -> None:
    """Put every net into the zoo."""
    for name, (model, config, options, draw) in NETS.items():
        add(name, lambda m=model, c=config, o=options: hugging_face(m, c, **o), kwargs=draw)
