"""The attention backbones of keras-hub, built small: what limelight captures, says and replaces in each.

    KERAS_BACKEND=torch PYTHONPATH=tests python -m inspection.backbones

prints the rows of the second table in docs/capture.md; without KERAS_BACKEND, those of the three backends together, each with the
largest error. With `--json` it prints all that was measured.
"""

import itertools
import json
import os
import subprocess
import sys
import warnings

import numpy as np

B, T, S, VOCABULARY = 2, 5, 7, 30
_random = np.random.default_rng(7)
IDS = _random.integers(1, VOCABULARY, size=(B, S)).astype("int32")
PADDING = np.array([[1] * S, [1] * 4 + [0] * (S - 4)], "int32")
TEXT = {"token_ids": IDS, "padding_mask": PADDING}
SEGMENTED = {**TEXT, "segment_ids": IDS * 0}
PAIR = {
    "encoder_token_ids": IDS,
    "encoder_padding_mask": PADDING,
    "decoder_token_ids": IDS[:, :T],
    "decoder_padding_mask": PADDING[:, :T],
}
# The columns of the small models.
WORDS = {"vocabulary_size": VOCABULARY, "num_layers": 2}
HEADS = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16}
LENGTH = {"max_sequence_length": 12}
GROUPS = {"num_query_heads": 4, "num_key_value_heads": 2, "hidden_dim": 16, "intermediate_dim": 16}
EXPERTS = {"num_experts": 3, "top_k": 2}
MOE = {**EXPERTS, "moe_intermediate_dim": 8}
DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    "partial_rotary_factor": 0.5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}
T5GEMMA = {
    "vocabulary_size": VOCABULARY,
    **{
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "hidden_dim": 16,
            "intermediate_dim": 16,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        }.items()
    },
    "sliding_window": 3,
    "query_pre_attn_scalar": 1.0,
    "attention_bias": False,
    "hidden_activation": "gelu_approximate",
    "dropout_rate": 0.0,
    "attention_dropout": 0.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "cross_attention_hidden_size": 16,
    "attn_logit_softcapping": 50.0,
    "rope_max_wavelength": 10_000.0,
    "initializer_range": 0.04,
}
MIT = {
    "layerwise_depths": [1, 1],
    "image_shape": (32, 32, 3),
    "hidden_dims": [4, 8],
    "num_layers": 2,
    "layerwise_num_heads": [1, 2],
    "layerwise_sr_ratios": [4, 2],
    "max_drop_path_rate": 0.1,
    "layerwise_patch_sizes": [7, 3],
    "layerwise_strides": [4, 2],
}
VIT = {"image_shape": (8, 8, 3), "patch_size": 4, "num_layers": 2, "num_heads": 2, "hidden_dim": 8}
DINO = {"layer_scale_init_value": 1.0, "num_register_tokens": 3}


def image(height, width=None, channels=3):
    return np.random.default_rng(9).normal(size=(B, height, width or height, channels)).astype("float32")


def two_towers(name):
    """CLIP and its kin: an encoder of images and one of texts."""

    def make(models):
        vision = getattr(models, f"{name}VisionEncoder")(4, 8, 2, 2, 16, image_shape=(8, 8, 3))
        text = getattr(models, f"{name}TextEncoder")(VOCABULARY, 8, 8, 2, 2, 16, max_sequence_length=S)
        return {"vision_encoder": vision, "text_encoder": text}

    return make


def with_projection(make):
    return lambda models: {**make(models), "projection_dim": 8}


def blip2(models):
    return {
        "vision_encoder": models.BLIP2VisionEncoder(
            image_size=8,
            patch_size=4,
            num_layers=1,
            layer_norm_epsilon=1e-6,
            initializer_range=0.02,
            use_patch_bias=True,
            use_class_token=True,
            use_mha_bias=True,
            use_mlp_bias=True,
            **{**HEADS, "dropout_rate": 0.0},
        ),
        "qformer": models.BLIP2QFormer(
            num_query_tokens=3,
            num_layers=2,
            vision_dim=8,
            cross_attention_frequency=1,
            **{**HEADS, "dropout": 0.0, "layer_norm_epsilon": 1e-6},
        ),
        "language_model": models.BLIP2CustomOPT(
            **{**WORDS, **HEADS, **LENGTH, "dropout": 0.0},
            num_query_tokens=3,
            qformer_hidden_dim=8,
            language_projection=None,
        ),
    }


def depth_anything(models):
    encoder = models.DINOV2Backbone(7, 4, 8, 2, 16, 1.0, 0, image_shape=(28, 28, 3), apply_layernorm=True)
    return {
        "image_encoder": encoder,
        "reassemble_factors": [8, 4, 2, 1],
        "neck_hidden_dims": [4, 4, 4, 4],
        "fusion_hidden_dim": 4,
        "head_hidden_dim": 4,
        "head_in_index": -1,
        "feature_keys": ["stage1", "stage2", "stage3", "stage4"],
    }


def parseq(models):
    encoder = models.ViTBackbone(**{**VIT, "mlp_dim": 16, "use_class_token": False})
    return {
        "image_encoder": encoder,
        "vocabulary_size": VOCABULARY,
        "max_label_length": S,
        "decoder_hidden_dim": 8,
        "num_decoder_layers": 1,
        "num_decoder_heads": 2,
        "decoder_mlp_dim": 16,
        "dropout_rate": 0.0,
        "attention_dropout": 0.0,
    }


def sam(models):
    from keras_hub import layers

    return {
        "image_encoder": models.ViTDetBackbone(
            hidden_size=16,
            num_layers=2,
            intermediate_dim=16,
            num_heads=2,
            patch_size=8,
            global_attention_layer_indices=[1],
            num_output_channels=8,
            window_size=2,
            image_shape=(16, 16, 3),
        ),
        "prompt_encoder": layers.SAMPromptEncoder(
            hidden_size=8, image_embedding_size=(8, 8), input_image_size=(16, 16), mask_in_channels=16
        ),
        "mask_decoder": layers.SAMMaskDecoder(
            num_layers=2,
            hidden_size=16,
            intermediate_dim=32,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=3,
            iou_head_depth=3,
            iou_head_hidden_dim=8,
        ),
    }


def stable_diffusion_3(models):
    vae, clip = _make_pipeline(models)
    return {
        "mmdit_patch_size": 2,
        "mmdit_hidden_dim": 16,
        "mmdit_num_layers": 2,
        "mmdit_num_heads": 2,
        "mmdit_position_size": 12,
        "mmdit_qk_norm": None,
        "mmdit_dual_attention_indices": None,
        "vae": vae,
        "clip_l": clip("clip_l", "quick_gelu"),
        "clip_g": clip("clip_g", "gelu"),
        "image_shape": (64, 64, 3),
    }


def _make_pipeline(models):
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    sizes = [[32] * 4, [1] * 4, [32] * 4, [1] * 4]
    vae = VAEBackbone(*sizes, sampler_method="mode", name="vae")
    return vae, lambda name, activation: models.CLIPTextEncoder(
        VOCABULARY, 8, 8, 2, 2, 16, activation, -2, max_sequence_length=S, name=name
    )


# Name in the table: class, arguments or a function that makes them, inputs.
BACKBONES = {
    "ALBERT": (
        "AlbertBackbone",
        {**WORDS, **HEADS, **LENGTH, "num_groups": 1, "num_inner_repetitions": 1, "embedding_dim": 6},
        SEGMENTED,
    ),
    "BART": ("BartBackbone", {**WORDS, **HEADS, **LENGTH}, PAIR),
    "BERT": ("BertBackbone", {**WORDS, **HEADS, **LENGTH}, SEGMENTED),
    "BLIP-2": ("BLIP2Backbone", blip2, {"images": image(8), **TEXT}),
    "Bloom": ("BloomBackbone", {**WORDS, **HEADS}, TEXT),
    "CLIP": ("CLIPBackbone", with_projection(two_towers("CLIP")), {"images": image(8), "token_ids": IDS}),
    "DeBERTa v3": ("DebertaV3Backbone", {**WORDS, **HEADS, **LENGTH}, TEXT),
    "DeiT": ("DeiTBackbone", {**VIT, "intermediate_dim": 16}, image(8)),
    "Depth Anything": ("DepthAnythingBackbone", depth_anything, image(28)),
    "DINOv2": ("DINOV2Backbone", {**VIT, **DINO, "intermediate_dim": 16}, {"images": image(8)}),
    "DINOv3": ("DINOV3Backbone", {**VIT, **DINO, "intermediate_dim": 16}, {"pixel_values": image(8)}),
    "DistilBERT": ("DistilBertBackbone", {**WORDS, **HEADS, **LENGTH}, TEXT),
    "EdRec": (
        "EdRecBackbone",
        {**HEADS, "vocab_size": VOCABULARY, "num_layers_enc": 2, "num_layers_dec": 2, "dropout": 0.0},
        PAIR,
    ),
    "ELECTRA": (
        "ElectraBackbone",
        {**HEADS, **LENGTH, "vocab_size": VOCABULARY, "num_layers": 2, "embedding_dim": 6},
        SEGMENTED,
    ),
    "ESM-2": ("ESMBackbone", {**WORDS, **HEADS}, {"token_ids": IDS * PADDING}),
    "Falcon": (
        "FalconBackbone",
        {**WORDS, "num_attention_heads": 2, "hidden_dim": 8, "intermediate_dim": 16},
        TEXT,
    ),
    "Flux": (
        "FluxBackbone",
        {
            "input_channels": 8,
            "hidden_size": 16,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 1,
            "theta": 10_000,
            "depth_single_blocks": 1,
            "axes_dim": [2, 2, 4],
            "use_bias": True,
            "guidance_embed": True,
            "image_shape": (6, 8),
            "text_shape": (5, 8),
            "image_ids_shape": (6, 3),
            "text_ids_shape": (5, 3),
            "y_shape": (8,),
        },
        {
            "image": image(6, 8, 1)[..., 0],
            "image_ids": image(6, 3, 1)[..., 0],
            "text": image(5, 8, 1)[..., 0],
            "text_ids": image(5, 3, 1)[..., 0],
            "y": image(8, 1, 1)[..., 0, 0],
            "timesteps": np.ones(B, "float32"),
            "guidance": np.ones(B, "float32"),
        },
    ),
    "Gemma": ("GemmaBackbone", {**WORDS, **GROUPS, "head_dim": 4}, TEXT),
    "Gemma 3": (
        "Gemma3Backbone",
        {
            **WORDS,
            **GROUPS,
            "head_dim": 4,
            "image_size": 8,
            "use_query_key_norm": True,
            "sliding_window_size": 3,
            "query_head_dim_normalize": True,
            "use_post_ffw_norm": True,
            "use_post_attention_norm": True,
            "final_logit_soft_cap": None,
            "attention_logit_soft_cap": None,
            "use_sliding_window_attention": True,
        },
        TEXT,
    ),
    "Gemma 3n": (
        "Gemma3nBackbone",
        {
            "text_vocab_size": VOCABULARY,
            "text_hidden_size": 8,
            "num_hidden_layers": 2,
            "pad_token_id": 0,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 4,
            "intermediate_size": [16, 16],
            "hidden_activation": "gelu_approximate",
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 4,
            "rope_theta": 10_000.0,
            "max_position_embeddings": 12,
            "laurel_rank": 1,
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 2,
            "altup_num_inputs": 2,
        },
        {**TEXT, "padding_mask": PADDING.astype(bool)},
    ),
    "Gemma 4": (
        "Gemma4Backbone",
        {
            **WORDS,
            **GROUPS,
            "head_dim": 4,
            "image_size": 16,
            "sliding_window_size": 3,
            "use_sliding_window_attention": True,
            "final_logit_soft_cap": None,
            "attention_logit_soft_cap": None,
        },
        {**TEXT, "position_ids": np.tile(np.arange(S, dtype="int32"), (B, 1))},
    ),
    "GPT-2": ("GPT2Backbone", {**WORDS, **HEADS, **LENGTH}, TEXT),
    "GPT-NeoX": ("GPTNeoXBackbone", {**WORDS, **HEADS, **LENGTH, "hidden_dim": 16}, TEXT),
    "gpt-oss": ("GptOssBackbone", {**WORDS, **GROUPS, **EXPERTS, "sliding_window": 3}, TEXT),
    "Llama": ("LlamaBackbone", {**WORDS, **GROUPS}, TEXT),
    "Llama 3": ("Llama3Backbone", {**WORDS, **GROUPS}, TEXT),
    "MetaCLIP 2": (
        "MetaCLIP2Backbone",
        with_projection(two_towers("MetaCLIP2")),
        {"images": image(8), "token_ids": IDS},
    ),
    "Mistral": ("MistralBackbone", {**WORDS, **GROUPS, "sliding_window": 3}, TEXT),
    "MiT": ("MiTBackbone", MIT, image(32)),
    "Mixtral": ("MixtralBackbone", {**WORDS, **GROUPS, **EXPERTS, "sliding_window": 3}, TEXT),
    "MobileNetV5": (
        "MobileNetV5Backbone",
        {
            "stackwise_block_types": [["er"], ["uir", "mqa"]],
            "stackwise_num_blocks": [1, 2],
            "stackwise_num_filters": [[8], [8, 8]],
            "stackwise_strides": [[2], [2, 1]],
            "stem_size": 8,
            "stackwise_act_layers": [["relu"], ["relu", "relu"]],
            "stackwise_exp_ratios": [[4.0], [6.0, 0.0]],
            "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
            "stackwise_dw_kernel_sizes": [[0], [5, 3]],
            "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
            "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
            "stackwise_exp_kernel_sizes": [[3], [0, 0]],
            "stackwise_pw_kernel_sizes": [[1], [0, 0]],
            "stackwise_num_heads": [[0], [0, 2]],
            "stackwise_key_dims": [[0], [0, 4]],
            "stackwise_value_dims": [[0], [0, 4]],
            "stackwise_kv_strides": [[0], [0, 1]],
            "stackwise_use_cpe": [[False], [False, False]],
            "image_shape": (32, 32, 3),
            "use_msfa": False,
        },
        image(32),
    ),
    "Moonshine": (
        "MoonshineBackbone",
        {
            "vocabulary_size": VOCABULARY,
            "filter_dim": 16,
            "encoder_num_layers": 1,
            "decoder_num_layers": 1,
            "hidden_dim": 16,
            "intermediate_dim": 16,
            "encoder_num_heads": 2,
            "decoder_num_heads": 2,
            "encoder_use_swiglu_activation": False,
            "partial_rotary_factor": 0.62,
            "dropout": 0.0,
        },
        {
            "encoder_input_values": image(4000, 1, 1)[..., 0],
            "encoder_padding_mask": np.ones((B, 4000), bool),
            "decoder_token_ids": IDS,
            "decoder_padding_mask": PADDING.astype(bool),
        },
    ),
    "OPT": ("OPTBackbone", {**WORDS, **HEADS, **LENGTH}, TEXT),
    "PaliGemma": (
        "PaliGemmaBackbone",
        {
            **WORDS,
            **GROUPS,
            "head_dim": 4,
            "image_size": 8,
            "vit_patch_size": 4,
            "vit_num_layers": 1,
            "vit_num_heads": 2,
            "vit_hidden_dim": 8,
            "vit_intermediate_dim": 16,
        },
        {**TEXT, "images": image(8), "response_mask": PADDING * 0},
    ),
    "PARSeq": ("PARSeqBackbone", parseq, {**TEXT, "images": image(8)}),
    "Phi-3": ("Phi3Backbone", {**WORDS, **GROUPS}, TEXT),
    "Qwen 2": ("QwenBackbone", {**WORDS, **GROUPS}, TEXT),
    "Qwen 2 MoE": ("QwenMoeBackbone", {**WORDS, **GROUPS, **MOE, "shared_expert_intermediate_dim": 8}, TEXT),
    "Qwen 3": ("Qwen3Backbone", {**WORDS, **GROUPS, "head_dim": 4}, TEXT),
    "Qwen 3 MoE": ("Qwen3MoeBackbone", {**WORDS, **GROUPS, **MOE, "head_dim": 4}, TEXT),
    "Qwen 3.5": ("Qwen3_5Backbone", {**WORDS, **GROUPS, **DELTA, "head_dim": 4}, TEXT),
    "Qwen 3.5 MoE": (
        "Qwen3_5MoeBackbone",
        {
            **WORDS,
            **MOE,
            **DELTA,
            "head_dim": 4,
            "shared_expert_intermediate_size": 8,
            **{name: size for name, size in GROUPS.items() if name != "intermediate_dim"},
        },
        TEXT,
    ),
    "RoBERTa": ("RobertaBackbone", {**WORDS, **HEADS, **LENGTH}, TEXT),
    "RoFormer v2": (
        "RoformerV2Backbone",
        {**WORDS, **HEADS, "head_size": 4},
        {"token_ids": IDS * PADDING, "segment_ids": IDS * 0},
    ),
    "SAM": (
        "SAMBackbone",
        sam,
        {
            "images": image(16),
            "points": np.ones((B, 1, 2), "float32"),
            "labels": np.ones((B, 1), "float32"),
            "boxes": np.ones((B, 1, 2, 2), "float32"),
            "masks": np.zeros((B, 0, 16, 16, 1), "float32"),
        },
    ),
    "SegFormer": (
        "SegFormerBackbone",
        lambda models: {"projection_filters": 8, "image_encoder": models.MiTBackbone(**MIT)},
        image(32),
    ),
    "SigLIP": ("SigLIPBackbone", two_towers("SigLIP"), {"images": image(8), "token_ids": IDS}),
    "SmolLM3": (
        "SmolLM3Backbone",
        {
            **WORDS,
            "hidden_dim": 16,
            "intermediate_dim": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "rope_layer_enabled_list": [True, False],
            "layer_types": ["attention", "attention"],
            "mlp_bias": False,
            "layer_norm_epsilon": 1e-5,
            "max_position_embeddings": 12,
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 1.0,
        },
        TEXT,
    ),
    "Stable Diffusion 3": (
        "StableDiffusion3Backbone",
        stable_diffusion_3,
        {
            "images": image(64),
            "latents": image(8, 8, 16),
            "num_steps": np.full(B, 2, "int32"),
            **{f"{clip}{sign}_token_ids": IDS for clip in ("clip_l", "clip_g") for sign in ("", "_negative")},
            "guidance_scale": np.ones(B, "float32"),
        },
    ),
    "Swin": (
        "SwinTransformerBackbone",
        {"image_shape": (32, 32, 3), "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 4), "window_size": 4},
        image(32),
    ),
    "T5": ("T5Backbone", {**WORDS, **HEADS}, PAIR),
    "T5Gemma": ("T5GemmaBackbone", T5GEMMA, PAIR),
    "T5Gemma 2": ("T5Gemma2Backbone", {**T5GEMMA, "use_query_key_norm": True}, PAIR),
    "VideoPrism": (
        "VideoPrismBackbone",
        {
            "image_shape": (8, 8, 3),
            "num_frames": 3,
            "patch_size": 4,
            "hidden_dim": 8,
            "intermediate_dim": 16,
            "num_heads": 2,
            "num_spatial_layers": 1,
            "num_temporal_layers": 1,
            "num_auxiliary_layers": 1,
            "vocabulary_size": VOCABULARY,
            "num_text_layers": 1,
            "attention_logit_soft_cap": 50.0,
        },
        {**TEXT, "pixel_values": np.stack([image(8)] * 3, axis=1)},
    ),
    "ViT": ("ViTBackbone", {**VIT, "mlp_dim": 16}, image(8)),
    "ViTDet": (
        "ViTDetBackbone",
        {
            "image_shape": (16, 16, 3),
            "patch_size": 4,
            "hidden_size": 8,
            "num_layers": 2,
            "num_heads": 2,
            "global_attention_layer_indices": [1],
            "intermediate_dim": 16,
            "num_output_channels": 4,
            "window_size": 2,
        },
        image(16),
    ),
    "Whisper": (
        "WhisperBackbone",
        {**WORDS, **HEADS, "num_mels": 4, "max_encoder_sequence_length": 22, "max_decoder_sequence_length": 12},
        {"encoder_features": image(22, 4, 1)[..., 0], "decoder_token_ids": IDS, "decoder_padding_mask": PADDING},
    ),
    "XLM-RoBERTa": ("XLMRobertaBackbone", {**WORDS, **HEADS, **LENGTH}, TEXT),
    "XLNet": ("XLNetBackbone", {**WORDS, **HEADS}, SEGMENTED),
}


def build(backbone):
    """A backbone with random weights, and its inputs."""
    import keras
    import keras_hub

    name, arguments, data = BACKBONES[backbone]
    model = getattr(keras_hub.models, name)(**(arguments(keras_hub.models) if callable(arguments) else arguments))
    random = np.random.default_rng(3)
    for variable in model.trainable_variables:
        if "position" in variable.path:
            continue  # DINOv2 computes other weights from these when it is built
        noise = random.normal(size=variable.shape, scale=0.3)
        variable.assign(keras.ops.convert_to_numpy(variable) + noise)
    return model, keras.tree.map_structure(keras.ops.convert_to_tensor, data)


def spy_on_softmaxes(model, data):
    """Return a model's outputs, and the results of all softmaxes that Keras computes meanwhile, fused attention among them."""
    import keras
    from keras.src.backend import nn

    softmaxes, originals = [], (nn.softmax, nn.dot_product_attention)

    def softmax(x, axis=-1):
        result = originals[0](x, axis=axis)
        if not isinstance(result, keras.KerasTensor):
            softmaxes.append(np.moveaxis(keras.ops.convert_to_numpy(result).astype(float), axis, -1))
        return result

    def dot_product_attention(query, key, value, bias=None, mask=None, scale=None, is_causal=False, **kwargs):
        number = len(softmaxes)
        result = originals[1](query, key, value, bias=bias, mask=mask, scale=scale, is_causal=is_causal, **kwargs)
        del softmaxes[number:]  # TensorFlow computes this one with a softmax
        arrays = [None if x is None else keras.ops.convert_to_numpy(x) for x in (query, key, bias, mask)]
        softmaxes.append(compute_weights(*arrays, scale, is_causal))
        return result

    try:
        nn.softmax, nn.dot_product_attention = softmax, dot_product_attention
        return model(data, training=False), softmaxes
    finally:
        nn.softmax, nn.dot_product_attention = originals


def compute_weights(query, key, bias, mask, scale, is_causal):
    """The weights (B, N, T, S) in float64 of queries (B, T, N, H) and keys (B, S, K, H)."""
    key = key.repeat(query.shape[2] // key.shape[2], axis=2).astype(float)
    scores = np.einsum("btnh,bsnh->bnts", query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores if bias is None else scores + bias
    scores = scores if mask is None else np.where(mask, scores, -1e30)
    scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -1e30) if is_causal else scores
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def find_error(weights, expected):
    """The largest difference of captured weights (B, ..., N, T, S) from a softmax whose last axis are the keys.

    The other axes may come in any order, and heads may be two axes, or be part of the batch. A sink is the last key of a softmax,
    and none of the map. A query that is padding has weights 0 in a map.
    """
    if expected.shape[-1] == weights.shape[-1] + 1:
        expected = expected[..., :-1]
    if expected.size != weights.size or expected.shape[-1] != weights.shape[-1]:
        return np.inf
    rows = np.broadcast_to(weights.sum(axis=-1, keepdims=True) > 0, weights.shape)
    if not rows[0].all():
        return np.inf  # nothing is padding in the first example
    orders = itertools.permutations(range(expected.ndim - 1))
    candidates = (expected.transpose(*order, -1).reshape(weights.shape) for order in orders)
    return min(float(np.abs(weights - candidate)[rows].max()) for candidate in candidates)


def measure(backbone):
    """Measure one backbone, and return what was seen."""
    import keras

    import limelight as ll

    model, data = build(backbone)
    flatten = lambda outputs: [keras.ops.convert_to_numpy(x).astype(float) for x in keras.tree.flatten(outputs)]  # noqa: E731
    outputs, softmaxes = spy_on_softmaxes(model, data)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ll.inspection.CaptureWarning)
        extractor = ll.AttentionExtractor(model)
        captured, exported = extractor(data, training=False)
        maps = extractor.to_maps(exported)
    is_unchanged = all((a == b).all() for a, b in zip(flatten(outputs), flatten(captured), strict=True))
    errors, remaining = {}, list(range(len(softmaxes)))
    for key, attention_map in maps.items():
        weights = attention_map.weights()
        found = min(remaining, key=lambda index: find_error(weights, softmaxes[index]), default=None)
        errors[key] = np.inf if found is None else find_error(weights, softmaxes[found])
        if np.isfinite(errors[key]):
            remaining.remove(found)
    findings = ll.lint(model, data)
    replaced, messages = measure_upgrade(model, data, flatten(outputs))
    return {
        "unchanged": is_unchanged,
        "maps": len(maps),
        "error": max(errors.values(), default=0.0),
        "wrong": [key for key, error in errors.items() if error > 1e-5],
        "others": [list(softmaxes[index].shape) for index in remaining],
        "capture": [str(each.message) for each in caught if issubclass(each.category, ll.inspection.CaptureWarning)],
        "lint": sorted({f"{finding.kind} ({finding.severity}): {finding.path}" for finding in findings}),
        "replaced": replaced,
        "upgrade": messages,
    }


def measure_upgrade(model, data, outputs):
    """Return how many layers `upgrade` replaces, and why it keeps others; or None and the reason of its error."""
    import keras

    import limelight as ll

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            upgraded = ll.upgrade(model)
        except (TypeError, ValueError) as error:
            return None, [f"{type(error).__name__}: {error}"]
    new = keras.tree.flatten(upgraded(data, training=False))
    for before, after in zip(outputs, new, strict=True):
        difference = np.abs(before - keras.ops.convert_to_numpy(after).astype(float)).max()
        if difference > 1e-4 * np.abs(before).max():
            raise ValueError(f"The outputs differ by {difference}.")
    replaced = [layer for layer in upgraded._flatten_layers() if type(layer).__module__.startswith("limelight")]
    return len(replaced), [str(each.message) for each in caught if "UpgradeWarning" in each.category.__name__]


def format_row(rows):
    """A row of the table, from what was measured on each backend."""
    name, count = rows[0]["backbone"], {row["maps"] for row in rows}
    equal = "yes" if all(row["unchanged"] for row in rows) else "no"
    error = f"{max(row['error'] for row in rows):.1e}"
    routers = max(len(row["others"]) for row in rows) or "-"
    lint = "; ".join(sorted({finding.split(":")[0] for row in rows for finding in row["lint"]})) or "-"
    upgrade = "; ".join(sorted({describe_upgrade(row) for row in rows}))
    return f"| {name} | {'/'.join(map(str, sorted(count)))} | {equal} | {error} | {routers} | {lint} | {upgrade} |"


def describe_upgrade(row):
    """What `upgrade` did: it replaces layers, keeps them with a warning, or refuses the model; often there are none."""
    if row["replaced"] is None:
        return "refused"
    if row["replaced"]:
        return f"{row['replaced']} replaced"
    return "kept, with the reason" if row["upgrade"] else "none to replace"


def main(arguments):
    """Print the rows of the table, or with `--json` what was measured on the active backend."""
    if arguments:
        for backbone in BACKBONES:
            print(json.dumps({"backbone": backbone, **measure(backbone)}), flush=True)
        return
    rows = {backbone: [] for backbone in BACKBONES}
    backends = os.environ.get("KERAS_BACKEND", "torch tensorflow jax").split()
    for backend in backends:
        environment = {**os.environ, "KERAS_BACKEND": backend}
        command = [sys.executable, "-W", "ignore", "-m", "inspection.backbones", "--json"]
        output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
        for line in output.splitlines():
            rows[json.loads(line)["backbone"]].append(json.loads(line))
    print("\n".join(map(format_row, rows.values())))


if __name__ == "__main__":
    main(sys.argv[1:])
