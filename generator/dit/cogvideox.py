"""The expert transformer of CogVideoX (arXiv 2408.06072, section 2.2), in one file.

Text and video tokens run through the same weights as one sequence with full attention; what tells them apart is the
"expert" adaptive layer norm, which has its own shift, scale and gate for each of the two. Positions are 3D rotary
(5B, 1.5), fixed sinusoids (2B) or rotary with a learned table (5B image-to-video).

Parameter names and configuration are those of diffusers' `CogVideoXTransformer3DModel`, one to one.
"""

# mypy: disable-error-code="no-any-return, no-untyped-call"

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.dit import packing
from generator.dit.layers import FeedForward, TimestepEmbedding, joined, modulated, patches_of, zeroed
from generator.dit.packing import Layout, Rows, apart, attention
from generator.dit.positions import (
    Rotation,
    integer_grid,
    rotary_angles,
    rotate,
    rotation,
    sincos_box,
    sincos_table,
)
from generator.dit.sequence import Divide, Parts, together, whole


@dataclass(frozen=True, slots=True)
class DitConfig:
    """Fields and defaults of diffusers' config.json (those of CogVideoX-2B).

    sample_width, sample_height: of the latents. sample_frames: of the video, 4k + 1 for k + 1 latents. patch_size_t:
    latents per token in time; None is the 1.0 layout (a 2D patch), a number the 1.5 layout. ofs_embed_dim: width of
    the "ofs" condition of the 1.5 image-to-video model.

    Raises ValueError for values this class does not implement.
    """

    num_attention_heads: int = 30
    attention_head_dim: int = 64
    in_channels: int = 16
    out_channels: int = 16
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    time_embed_dim: int = 512
    ofs_embed_dim: int | None = None
    text_embed_dim: int = 4096
    num_layers: int = 30
    dropout: float = 0.0
    attention_bias: bool = True
    sample_width: int = 90
    sample_height: int = 60
    sample_frames: int = 49
    patch_size: int = 2
    patch_size_t: int | None = None
    temporal_compression_ratio: int = 4
    max_text_seq_length: int = 226
    activation_fn: str = "gelu-approximate"
    timestep_activation_fn: str = "silu"
    norm_elementwise_affine: bool = True
    norm_eps: float = 1e-5
    spatial_interpolation_scale: float = 1.875
    temporal_interpolation_scale: float = 1.0
    use_rotary_positional_embeddings: bool = False
    use_learned_positional_embeddings: bool = False
    patch_bias: bool = True

    def __post_init__(self) -> None:
        if self.activation_fn != "gelu-approximate" or self.timestep_activation_fn != "silu":
            raise ValueError(
                f"activations {self.activation_fn!r} and {self.timestep_activation_fn!r} are not supported; CogVideoX "
                "uses gelu-approximate and silu."
            )
        if not self.flip_sin_to_cos or self.freq_shift:
            raise ValueError("flip_sin_to_cos must be true and freq_shift 0, as in every CogVideoX checkpoint.")
        if self.attention_head_dim % 16:
            raise ValueError(
                f"attention_head_dim {self.attention_head_dim} must be a multiple of 16, to be split over time, height "
                "and width as 2 : 3 : 3 pairs."
            )
        if self.use_learned_positional_embeddings and not self.use_rotary_positional_embeddings:
            raise ValueError("use_learned_positional_embeddings needs use_rotary_positional_embeddings.")

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def sample_latents(self) -> int:
        """Latents in time of the video length trained on."""
        return (self.sample_frames - 1) // self.temporal_compression_ratio + 1


class PatchEmbed(nn.Module):
    """Linear maps of latent patches and of text embeddings to tokens."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config = config
        patch, channels = config.patch_size, config.in_channels
        self.proj: nn.Module
        if config.patch_size_t is None:
            self.proj = nn.Conv2d(channels, config.width, patch, stride=patch, bias=config.patch_bias)
        else:
            self.proj = nn.Linear(channels * config.patch_size_t * patch * patch, config.width)
        self.text_proj = nn.Linear(config.text_embed_dim, config.width)
        if config.use_learned_positional_embeddings:
            size = (config.sample_latents, config.sample_height // patch, config.sample_width // patch)
            scale = (config.temporal_interpolation_scale, *(config.spatial_interpolation_scale,) * 2)
            table = sincos_table(integer_grid(*size) / torch.tensor(scale), config.width)
            table = torch.cat([torch.zeros(config.max_text_seq_length, config.width), table])
            # A buffer upstream too: the published weights store it, but its training is not part of the model class.
            self.register_buffer("pos_embedding", table[None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) -> (B, N, width)."""
        patch, time = self.config.patch_size, self.config.patch_size_t
        if time is None:
            tokens = self.proj(x.transpose(1, 2).flatten(0, 1)).flatten(2)
            return tokens.unflatten(0, (x.shape[0], x.shape[2])).transpose(2, 3).flatten(1, 2)
        x = x.unflatten(4, (-1, patch)).unflatten(3, (-1, patch)).unflatten(2, (-1, time))
        return self.proj(x.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3))


class ExpertNorm(nn.Module):
    """Layer norm with shift, scale and gate from the timestep, one set for video and one for text."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.time_embed_dim, 6 * config.width)
        self.norm = nn.LayerNorm(config.width, config.norm_eps, config.norm_elementwise_affine)

    def forward(
        self, text: Tensor, video: Tensor, emb: Tensor, pack: Layout | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the modulated sequence [text; video], the gate of text tokens and that of video tokens.

        emb: (B, time_embed_dim), of a pack one for each clip."""
        of_video, of_words = self.linear(F.silu(emb)).chunk(2, dim=-1)
        if pack is None:
            of_video, of_words = of_video[:, None], of_words[:, None]
        else:
            of_video, of_words = pack.of_video(of_video), pack.of_words(of_words)
        shift, scale, gate = of_video.chunk(3, dim=-1)
        text_shift, text_scale, text_gate = of_words.chunk(3, dim=-1)
        text = modulated(self.norm(text), text_shift, text_scale)
        video = modulated(self.norm(video), shift, scale)
        return torch.cat([text, video], dim=1), text_gate, gate


class JointAttention(nn.Module):
    """Full self-attention over text and video; queries and keys are normalised per head, then rotated."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.num_attention_heads
        self.to_q = nn.Linear(width, width, bias=config.attention_bias)
        self.to_k = nn.Linear(width, width, bias=config.attention_bias)
        self.to_v = nn.Linear(width, width, bias=config.attention_bias)
        self.norm_q = nn.LayerNorm(config.attention_head_dim, eps=1e-6)
        self.norm_k = nn.LayerNorm(config.attention_head_dim, eps=1e-6)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor, by: Rotation | None, attend: Any = None, parts: Parts | None = None) -> Tensor:
        q, k, v = (to(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
        q, k = self.norm_q(q), self.norm_k(k)
        if by is not None:
            q, k = rotate(q, by), rotate(k, by)
        if parts is not None:
            k, v = parts.keys(k, v)
        return self.to_out[0](attention(q, k, v, attend).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.norm1 = ExpertNorm(config)
        self.attn1 = JointAttention(config)
        self.norm2 = ExpertNorm(config)
        self.ff = FeedForward(config.width, dropout=config.dropout)

    def forward(
        self,
        text: Tensor,
        video: Tensor,
        emb: Tensor,
        by: Rotation | None,
        pack: Layout | None = None,
        parts: Parts | None = None,
    ) -> tuple[Tensor, Tensor]:
        """text: (B, L, width). video: (B, N, width)."""
        length = text.shape[1]
        normed, text_gate, gate = self.norm1(text, video, emb, pack)
        seen = self.attn1(together(normed, parts), by, pack and pack.attend, parts)
        text, video = torch.addcmul(text, text_gate, seen[:, :length]), torch.addcmul(video, gate, seen[:, length:])
        normed, text_gate, gate = self.norm2(text, video, emb, pack)
        said = self.ff(together(normed, parts))
        return torch.addcmul(text, text_gate, said[:, :length]), torch.addcmul(video, gate, said[:, length:])


class FinalNorm(nn.Module):
    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.time_embed_dim, 2 * config.width)
        self.norm = nn.LayerNorm(config.width, config.norm_eps, config.norm_elementwise_affine)

    def forward(self, x: Tensor, emb: Tensor, pack: Layout | None = None) -> Tensor:
        both = self.linear(F.silu(emb))
        shift, scale = (both[:, None] if pack is None else pack.of_video(both)).chunk(2, dim=-1)
        return modulated(self.norm(x), shift, scale)


class CogVideoXTransformer(nn.Module):
    """Predicts v (see `generator.objectives`) from a noisy latent, its timestep and the text."""

    divide: Divide | None

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        self.config, self.divide = config, None
        self.patch_embed = PatchEmbed(config)
        self.embedding_dropout = nn.Dropout(config.dropout)
        self.time_embedding = TimestepEmbedding(config.width, config.time_embed_dim)
        if config.ofs_embed_dim:
            self.ofs_embedding = TimestepEmbedding(config.ofs_embed_dim, config.ofs_embed_dim)
        self.transformer_blocks = nn.ModuleList([Block(config) for _ in range(config.num_layers)])
        self.norm_final = nn.LayerNorm(config.width, config.norm_eps, config.norm_elementwise_affine)
        self.norm_out = FinalNorm(config)
        self.proj_out = nn.Linear(
            config.width, config.out_channels * (config.patch_size_t or 1) * config.patch_size * config.patch_size
        )
        # Zero modulation: every block starts as the identity (adaLN-Zero of DiT, arXiv 2212.09748).
        zeroed(*(norm.linear for norm in self.modules() if isinstance(norm, ExpertNorm | FinalNorm)))

    def forward(
        self,
        x: Any,
        t: Tensor,
        text: Tensor,
        grid: Tensor | None = None,
        ofs: Tensor | None = None,
        condition: Tensor | None = None,
        rows: Rows | None = None,
        flex: bool = False,
    ) -> Any:
        """x: (B, in_channels, F, H, W) scaled latents; t: (B,) in 0..999; text: (B, L, text_embed_dim).

        grid: (N, 3) time, row and column of each token where they are not the integers from 0, N = F / patch_size_t *
        H / patch_size * W / patch_size. ofs: (B,), for models with `ofs_embed_dim` (2.0 at inference). condition: more
        channels, (B, C, F, H, W), put after those of x: `generator.dit.conditions.first_frame` of an image.
        Returns (B, out_channels, F, H, W). Raises ValueError for other shapes and sizes that the patches do not divide.

        rows: a frame pack (see `generator.dit.packing`): then x is a list of clips (in_channels, F, H, W), t and text
        have one for each, and a list of (out_channels, F, H, W) is returned. flex: with FlexAttention.
        """
        if rows is not None:
            return self._packed(x, t, text, rows, flex)
        config = self.config
        x = x if condition is None else torch.cat([x, condition], dim=1)
        patch = (config.patch_size_t or 1, config.patch_size, config.patch_size)
        fits = text.ndim == 3 and text.shape[2] == config.text_embed_dim
        wanted = f"text (B, L, {config.text_embed_dim}), got {tuple(text.shape)}"
        size = patches_of(x, patch, config.in_channels, wanted, fits)
        if (ofs is None) == bool(config.ofs_embed_dim):
            raise ValueError("ofs must be given exactly for models with ofs_embed_dim.")

        emb = self.time_embedding(t)
        if ofs is not None:
            emb = emb + self.ofs_embedding(ofs)
        words, video = self._placed(self.patch_embed.text_proj(text), self.patch_embed(x), size, grid)
        words, video = self.embedding_dropout(words), self.embedding_dropout(video)
        by = None
        if config.use_rotary_positional_embeddings:  # text stays where it is: its angles are zero
            places = integer_grid(*size, device=x.device) if grid is None else grid
            by = rotation(F.pad(rotary_angles(places, config.attention_head_dim), (0, 0, text.shape[1], 0)))
        return joined(self._through(words, video, emb, by, None), size, patch)

    def _through(self, words: Tensor, video: Tensor, emb: Tensor, by: Rotation | None, pack: Layout | None) -> Tensor:
        """All blocks: tokens -> patches of the prediction, (B, N, elements)."""
        parts = None if self.divide is None else self.divide(video.shape[1], words.shape[1])
        if parts is not None:
            words, video = parts.my_words(words, 1), parts.mine(video, 1)
            by = None if by is None else (parts.queried(by[0], by[0].ndim - 2), parts.queried(by[1], by[1].ndim - 2))
            pack = None if pack is None else pack.divided(parts)
        for block in self.transformer_blocks:
            words, video = block(words, video, emb, by, pack, parts)
        return whole(self.proj_out(self.norm_out(self.norm_final(video), emb, pack)), 1, parts)

    def _packed(self, clips: Sequence[Tensor], t: Tensor, text: Tensor, rows: Rows, flex: bool) -> list[Tensor]:
        config = self.config
        patch = (config.patch_size_t or 1, config.patch_size, config.patch_size)
        fits = text.ndim == 3 and text.shape[2] == config.text_embed_dim and len(text) == len(clips)
        wanted = f"text ({len(clips)}, L, {config.text_embed_dim}), got {tuple(text.shape)}"
        sizes = [patches_of(clip[None], patch, config.in_channels, wanted, fits) for clip in clips]
        if config.ofs_embed_dim:
            raise ValueError("models with ofs_embed_dim take no frame packs.")
        emb, words = self.time_embedding(t), self.patch_embed.text_proj(text)
        placed = [
            self._placed(words[k : k + 1], self.patch_embed(clip[None]), size, None)
            for k, (clip, size) in enumerate(zip(clips, sizes, strict=True))
        ]
        texts, videos = [said[0] for said, _ in placed], [seen[0] for _, seen in placed]
        pack = Layout.of(rows, texts, videos, flex)
        by = None
        if config.use_rotary_positional_embeddings:
            angles = [rotary_angles(integer_grid(*n, device=t.device), config.attention_head_dim) for n in sizes]
            by = rotation(F.pad(packing.together(rows, angles), (0, 0, pack.words.shape[1], 0))[:, None])
        said, seen = (self.embedding_dropout(packing.together(rows, tokens)) for tokens in (texts, videos))
        out = self._through(said, seen, emb, by, pack)
        each = apart(rows, out, [len(video) for video in videos])
        return [joined(tokens[None], size, patch)[0] for tokens, size in zip(each, sizes, strict=True)]

    def _placed(
        self, words: Tensor, video: Tensor, size: tuple[int, int, int], grid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Text and video tokens with the positions that are added to them, if any."""
        config, text = self.config, words.shape[1]
        if config.use_learned_positional_embeddings:
            table = self.patch_embed.pos_embedding
            assert isinstance(table, Tensor)
            if text != config.max_text_seq_length or text + video.shape[1] != table.shape[1]:
                raise ValueError(
                    f"this model has a learned position table for {config.max_text_seq_length} text and "
                    f"{table.shape[1] - config.max_text_seq_length} video tokens, got {text} and {math.prod(size)}."
                )
            return words + table[:, :text].to(words.dtype), video + table[:, text:].to(video.dtype)
        if config.use_rotary_positional_embeddings:
            return words, video
        scale = (config.temporal_interpolation_scale, *(config.spatial_interpolation_scale,) * 2)
        if grid is None:
            time, rows, columns = (torch.arange(n, device=video.device) / by for n, by in zip(size, scale, strict=True))
            table = sincos_box(time, rows, columns, config.width)
        else:
            table = sincos_table(grid / grid.new_tensor(scale), config.width)
        return words, video + table.to(video.dtype)
