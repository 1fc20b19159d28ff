"""The text half of the zoo: tiny random configurations of transformers' language models, one line each where possible.

Comes in: nothing. Goes out: the same registry, ``ZOO``, with more names. Each family stands for what it alone has: a way of sharing,
fusing, gating, routing or scanning that its operators show. One layer where one shows all, two where layers differ.
"""

from __future__ import annotations

from typing import Any

import torch

from tests.zoo.catalogue import add, hugging_face

VOCABULARY, TOKENS = 90, 7
Options = dict[str, Any]

_BASE: Options = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_WIDTHS: Options = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
_ENCODER = _BASE | _WIDTHS | {"max_position_embeddings": 24, "num_labels": 3}
_DECODER = _BASE | _WIDTHS | {"max_position_embeddings": 24, "use_cache": False, "pad_token_id": None}
_GQA = _DECODER | {"num_key_value_heads": 2}
_QUERY_NORM = _GQA | {"head_dim": 8}
_SHORT: Options = _BASE | {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 24, "use_cache": False}
_BOTH: Options = _BASE | {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 24,
    "use_cache": False,
    "decoder_start_token_id": 0,
}
_T5: Options = _BASE | {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 1,
    "num_heads": 4,
    "use_cache": False,
    "decoder_start_token_id": 0,
    "attn_implementation": "eager",  # the other exports to a view that its own kernel's result refuses
}
_BATCHED: Options = {"experts_implementation": "batched_mm"}  # the default for float32 only; the laws run in float64
_ROUTED: Options = _BATCHED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}

# name: (model, configuration, options)
ENCODERS: dict[str, tuple[str, str, Options]] = {
    "roberta": ("RobertaForTokenClassification", "RobertaConfig", _ENCODER),
    "distilbert": (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        _BASE | {"dim": 32, "hidden_dim": 40, "n_layers": 1, "n_heads": 4, "max_position_embeddings": 24, "num_labels": 3},
    ),
    "albert": ("AlbertForSequenceClassification", "AlbertConfig", _ENCODER | {"embedding_size": 16, "num_hidden_layers": 2}),
    "electra": ("ElectraForPreTraining", "ElectraConfig", _ENCODER | {"embedding_size": 16}),
    "deberta": (
        "DebertaV2ForSequenceClassification",
        "DebertaV2Config",
        _ENCODER | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 8, "norm_rel_ebd": "layer_norm"},
    ),
    "mpnet": ("MPNetForSequenceClassification", "MPNetConfig", _ENCODER),
    "funnel": (
        "FunnelForSequenceClassification",
        "FunnelConfig",
        _BASE | {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 40, "block_sizes": [1, 1], "num_decoder_layers": 1, "num_labels": 3},
    ),
    "convbert": ("ConvBertForSequenceClassification", "ConvBertConfig", _ENCODER | {"embedding_size": 16, "conv_kernel_size": 3}),
    "modernbert": (
        "ModernBertForSequenceClassification",
        "ModernBertConfig",
        _ENCODER | {"num_hidden_layers": 2, "local_attention": 4, "global_attn_every_n_layers": 2, "reference_compile": False},
    ),
    "xlnet": (
        "XLNetForSequenceClassification",
        "XLNetConfig",
        _BASE | {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 40, "num_labels": 3},
    ),
    "roformer": ("RoFormerForSequenceClassification", "RoFormerConfig", _ENCODER | {"embedding_size": 16}),
    "squeezebert": (
        "SqueezeBertForSequenceClassification",
        "SqueezeBertConfig",
        _ENCODER | {"embedding_size": 32, "q_groups": 2, "k_groups": 2, "v_groups": 2, "intermediate_groups": 2, "output_groups": 2},
    ),
    "fnet": ("FNetForSequenceClassification", "FNetConfig", _ENCODER | {"use_tpu_fourier_optimizations": False}),
    "nystromformer": (
        "NystromformerForSequenceClassification",
        "NystromformerConfig",
        _ENCODER | {"num_landmarks": 7, "segment_means_seq_len": 7},
    ),
}
DECODERS: dict[str, tuple[str, str, Options]] = {
    "gpt_neox": ("GPTNeoXForCausalLM", "GPTNeoXConfig", _DECODER | {"rotary_pct": 0.5}),
    "gptj": ("GPTJForCausalLM", "GPTJConfig", _SHORT | {"rotary_dim": 4}),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        _DECODER | {"num_hidden_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 4},
    ),
    "opt": ("OPTForCausalLM", "OPTConfig", _DECODER | {"ffn_dim": 40, "word_embed_proj_dim": 32}),
    "bloom": ("BloomForCausalLM", "BloomConfig", _BASE | {"hidden_size": 32, "n_layer": 1, "n_head": 4, "use_cache": False}),
    "falcon": ("FalconForCausalLM", "FalconConfig", _DECODER | {"multi_query": True, "ffn_hidden_size": 40}),
    "falcon_new": (
        "FalconForCausalLM",
        "FalconConfig",
        _DECODER | {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 40},
    ),
    "mpt": (
        "MptForCausalLM",
        "MptConfig",
        _BASE | {"d_model": 32, "n_heads": 4, "n_layers": 1, "expansion_ratio": 2, "max_seq_len": 24, "use_cache": False},
    ),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", "GPTBigCodeConfig", _SHORT | {"n_inner": 40, "multi_query": True}),
    "mistral": ("MistralForCausalLM", "MistralConfig", _QUERY_NORM | {"sliding_window": 4}),
    "gemma": ("GemmaForCausalLM", "GemmaConfig", _QUERY_NORM),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", _QUERY_NORM | {"num_hidden_layers": 2, "sliding_window": 4}),
    "gemma3": (
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        _QUERY_NORM | {"num_hidden_layers": 2, "sliding_window": 4, "sliding_window_pattern": 2},
    ),
    "qwen2": ("Qwen2ForCausalLM", "Qwen2Config", _GQA),
    "qwen3": ("Qwen3ForCausalLM", "Qwen3Config", _QUERY_NORM),
    "phi3": ("Phi3ForCausalLM", "Phi3Config", _GQA),
    "stablelm": ("StableLmForCausalLM", "StableLmConfig", _GQA | {"use_qkv_bias": True, "qk_layernorm": True}),
    "cohere": ("CohereForCausalLM", "CohereConfig", _GQA | {"use_qk_norm": True}),
    "olmo2": ("Olmo2ForCausalLM", "Olmo2Config", _GQA),
    "glm": ("GlmForCausalLM", "GlmConfig", _QUERY_NORM | {"attention_bias": True}),
    "granite": ("GraniteForCausalLM", "GraniteConfig", _GQA | {"residual_multiplier": 0.5, "attention_multiplier": 0.3}),
    "falcon_alibi": (
        "FalconForCausalLM",
        "FalconConfig",
        _DECODER | {"alibi": True, "multi_query": False, "ffn_hidden_size": 40, "parallel_attn": False},
    ),
    "llama_mqa": ("LlamaForCausalLM", "LlamaConfig", _DECODER | {"num_key_value_heads": 1, "attn_implementation": "eager"}),
    "starcoder2": ("Starcoder2ForCausalLM", "Starcoder2Config", _GQA),
    "nemotron": ("NemotronForCausalLM", "NemotronConfig", _QUERY_NORM),
}
BOTH_WAYS: dict[str, tuple[str, str, Options]] = {
    "bart": ("BartForConditionalGeneration", "BartConfig", _BOTH),
    "marian": ("MarianMTModel", "MarianConfig", _BOTH),
    "blenderbot": ("BlenderbotForConditionalGeneration", "BlenderbotConfig", _BOTH),
    "t5_gated": ("T5ForConditionalGeneration", "T5Config", _T5 | {"feed_forward_proj": "gated-gelu"}),
    "mt5": ("MT5ForConditionalGeneration", "MT5Config", _T5),
}
STATE_SPACE: dict[str, tuple[str, str, Options]] = {
    "mamba": ("MambaForCausalLM", "MambaConfig", _DECODER | {"state_size": 4, "time_step_rank": 3, "use_mambapy": False}),
    "mamba2": (
        "Mamba2ForCausalLM",
        "Mamba2Config",
        _DECODER | {"state_size": 4, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4},
    ),
    "rwkv": (
        "RwkvForCausalLM",
        "RwkvConfig",
        _DECODER | {"attention_hidden_size": 32, "context_length": 24, "num_hidden_layers": 2, "rescale_every": 0},
    ),
    "recurrent_gemma": (
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        _GQA
        | {"head_dim": 8, "lru_width": 32, "num_hidden_layers": 2, "block_types": ["recurrent", "attention"], "attention_window_size": 4},
    ),
    "jamba": (
        "JambaForCausalLM",
        "JambaConfig",
        _GQA
        | _BATCHED
        | {"num_hidden_layers": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
        | {"num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 4, "mamba_dt_rank": 3, "use_mamba_kernels": False},
    ),
    "bamba": (
        "BambaForCausalLM",
        "BambaConfig",
        _GQA
        | {
            "num_hidden_layers": 2,
            "attn_layer_indices": [1],
            "mamba_n_heads": 8,
            "mamba_d_head": 8,
            "mamba_d_state": 4,
            "mamba_chunk_size": 4,
        },
    ),
}
EXPERTS: dict[str, tuple[str, str, Options]] = {
    "mixtral": ("MixtralForCausalLM", "MixtralConfig", _GQA | _BATCHED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        _GQA | _ROUTED | {"shared_expert_intermediate_size": 16, "decoder_sparse_step": 1},
    ),
    "olmoe": ("OlmoeForCausalLM", "OlmoeConfig", _GQA | _ROUTED),
    "gpt_oss": (
        "GptOssForCausalLM",
        "GptOssConfig",
        _QUERY_NORM | _BATCHED | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    ),
    "deepseek_v3": (
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        _DECODER
        | _BATCHED
        | {"num_hidden_layers": 2, "first_k_dense_replace": 1, "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
        | {
            "n_group": 2,
            "topk_group": 1,
            "q_lora_rank": 12,
            "kv_lora_rank": 10,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 6,
            "v_head_dim": 5,
        },
    ),
    "granite_moe": ("GraniteMoeForCausalLM", "GraniteMoeConfig", _GQA | _BATCHED | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _QUERY_NORM | _ROUTED),
}
STEPWISE = {"rwkv", "recurrent_gemma"}  # each time step becomes nodes of its own
TEXT = ENCODERS | DECODERS | BOTH_WAYS | STATE_SPACE | EXPERTS


def _masked(batch: int) -> Options:
    mask = torch.ones(batch, TOKENS, dtype=torch.long)
    mask[-1, 5:] = 0
    return {"attention_mask": mask}


def _answered(batch: int) -> Options:
    return {"decoder_input_ids": torch.randint(1, VOCABULARY, (batch, 4))}


def _register(name: str) -> None:
    model, config, options = TEXT[name]
    kwargs = _masked if name in ENCODERS else _answered if name in BOTH_WAYS else None
    tokens = 4 if name in STEPWISE else TOKENS
    add(name, lambda: hugging_face(model, config, **options), (tokens,), kwargs=kwargs, vocabulary=VOCABULARY)


for _name in TEXT:
    _register(_name)
