"""Text and image encoders with random weights, a few thousand each, saved in the layouts in which large ones are."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

SENTENCE = "a red circle moves right on the blue sea while small boats drift by under clouds and birds turn left"


def t5(folder: Path, seed: int = 0) -> Path:
    """`text_encoder` and `tokenizer` side by side, as in a CogVideoX pipeline, the vocabulary as a spiece.model."""
    import sentencepiece

    tokens = folder / "tokenizer"
    tokens.mkdir(parents=True)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([SENTENCE] * 8),
        model_prefix=str(tokens / "spiece"),
        vocab_size=34,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (tokens / "spiece.vocab").unlink()
    (tokens / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))
    return _t5_network(folder / "text_encoder", 34, seed)


def byt5(folder: Path) -> Path:
    transformers.ByT5Tokenizer().save_pretrained(folder)
    return _t5_network(folder, 384, 0)


def _t5_network(folder: Path, vocabulary: int, seed: int) -> Path:
    torch.manual_seed(seed)
    config = transformers.T5Config(
        vocab_size=vocabulary,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        initializer_factor=4.0,
    )
    transformers.T5EncoderModel(config).eval().save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    """Text and vision towers in one folder; the vocabulary is CLIP's bytes, without merges."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: k for k, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    torch.manual_seed(0)
    last = len(vocabulary) - 1
    text = {"vocab_size": len(vocabulary), "eos_token_id": last, "bos_token_id": last - 1, "pad_token_id": last}
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    small["initializer_factor"] = 10.0
    vision = {**small, "image_size": 32, "patch_size": 8, "projection_dim": 16}
    config = transformers.CLIPConfig(text_config={**small, **text}, vision_config=vision, projection_dim=16)
    transformers.CLIPModel(config).eval().save_pretrained(folder)
    return folder
