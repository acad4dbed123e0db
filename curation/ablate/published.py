"""What the papers say of their own ablations, to stand beside what a comparison here finds.

Theirs are models of billions of weights on millions of clips, measured otherwise than here: a direction to compare
with, not a number to reach.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """paper: who and where. choice: what was varied. found: what they report. command: of the same choice here."""

    paper: str
    choice: str
    found: str
    command: str

    @property
    def sides(self) -> list[str]:
        """The choices here, as `--model` takes them."""
        words = shlex.split(self.command) if self.command.startswith("--") else []
        return [value for option, value in zip(words[::2], words[1::2], strict=True) if option == "--model"]


_COG, _MOVIE = "CogVideoX, arXiv 2408.06072", "Movie Gen, arXiv 2410.13720"
_STIV, _EASY = "STIV, arXiv 2412.07730", "EasyAnimate, arXiv 2405.18991"

PUBLISHED = (
    Published(_COG, "rotary or sinusoidal positions", "rotary has the lower loss and FVD (curves)",
              "--model system.dit.use_rotary_positional_embeddings=false"),
    Published(_COG, "expert adaptive layer norm or one for both", "expert is better than none (curves)",
              "--model system.dit.expert_norm=false"),
    Published(_COG, "expert norms, or weights of their own for text and video (MMDiT)", "expert norms are better than "
              "MMDiT of as many parameters; one of as many layers and twice the parameters is plotted beside (curves)",
              "--model system.dit.separate_weights=true --model 'system.dit.separate_weights=true "
              "system.dit.num_layers=2'"),
    Published(_COG, "3D full or 2D + 1D attention", "3D is better and more stable (curves)",
              "--model system.dit.full_attention=false"),
    Published(_COG, "explicit uniform sampling or none", "validation loss at t = 100, 300, 500, 700, 900: .216 .126 "
              ".116 .129 .157 with, .222 .130 .119 .133 .161 without (table 9)", "--model system.groups=1"),
    Published(_COG, "VAE of 8 x 8 x 4: latent channels", "flicker and PSNR: 8 channels 87.6 and 27.2 dB, 16 channels "
              "86.3 and 28.7 dB (chosen), 32 channels 87.7 and 30.5 dB (table 1)", "--model vae.latent_channels=8"),
    Published(_COG, "VAE of 32 channels: 8 x 8 x 4 or 8 x 8 x 8", "flicker and PSNR: 87.7 and 30.5 dB, 87.8 and 29.0 "
              "dB (table 1)", "--model vae.temporal_compression_ratio=8"),
    Published(_MOVIE, "flow matching or v-prediction", "net win rate of flow matching: quality +16.53 %, text "
              "alignment +7.08 %", "--model system.objective=flow"),
    Published(_MOVIE, "LLaMa3-like or DiT blocks", "net win rate of LLaMa3-like: quality +18.63 %, text alignment "
              "+12.60 %", "--recipe tiny_moviegen --model system.dit.plain=true"),
    Published(_MOVIE, "captions of videos or of frames, rewritten", "net win rate of video captions: quality -0.80 %, "
              "text alignment +10.80 %", "none: caption twice with --how, then vidcurate compare"),
    Published(_MOVIE, "autoencoder of 2.5D or 3D", "3D has +0.29 dB of PSNR, but FID 4.715 against 3.678; 2.5D kept",
              "--recipe tiny_moviegen --model vae.full_3d=true"),
    Published(_MOVIE, "outlier penalty or none", "PSNR of videos 31.93 dB with, 31.11 dB without; FID of images .614 "
              "with, .568 without", "--recipe tiny_moviegen --model vae_stages.vae.loss.outliers=1"),
    Published(_STIV, "queries and keys normalised or not", "GenEval .372 with, .358 without; FID 25.60 and 26.17 "
              "(table 2)", "--recipe tiny_stiv --model system.dit.qk_norm=false"),
    Published(_STIV, "norms after the sub-layers too (sandwich) or before alone", "GenEval .366 with, .372 without; "
              "FID 25.76 and 25.60 (table 2)", "--recipe tiny_stiv --model system.dit.sandwich=false"),
    Published(_STIV, "parts of the condition normalised or not", "GenEval .393 with, .366 without; FID 25.58 and 25.76 "
              "(table 2)", "--recipe tiny_stiv --model system.dit.condition_norm=false"),
    Published(_STIV, "flow matching or noise schedule", "FID 24.96 with, 26.35 without; GenEval .457 and .379 (table "
              "2)", "--model system.objective=flow"),
    Published(_STIV, "AdaFactor or AdamW", "FID 20.26 and 21.16; GenEval .474 and .471, at less memory (table 2)",
              "--recipe tiny_stiv --model stages.dit.training.optimizer=adafactor"),
    Published(_STIV, "half of the tokens masked or none", "FID 23.85 with, 20.26 without; GenEval .499 and .474, at "
              "less memory (table 2)", "--recipe tiny_stiv --model system.masked=0"),
    Published(_STIV, "one adaptive norm for all layers or one for each", "FID 22.83 shared, 23.85 each; GenEval .496 "
              "and .499, at less memory (table 2)", "--recipe tiny_stiv --model system.dit.shared_norm=false"),
    Published(_STIV, "micro-conditions or none", "FID 20.02 with, 22.83 without; GenEval .498 and .496 (table 2)",
              "--recipe tiny_stiv --model system.dit.micro=false"),
    Published(_STIV, "rotary positions or sinusoids", "FID 18.40 rotary, 20.02 sinusoids; GenEval .502 and .498 (table "
              "2)", "--recipe tiny_stiv --model system.dit.rotary=false"),
    Published(_STIV, "temporal patch of 1, 2 or 4", "VBench total 79.07, 78.25, 77.61",
              "--recipe tiny_stiv --model system.dit.patch=1,2,2 --model system.dit.patch=4,2,2"),
    Published(_STIV, "temporal attention to all frames or to earlier ones", "VBench total 78.25 all, 74.30 causal",
              "--recipe tiny_stiv --model system.dit.causal=true"),
    Published(_STIV, "shift, scale and gate in temporal attention or none", "VBench total 78.04 with, 78.25 without",
              "--recipe tiny_stiv --model system.dit.temporal_modulation=true"),
    Published(_STIV, "no loss on the given first frame, or it kept (FFL)", "VBench-I2V average of cross-attention "
              "to the image 73.0 without, 72.0 with; dynamic degree 42.4 and 29.7 (table 3)",
              "--recipe tiny_stiv --model system.count_given=true"),
    Published(_STIV, "image condition dropped in 8 % of the samples or never", "with it dynamic degree 24.0, without "
              "10.2 (M, 512 pixels, with joint guidance); text alone fails without it: VBench total 80.7 and 66.1",
              "--recipe tiny_stiv --model system.dropping.image=0"),
    Published(_STIV, "first frame replaced, or attended to (CA)", "VBench-I2V average 77.3 replaced, 73.0 attended "
              "to (table 3)", "none: attention to the image is not in the model"),
    Published(_EASY, "long skips (U-ViT) or none", "without them the loss of a deep model jumped from .05 to .2, then "
              "to 1.0", "--recipe tiny_easyanimate --model system.dit.skips=false"),
    Published(_EASY, "temporal and global attention, or temporal alone", "(no numbers)",
              "--recipe tiny_easyanimate --model system.dit.motion_odd=temporal,temporal"),
)  # fmt: skip


def found_for(side: str) -> list[Published]:
    """What the papers found of the choice that a side makes."""
    return [published for published in PUBLISHED if side in published.sides]
