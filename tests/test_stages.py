"""Stages with data and models of their own: images first, then buckets with images among them, then frame packs."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from generator import recipes, systems
from generator.data import DataConfig, Row, chosen, frame_times, read_clip, read_rows
from generator.dit import sizes
from generator.draws import Draws
from generator.feed import Loading
from generator.material import Material
from generator.optimising import Training
from generator.recipe import Recipe, Stage
from generator.sample import sample_videos
from generator.systems.carry import carried, transplant
from generator.systems.cogvideox import CogVideoX
from generator.systems.moviegen import MovieGen
from generator.systems.stiv import Stiv
from generator.text import TextConfig
from generator.train import train
from generator.vae import sizes as vaes
from generator.vae.training import VaeLearner
from manifests.buckets import Buckets, Length
from manifests.store import Store
from tests.generator_films import draw_clip, one_thread, write_film  # noqa: F401  (used by being here)

TEXT = TextConfig(length=16, width=32)
BUCKETS = Buckets(aspects=("4:3", "1:1"), lengths=(Length("2s", 9, 2.0, crop=2.0), Length("1-2s", 5, 1.0, 2.0)))
SECONDS = [2.25, 1.5, 1.0, 2.25, 1.5, 0.5]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of 96 x 72, and of 72 x 72 every second; the last is too short for any bucket."""
    folder = tmp_path_factory.mktemp("clips")
    rows = []
    for number, seconds in enumerate(SECONDS):
        caption, frames = draw_clip(number, seconds)
        frames = [frame[:, 12:84].copy() for frame in frames] if number % 2 else frames
        film = folder / f"{number}.mp4"
        write_film(film, frames)
        width = frames[0].shape[1]
        row = {"clip_id": f"clip-{number}", "uri": str(film), "start_us": 0, "end_us": round(len(frames) / 16 * 1e6)}
        row |= {"caption": f"{caption} FPS-16", "sampled": True, "width": width, "height": 72, "aspect": width / 72}
        row |= {"fps": 16.0, "subsets": ["best"] if number < 2 else [], "bucket": None}
        rows.append(row)
    Store(folder).replace_table("clips.parquet", [pa.Table.from_pylist(rows)])
    return folder


def quiet(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
    pass


def material(rows: list[Row], config: DataConfig, folder: Path, keep: bool = True) -> Material:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Material(rows, config, folder, Loading(workers=2, keep=keep), quiet, "cpu")


def joint(**changes: Any) -> DataConfig:
    return DataConfig(**{"frames": 9, "size": 32, "fps": 4.5, "buckets": BUCKETS, **changes})


def test_clips_of_a_bucket_have_its_shape_and_tell_their_rate(manifest: Path, tmp_path: Path) -> None:
    rows = read_rows(manifest)
    with pytest.warns(UserWarning, match="1 of 6 clips fit no bucket"):
        found = {row.id: row for row in chosen(rows, joint())}
    assert {clip: row.bucket for clip, row in found.items()} == {
        "clip-0": "4:3/2s",
        "clip-1": "1:1/1-2s",
        "clip-2": "4:3/1-2s",
        "clip-3": "1:1/2s",
        "clip-4": "4:3/1-2s",
    }
    assert found["clip-0"].caption.endswith("FPS-4") and found["clip-2"].caption.endswith("FPS-5")
    assert found["clip-4"].caption.endswith("FPS-3"), "five frames of a second and a half"
    pixels = material(rows, joint(), tmp_path).pixels
    assert {clip: tuple(pixels[clip].shape) for clip in found} == {
        "clip-0": (9, 16, 32, 3),
        "clip-1": (5, 32, 32, 3),
        "clip-2": (5, 16, 32, 3),
        "clip-3": (9, 32, 32, 3),
        "clip-4": (5, 16, 32, 3),
    }
    times = frame_times(found["clip-4"], joint())
    assert times == [300_000 * k for k in range(5)]
    read = material(rows, joint(), tmp_path / "other", keep=False)
    assert torch.equal(read.pixels["clip-4"], pixels["clip-4"]) and not (tmp_path / "other").exists()


def test_a_wide_picture_is_covered_and_cut_in_its_middle(manifest: Path) -> None:
    row = next(row for row in read_rows(manifest) if row.id == "clip-0")
    whole, wide, tall = (
        read_clip(row, DataConfig(frames=1, size=height, width=width, fps=8.0)).astype(float)
        for height, width in ((36, 48), (24, 48), (36, 16))
    )
    assert wide.shape == (1, 24, 48, 3) and tall.shape == (1, 36, 16, 3)
    assert abs(wide - whole[:, 6:30]).mean() < 2 < abs(wide - whole[:, :24]).mean()
    assert abs(tall - whole[:, :, 16:32]).mean() < 2 < abs(tall - whole[:, :, :16]).mean()


def test_the_rate_in_a_caption_is_that_of_the_frames() -> None:
    row = Row("a", "v.mp4", 0, 2_000_000, "A cat. FPS-30")
    (simple,) = chosen([row], DataConfig(frames=9, fps=8.0))
    assert simple.caption == "A cat. FPS-8"
    (still,) = chosen([row], DataConfig(frames=1))
    assert still.caption == "A cat." and still.still
    (plain,) = chosen([replace(row, caption="A cat.")], DataConfig(frames=9, fps=8.0))
    assert plain.caption == "A cat.", "where rates do not vary, captions need not say them"


def test_images_are_those_of_the_manifest_or_middle_frames() -> None:
    clip, image = Row("a", "v.mp4", 0, 2_000_000, "A"), Row("b", "b.png", 0, 40_000, "B", still=True)
    both = DataConfig(frames=9, images=0.5)
    assert [row.id for row in chosen([clip], both)] == ["a", "a:still"]
    assert [row.id for row in chosen([clip, image], both)] == ["a", "b"]
    assert [row.id for row in chosen([clip, image], DataConfig(frames=9))] == ["a"]
    assert [row.id for row in chosen([clip, image], DataConfig(frames=1))] == ["a", "b"]
    assert frame_times(chosen([clip], both)[1], both) == [1_000_000]
    with pytest.raises(ValueError, match="are images; train on them with frames=1"):
        chosen([image], both)


def test_empty_subsets_and_buckets_are_refused(manifest: Path) -> None:
    rows = read_rows(manifest)
    assert [row.id for row in chosen(rows, joint(subset="best"))] == ["clip-0", "clip-1"]
    with pytest.raises(
        ValueError, match=r"none of the 6 sampled clips is in the subset 'worst'; the manifest has best"
    ):
        chosen(rows, joint(subset="worst"))
    long = Buckets(aspects=("1:1",), lengths=(Length("9s", 9, 9.0),))
    with pytest.raises(ValueError, match="none of the 6 sampled clips fits a bucket: pictures 1:1; lengths 9s"):
        chosen(rows, joint(buckets=long))


def test_names_of_the_manifest_count_where_they_are_these_buckets() -> None:
    rows = [Row(f"{k}", "v.mp4", 0, 2_100_000, "", aspect=4 / 3, bucket="1:1/2s") for k in range(2)]
    assert {row.bucket for row in chosen(rows, joint())} == {"1:1/2s"}
    other = [replace(rows[0], bucket="16:9/16s"), rows[1]]
    assert {row.bucket for row in chosen(other, joint())} == {"4:3/2s"}


def tiny(**changes: Any) -> Recipe:
    base = recipes.smoke()
    how = Training(steps=3, batch=2, lr=1e-3, warmup=1, checkpoint_every=2)
    dit = replace(sizes.cogvideox_debug(), num_layers=1, sample_height=4, sample_width=4, sample_frames=9)
    return replace(
        base,
        **{
            "name": "stages",
            "data": DataConfig(frames=9, size=32, fps=8.0),
            "system": CogVideoX(dit, TEXT, groups=2),
            "stages": (
                Stage(how, "t2i", data=DataConfig(frames=1, size=32)),
                Stage(how, "joint", data=joint(images=0.34, tokens=100)),
                Stage(how, "pack", data=joint(images=0.25, tokens=120, pack=True)),
                Stage(how, "sft", data=DataConfig(frames=9, size=32, fps=8.0, subset="best"), start="joint"),
            ),
            **changes,
        },
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_recipe_goes_through_its_stages_and_goes_on_where_it_was_stopped(manifest: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(phase: str, done: int, total: int, record: Mapping[str, Any]) -> None:
        if (phase, done) == ("pack", 2):
            raise Stopped

    vae = vaes_trained(manifest, tmp_path)
    out = train(manifest, tiny(), tmp_path / "whole", quiet, vae_from=vae)
    with pytest.raises(Stopped):
        train(manifest, tiny(), tmp_path / "parts", stop, vae_from=vae)
    train(manifest, tiny(), tmp_path / "parts", quiet, vae_from=vae)
    whole, parts = (
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (out, tmp_path / "parts")
    )
    assert [line["loss"] for line in whole] == [line["loss"] for line in parts]
    assert list(dict.fromkeys(line["model"] for line in whole)) == ["t2i", "joint", "pack", "sft"]
    assert (out / "stages" / "joint" / "transformer").is_dir() and not (out / "stages" / "pack").exists()
    system = systems.load(out)
    assert sample_videos(vaes_load(out), system, ["x"], tiny().shown, 2, 1.0, 0).shape == (1, 9, 32, 32, 3)


def vaes_trained(manifest: Path, tmp_path: Path) -> Path:
    import generator.interop as interop

    torch.manual_seed(0)
    vae: Any = vaes.build(tiny().vae)
    return interop.export(vae, tmp_path / "vae")


def vaes_load(out: Path) -> Any:
    import generator.interop as interop

    return interop.load(out / "vae")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_batches_keep_to_their_budget_of_tokens(manifest: Path, tmp_path: Path) -> None:
    vae: Any = vaes.build(tiny().vae)
    system = tiny().system.build()
    rows = read_rows(manifest)
    config = joint(tokens=100, images=0.25)
    shown = material(rows, config, tmp_path)
    shown.encode(vae, "x")
    tokens = shown.tokens(system, vae)
    # latents of 2 x 4 (16 x 32 pixels) and 4 x 4 are 2 and 4 tokens a latent frame; a text is 16
    assert tokens["4:3/2s"] == 3 * 2 + 16 and tokens["1:1/2s"] == 3 * 4 + 16 and tokens["4:3/image"] == 2 + 16
    seen = set()
    for (part,) in shown.batches(system, vae, 0, 2).parts(0, 24):
        shape = tuple(part.batch.latents.shape[3:])
        clip = shape[0] * shape[1] * shape[2] // 4 + 16
        assert part.world == len(part.batch.texts) == 100 // clip, "as many as the budget allows"
        assert part.slots == list(range(part.world))
        seen.add(shape)
    assert seen == {(3, 2, 4), (3, 4, 4), (2, 2, 4), (2, 4, 4), (1, 2, 4), (1, 4, 4)}
    small = material(rows, replace(config, tokens=20), tmp_path)
    small.encode(vae, "x")
    with pytest.raises(ValueError, match=r"one clip of bucket .* is \d+ tokens, more than the 20 of a batch"):
        small.batches(system, vae, 0, 2)


def test_every_fourth_batch_of_a_vae_is_images_where_that_is_asked(manifest: Path, tmp_path: Path) -> None:
    how = dataclasses.replace(recipes.tiny_moviegen().vae_stages[1], frames=0, images=0.25)
    torch.manual_seed(0)
    learner = VaeLearner(vaes.build(vaes.moviegen_tae_debug()), how)
    video = torch.rand(2, 3, 16, 16, 16) * 2 - 1
    tokens = []
    for step in range(8):
        learnt = learner.learn(video, Draws.of([0, 1], 0, "vae", step), step)
        tokens.append(learnt.tokens)
        assert learnt.loss.isfinite() and learnt.loss.requires_grad
    assert tokens == [16, 16, 16, 8] * 2, "two latents of a video, one of an image"
    seen = material(read_rows(manifest)[:5], DataConfig(frames=5, size=16, fps=8.0, images=0.5), tmp_path)
    shapes = [part.batch.shape[2] for (part,) in seen.videos(0, 2, images=0.25).parts(0, 8)]
    assert shapes == [5, 5, 5, 1] * 2, "images among the clips come in the same turns"
    assert [part.batch.shape[2] for (part,) in seen.videos(0, 2).parts(0, 4)] == [5] * 4
    with pytest.raises(ValueError, match="the images of VAE stages must be a share"):
        replace(recipes.tiny_moviegen(), vae_stages=(replace(how, images=1.0),))


def test_a_clip_that_cannot_be_read_any_more_is_left_out_and_said(manifest: Path, tmp_path: Path) -> None:
    rows = [row for row in read_rows(manifest) if row.id in ("clip-0", "clip-2")]
    lost = replace(rows[1], id="lost", uri=str(tmp_path / "gone.mp4"))
    read = material([*rows, lost], DataConfig(frames=5, size=32, fps=8.0), tmp_path, keep=False)
    with pytest.warns(UserWarning, match="clip lost is left out of training from now on"):
        videos = read.pixels.videos(["clip-0", "lost"])
    assert torch.equal(videos[0], videos[1])
    with pytest.raises(ValueError, match="none of the clips of a batch can be read any more"):
        read.pixels.videos(["lost"])


def test_missing_captions_are_counted_once(tmp_path: Path) -> None:
    rows = [
        {"clip_id": f"{k}", "uri": "v", "start_us": 0, "end_us": 9, "caption": None if k else "x", "sampled": True}
        for k in range(3)
    ]
    Store(tmp_path).replace_table("clips.parquet", [pa.Table.from_pylist(rows)])
    with pytest.warns(UserWarning, match="2 of 3 clips have no caption") as caught:
        assert [row.caption for row in read_rows(tmp_path)] == ["x", "", ""]
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"start": "later"}, "stage t2i must start from earlier stages"),
        ({"system": Stiv(sizes.stiv_debug(), TEXT)}, "a system of the recipe's kind"),
        ({"data": DataConfig(frames=4, size=32)}, r"4k \+ 1"),
    ],
    ids=["start", "kind", "frames"],
)
def test_stages_that_do_not_fit_are_refused(change: dict[str, Any], sentence: str) -> None:
    first, *others = tiny().stages
    with pytest.raises(ValueError, match=sentence):
        tiny(stages=(replace(first, **change), *others))


def test_position_tables_grow_from_stage_to_stage() -> None:
    torch.manual_seed(0)
    small = MovieGen(replace(sizes.moviegen_debug(), max_size=(1, 4, 4)), texts())
    large = replace(small, dit=replace(small.dit, max_size=(8, 8, 8)))
    old = small.build()
    new = carried(old, large)
    assert [tuple(table.shape) for table in new.transformer.positions] == [(8, 64)] * 3  # type: ignore[union-attr]
    assert torch.equal(new.transformer.positions[0][5], old.transformer.positions[0][0])  # type: ignore[index, union-attr]
    for name, tensor in old.state_dict().items():
        if "positions.0" not in name and "transformer.positions" not in name:
            assert torch.equal(new.state_dict()[name], tensor)


def texts() -> tuple[TextConfig, ...]:
    return tuple(TextConfig(length=16, width=width) for width in (32, 24, 16))


def test_dual_initialisation_takes_space_from_images_and_time_from_small_videos() -> None:
    torch.manual_seed(0)
    video = Stiv(replace(sizes.stiv_debug(), trained_size=(4, 2, 2)), TEXT)
    image = replace(video, dit=replace(video.dit, patch=(1, 2, 2), temporal=False, trained_size=(1, 4, 4)))
    large = replace(video, dit=replace(video.dit, trained_size=(4, 4, 4)))
    high, low = image.build(), video.build()
    new = carried(high, large)
    transplant(new, low)
    mine, of_images, of_videos = (s.transformer.state_dict() for s in (new, high, low))
    for name, tensor in mine.items():
        if ".temporal." in name:
            assert torch.equal(tensor, of_videos[name])
        elif name in of_images and of_images[name].shape == tensor.shape:
            assert torch.equal(tensor, of_images[name])
        else:
            assert name.startswith(("patch_embed", "proj_out")), "inflated over the two latents of a token"
    with pytest.raises(ValueError, match="it has none"):
        transplant(new, high)
    with pytest.raises(ValueError, match="cannot go on as"):
        carried(high, tiny().system)


def test_models_of_two_latents_in_time_are_given_images_whole(tmp_path: Path, manifest: Path) -> None:
    system = dataclasses.replace(tiny().system, dit=replace(tiny().system.dit, patch_size_t=2)).build()  # type: ignore[union-attr]
    vae: Any = vaes.build(tiny().vae)
    shown = material(read_rows(manifest), DataConfig(frames=1, size=32), tmp_path)
    shown.encode(vae, "x")
    ((part,),) = shown.batches(system, vae, 0, 2).parts(0, 1)
    assert part.batch.latents.shape == (2, 2, 4, 2, 4, 4)
    assert torch.equal(part.batch.latents[:, :, :, 0], part.batch.latents[:, :, :, 1])
