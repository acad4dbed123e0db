"""The default recipe."""

from __future__ import annotations

from curation.recipe import Recipe
from filters.learned.consistency import TemporalConsistency
from filters.looks.aesthetics import PhotographicQuality
from filters.looks.blockiness import Blockiness
from filters.looks.borders import Letterbox
from filters.looks.colorfulness import Colorfulness
from filters.looks.contrast import Contrast
from filters.looks.exposure import Exposure
from filters.looks.grid_steps import GridSteps
from filters.looks.noise import Noise
from filters.looks.palette import Palette
from filters.looks.quantizer import Quantizer
from filters.looks.sharpness import Sharpness
from filters.motion.camera import CameraMotion
from filters.motion.flashes import Flashes
from filters.motion.flow_motion import FlowMotion
from filters.motion.shake import Shake
from filters.motion.slideshow import Slideshow
from filters.motion.stillness import Stillness
from filters.motion.vmaf import VmafMotion
from filters.people.faces import Faces
from filters.rules import Rule
from filters.shots.jitter import Jitter
from filters.tags.effects import Effects
from filters.tags.moire import Moire
from filters.tags.negative import NegativeTags
from filters.tags.screen import Screen
from filters.text.area import Text
from manifests.schema import TAG_NAMES
from manifests.types import Signal

SIGNALS: tuple[Signal, ...] = (
    VmafMotion(),
    FlowMotion(),
    Stillness(),
    CameraMotion(),
    Slideshow(),
    Shake(),
    Jitter(),
    Sharpness(),
    Exposure(),
    Contrast(),
    Colorfulness(),
    Palette(),
    Noise(),
    Blockiness(),
    GridSteps(),
    Quantizer(),
    Moire(),
    Flashes(),
    Letterbox(),
    PhotographicQuality(),
    TemporalConsistency(),
)
"""Everything that is measured during the walk without a model; the recipes of the four systems begin with it."""

TAG_SIGNALS: tuple[Signal, ...] = (Effects(), Faces(), Screen())
"""What the classifiers of negative tags read besides, for clips that the cheap rules keep."""


def tag_rules(high: float = 0.5) -> tuple[Rule, ...]:
    """One per negative tag; high: score from which a clip is rejected."""
    return tuple(Rule(name, f"tag_{name}", high=high, why=_WHY[name]) for name in TAG_NAMES)


def embedded() -> Recipe:
    """The default: everything that can be measured without downloading a model, and without a GPU.

    Command:  vidcurate run VIDEOS --out DIR
    Cost:     about two to two and a half times a plain decode of the same files on the same cores
    Expect:   most hand-made footage survives; frozen, shaking, blurred, dark, flat, blocky, bordered and
              text-dominated clips do not, nor do copies, screen recordings, lectures and reworked films
    Tags:     all six negative tags are measured; moves over a still picture are not rejected for lack of motion
              connectivity, as they are in `cogvideox`, for they may be all that a collection has; the other tags
              reject from 0.6, since half a trace is little reason to
    Numbers:  every threshold is ours, set on a small labelled collection so that clips that a person would reject fail
              and clips that a person would keep pass; the recipes of the four systems bring the published ones
    """
    return Recipe(
        name="embedded",
        signals=SIGNALS,
        costly=(Text(), *TAG_SIGNALS),
        derived=(NegativeTags(),),
        rules=(
            Rule(
                "min_duration", "duration_s", low=0.4, why="shorter shots are flashes; nothing can be learned from them"
            ),
            Rule("damaged", "corrupt_frames", high=0, why="the decoder flagged a frame of it as damaged"),
            Rule(
                "still", "static_fraction", high=0.5, why="frozen pictures and slides teach a generator to stand still"
            ),
            Rule("shaky", "shake", high=40.0, why="a hand gives 5 to 30; more cannot be watched"),
            Rule("jumpy", "cuts_per_s", high=0.85, why="Movie Gen B.1: over-segmented clips are jittery"),
            Rule("dark_or_burnt", "exposure", low=0.1, high=0.93, why="too dark or too bright to see"),
            Rule("flat", "contrast", low=0.12, why="blank pages, fog and plain screens"),
            Rule("blurred", "sharpness", low=0.4, why="out of focus or scaled up"),
            Rule("blocky", "blockiness", high=1.0, why="coding blocks are seen"),
            Rule("noisy", "noise", high=8.0, why="grain hides the picture"),
            Rule("letterbox", "letterbox_fraction", high=0.35, why="more border than a cinema format explains"),
            Rule("unsightly", "aesthetic_photo", low=0.45, why="several photographic measures are poor at once"),
            Rule("text", "text_area", high=0.05, why="titles, credits, pages, slides and burnt-in subtitles"),
            *(rule for rule in tag_rules(0.6) if rule.name != "no_motion_connectivity"),
        ),
    )


_WHY = {
    "editing": "artificial processing, re-editing, special effects",
    "no_motion_connectivity": "spliced or edited from stills, no coherent motion",
    "low_quality": "poorly shot, unclear, or shaking",
    "lecture": "one person talking, little else",
    "text_dominated": "much text in view",
    "noisy_screenshot": "filmed or grabbed from a screen",
}
