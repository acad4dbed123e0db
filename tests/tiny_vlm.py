"""Writes a tiny video LLM with random weights: the architecture of Qwen2.5-VL, 0.8 million parameters, 1.5 MB.

    .venv-vllm/bin/python tests/tiny_vlm.py FOLDER

Nothing is downloaded: its byte-level tokenizer is trained in place on a few sentences. What it says is noise; all
around that is real.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
CHAT = """\
{%- for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}
{%- if 'image' in part['type'] %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif 'video' in part['type'] %}<|vision_start|><|video_pad|><|vision_end|>
{%- else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SENTENCES = (
    "a man walks across the street while the camera pans slowly to the left and the sun goes down behind the houses",
    "system user assistant describe the video in detail, the frames are in order, answer yes or no",
    '{"short": "a red ball", "dense": "a red ball rolls over a table", "category": "objects", "objects": ["ball"]}',
)
HIDDEN, HEAD, PATCH = 128, 64, 14


def write(folder: Path, seed: int = 0) -> None:
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = _tokenizer()
    config = _config(tokenizer)
    model = transformers.Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16).eval()
    end = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=end[1], eos_token_id=end, pad_token_id=end[1], do_sample=False
    )
    unit = (2 * PATCH) ** 2  # pixels behind one token
    common = {"patch_size": PATCH, "temporal_patch_size": 2, "merge_size": 2}
    pictures = transformers.Qwen2VLImageProcessor(size={"shortest_edge": 4 * unit, "longest_edge": 64 * unit}, **common)
    videos = transformers.Qwen2VLVideoProcessor(size={"shortest_edge": 4 * unit, "longest_edge": 512 * unit}, **common)
    processor = transformers.Qwen2_5_VLProcessor(
        image_processor=pictures, tokenizer=tokenizer, video_processor=videos, chat_template=CHAT
    )
    for part in (model, processor, pictures, videos):
        part.save_pretrained(folder)


def _tokenizer() -> Any:
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False, initial_alphabet=alphabet, min_frequency=1)
    made.train_from_iterator(SENTENCES, trainer)
    made.add_special_tokens([tokenizers.AddedToken(word, special=True, normalized=False) for word in SPECIAL])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=32768
    )
    fast.chat_template = CHAT
    return fast


def _config(tokenizer: Any) -> Any:
    import transformers

    number = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}  # adds up to half a head
    text = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": HIDDEN // HEAD,
        "num_key_value_heads": HIDDEN // HEAD,
        "max_position_embeddings": 32768,
        "bos_token_id": number("<|endoftext|>"),
        "eos_token_id": number("<|im_end|>"),
        "pad_token_id": number("<|endoftext|>"),
        "rope_parameters": rope,
        "rope_scaling": {**rope, "type": "mrope"},
    }
    vision = {
        "depth": 2,
        "hidden_size": 64,
        "num_heads": 2,
        "intermediate_size": 128,
        "out_hidden_size": HIDDEN,
        "patch_size": PATCH,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 8 * PATCH,
        "fullatt_block_indexes": [1],
        "tokens_per_second": 2,
    }
    places = ("image_pad", "video_pad", "vision_start", "vision_end")
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    ids = {name: number(f"<|{place}|>") for name, place in zip(names, places, strict=True)}
    return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
