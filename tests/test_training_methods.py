"""Each way of training does what it says: optimisers, LoRA, recomputation, averages, what is logged and warned of."""

from __future__ import annotations

import dataclasses
import json
import shutil
import statistics
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
import diffusers
import torch
from torch import Tensor, nn

from generator import recipes, systems
from generator.averaging import average
from generator.boards import Boards
from generator.data import Row
from generator.draws import Draws
from generator.feed import Feed, Grouped, Unit
from generator.files import read_weights
from generator.heldout import split
from generator.interop import export
from generator.loop import Learnt, fit
from generator.lora import FILE, Adapter, Lora
from generator.optimising import Training, learning_rate, make_optimizer, plateaus
from generator.options import Options
from generator.parallel import ALONE
from generator.recipe import Recipe
from generator.recompute import compile_blocks, recompute
from generator.run import Run
from generator.systems.base import Batch, System
from generator.telling import Alarm, speed, strata, together
from generator.train import diffusion
from generator.vae import sizes as vaes
from tests.generator_films import one_thread  # noqa: F401  (used by being here)

KINDS = (recipes.tiny_cogvideox, recipes.tiny_moviegen, recipes.tiny_stiv, recipes.tiny_easyanimate)
HOW = Training(steps=6, batch=4, lr=1e-2, warmup=2, checkpoint_every=3)
ROWS = [Row(f"clip-{number}", "film.mp4", 0, 1, "") for number in range(7)]


def made(recipe: Recipe) -> System:
    torch.manual_seed(0)
    system = recipe.system.build()
    with torch.no_grad():
        for weight in system.parameters():  # out of the zeros that modulation starts with
            weight.add_(torch.randn_like(weight) * 0.02)
    return system


def batch_of(recipe: Recipe, count: int) -> Batch:
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(count, 2, recipe.vae.latent_channels, *recipe.latents, generator=draw) - 1
    texts = [f"A red circle {number}." for number in range(count)]
    return Batch(latents, texts, list(range(count)), lambda: torch.zeros(0), torch.ones(count, 6), count)


def losses(recipe: Recipe, system: System, step: int = 0, count: int = 2) -> Any:
    return system.losses(batch_of(recipe, count), Draws.of(list(range(count)), "test", step), count)


def words(units: list[Unit], slots: list[int], world: int) -> Tensor:
    return torch.stack(
        [torch.randn(3, generator=torch.Generator().manual_seed(int(clip.split("-")[1]))) for (clip,) in units]
    )


FEED = Feed(Grouped({"": [row.id for row in ROWS]}, {"": HOW.batch}, 0), words)


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def quiet(phase: str, done: int, total: int, record: Any) -> None:
    pass


def learn(model: nn.Module) -> Any:
    def losses(x: Tensor, draws: Draws, step: int) -> Learnt:
        each = (model(x + draws.normal(3)) - 1).square().mean(1)
        return Learnt(each.mean(), len(x), each=each, times=draws.uniform())

    return losses


def trained(out: Path, how: Training, stop: int = 0, **more: Any) -> dict[str, Tensor]:
    class KilledError(Exception):
        pass

    def report(name: str, done: int, total: int, record: Any) -> None:
        if done == stop:
            raise KilledError

    model = small()
    try:
        fit("dit", model, learn(model), FEED, how, Run(out, recipes.smoke(), ROWS, report), **more)
    except KilledError:
        return {}
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_optimisers_go_on_exactly(optimizer: str, tmp_path: Path) -> None:
    how = dataclasses.replace(HOW, optimizer=optimizer, ema=0.9)
    whole = trained(tmp_path / "whole", how)
    trained(tmp_path / "stopped", how, stop=4)
    assert same(trained(tmp_path / "stopped", how), whole)
    assert not same(whole, small().state_dict())


def test_adafactor_keeps_rows_and_columns_in_place_of_squares() -> None:
    weight = nn.Parameter(torch.randn(30, 40))
    optimizer = make_optimizer(dataclasses.replace(HOW, optimizer="adafactor", betas=(0.0, 0.999)), [weight])
    weight.square().sum().backward()
    optimizer.step()
    kept = sum(value.numel() for value in optimizer.state[weight].values() if isinstance(value, Tensor))
    assert kept <= 30 + 40 + 1, "AdamW keeps 2400"


def test_rates_are_constant_or_halve_where_validation_stands_still() -> None:
    constant = dataclasses.replace(HOW, schedule="constant", steps=100)
    assert [learning_rate(step, constant) for step in (0, 1, 2, 99)] == [0.5, 1.0, 1.0, 1.0]
    plateau = dataclasses.replace(constant, schedule="plateau", validate_every=1, patience=2)
    assert plateaus([3, 2, 1], 2) == 0 and plateaus([3, 4, 3], 2) == 1 and plateaus([3, 4, 3, 2, 5, 5], 2) == 2
    assert learning_rate(50, plateau, [3.0, 2.0, 2.5, 2.1]) == 0.5
    with pytest.raises(ValueError, match="validate_every must be at least 1"):
        dataclasses.replace(HOW, schedule="plateau")
    for field in ("optimizer", "schedule", "precision", "recompute"):
        with pytest.raises(ValueError, match=f"{field} must be one of"):
            dataclasses.replace(HOW, **{field: "x"})
    with pytest.raises(ValueError, match="need held_out above 0"):
        smoke = recipes.smoke()
        stage = dataclasses.replace(smoke.stages[0], training=dataclasses.replace(HOW, batch=8, validate_every=1))
        dataclasses.replace(smoke, stages=(stage,))


def test_a_stage_trains_the_weights_that_it_names_alone(tmp_path: Path) -> None:
    before, after = small().state_dict(), trained(tmp_path, HOW, only=("2.",))
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == {"2.weight", "2.bias"}


def test_a_plateau_halves_the_rate_and_a_resumed_run_remembers_it(tmp_path: Path) -> None:
    how = dataclasses.replace(HOW, schedule="plateau", validate_every=1, patience=2, warmup=1)

    def judge() -> dict[str, float]:
        return {"val_loss": 1.0}

    whole = trained(tmp_path / "whole", how, judge=judge)
    trained(tmp_path / "stopped", how, stop=4, judge=judge)
    assert same(trained(tmp_path / "stopped", how, judge=judge), whole)
    rates = [json.loads(line)["lr"] for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert rates == [0.01, 0.01, 0.01, 0.005, 0.005, 0.0025]


def test_passes_add_up_to_the_whole_batch(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", HOW)
    model = small()
    run = Run(tmp_path / "passes", recipes.smoke(), ROWS, quiet, options=Options(passes=2))
    fit("dit", model, learn(model), FEED, HOW, run)
    assert all(torch.allclose(weight, whole[name], atol=1e-6) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("named", KINDS)
def test_a_lora_trains_only_its_own_weights_and_merges(named: Any) -> None:
    recipe = named()
    system = made(recipe)
    before = {name: weight.clone() for name, weight in system.state_dict().items()}
    adapter = Adapter(system.transformer, Lora(rank=2, alpha=4))
    for name, weight in system.named_parameters():
        weight.requires_grad_("lora_" in name)
    optimizer = torch.optim.AdamW([weight for weight in system.parameters() if weight.requires_grad], lr=0.1)
    for step in range(2):
        optimizer.zero_grad()
        losses(recipe, system, step).mean.backward()
        optimizer.step()
    frozen = {name.replace(".base_layer", ""): w for name, w in system.state_dict().items() if "lora_" not in name}
    assert same(frozen, before), "what is not the LoRA's did not move"
    wanted = losses(recipe, system).each
    adapter.merge()
    assert system.state_dict().keys() == before.keys()
    assert torch.allclose(losses(recipe, system).each, wanted, rtol=1e-4), "merged weights say the same"
    moved = {name for name, weight in system.state_dict().items() if not torch.equal(weight, before[name])}
    assert moved and all(
        name.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")) for name in moved
    )


def test_diffusers_reads_a_lora_with_its_scale(tmp_path: Path) -> None:
    recipe = recipes.tiny_cogvideox()
    dit = dataclasses.replace(recipe.system.dit, use_rotary_positional_embeddings=False)
    system = made(dataclasses.replace(recipe, system=dataclasses.replace(recipe.system, dit=dit)))
    export(system.transformer, tmp_path / "transformer")
    theirs = diffusers.CogVideoXTransformer3DModel.from_pretrained(tmp_path / "transformer", local_files_only=True)
    adapter = Adapter(system.transformer, Lora(rank=2, alpha=6))
    for name, weight in system.transformer.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.3)
    file = adapter.write(tmp_path / "lora")
    assert file.name == FILE
    theirs.load_lora_adapter(str(tmp_path / "lora"), weight_name=FILE, prefix="transformer", local_files_only=True)
    x, text, t = torch.randn(1, 4, *recipe.latents), torch.randn(1, 16, 32), torch.tensor([500])
    said = theirs.eval()(x.transpose(1, 2), text, t).sample.transpose(1, 2)
    assert torch.allclose(system.transformer.eval()(x, t, text), said, atol=1e-4)
    adapter.merge()
    assert torch.allclose(system.transformer(x, t, text), said, atol=1e-4)
    with pytest.raises(ValueError, match="no linear map of the transformer is named to_x"):
        Adapter(system.transformer, Lora(targets=("to_x",)))


def kept_numbers(recipe: Recipe, system: System) -> tuple[int, list[Tensor]]:
    """Numbers that the forward pass keeps for the backward pass, and the gradients."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = losses(recipe, system).mean
    count = sum(kept.values())
    return count, list(torch.autograd.grad(loss, list(system.parameters()), allow_unused=True))


@pytest.mark.parametrize("named", KINDS)
def test_recomputing_blocks_keeps_less_and_learns_the_same(named: Any) -> None:
    recipe = named()
    system = made(recipe)
    keys = list(system.state_dict())
    kept_numbers(recipe, system)  # small tables are computed once in a process, and belong to no count
    count, wanted = kept_numbers(recipe, system)
    for what, share in {"all": 0.7, "all but attention": 0.8}.items():
        recompute(system.transformer, what)
        less, gradients = kept_numbers(recipe, system)
        assert less < share * count, what
        for gradient, whole in zip(gradients, wanted, strict=True):
            assert gradient is whole is None or torch.equal(gradient, whole), what
    recompute(system.transformer, "nothing")
    assert kept_numbers(recipe, system)[0] == count and list(system.state_dict()) == keys


def test_bfloat16_is_near_and_the_weights_stay_float32(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", HOW)
    rough = trained(tmp_path / "rough", dataclasses.replace(HOW, precision="bfloat16"))
    assert all(weight.dtype == torch.float32 for weight in rough.values())
    assert not same(whole, rough) and all(torch.allclose(rough[k], whole[k], atol=0.02) for k in whole)


@pytest.mark.slow
def test_compiled_blocks_learn_the_same() -> None:
    recipe = recipes.tiny_cogvideox()
    system = made(recipe)
    wanted = losses(recipe, system).each
    keys = list(system.state_dict())
    compile_blocks(system.transformer)
    assert torch.allclose(losses(recipe, system).each, wanted, rtol=1e-4) and list(system.state_dict()) == keys


def test_explicit_uniform_sampling_steadies_the_loss() -> None:
    """Of a model that says nothing, on latents three times as loud as noise: how wrong it is depends on the time."""
    recipe, count = recipes.tiny_cogvideox(), 8
    batch = batch_of(recipe, count)
    batch.latents[:, 0] *= 3
    batch.latents[:, 1] = -30

    def spread(groups: int) -> float:
        system: Any = dataclasses.replace(recipe.system, groups=groups).build()
        system.guess = lambda x, t, said, known, draws: (torch.zeros_like(x), None)
        found = [system.losses(batch, Draws.of(range(count), "steps", step), count).mean for step in range(60)]
        return statistics.stdev(map(float, found))

    assert spread(count) < 0.4 * spread(1)


def folder_of(out: Path, seed: int) -> Path:
    recipe = recipes.smoke()
    torch.manual_seed(7)
    vae = vaes.build(recipe.vae)
    torch.manual_seed(seed)
    system = recipe.system.build()
    systems.save(system, out)
    export(vae, out / "vae")
    (out / "train.json").write_text('{"recipe": {}}')
    return out


def test_an_average_is_the_mean(tmp_path: Path) -> None:
    folders = [folder_of(tmp_path / str(seed), seed) for seed in range(3)]
    out = average(folders, tmp_path / "mean")
    for name in ("transformer", "text_encoder"):
        each = [read_weights(folder / name) for folder in folders]
        mean = read_weights(out / name)
        assert mean.keys() == each[0].keys()
        for key, tensor in mean.items():
            assert torch.allclose(tensor, torch.stack([one[key] for one in each]).mean(0), atol=1e-6)
    assert json.loads((out / "train.json").read_text())["averaged"] == [str(folder) for folder in folders]
    assert systems.load(out).config == systems.load(folders[0]).config and (out / "vae").exists()
    with pytest.raises(ValueError, match="at least two"):
        average(folders[:1], tmp_path / "one")
    with pytest.raises(ValueError, match="exists; give a new folder"):
        average(folders, out)
    torch.manual_seed(8)
    shutil.rmtree(folders[2] / "vae")
    export(vaes.build(recipes.smoke().vae), folders[2] / "vae")
    with pytest.raises(ValueError, match="is another VAE than"):
        average(folders, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_films_are_held_out_whole_and_stay_held_out() -> None:
    def clips(films: int, name: str = "film") -> list[Row]:
        """Three of each."""
        return [
            Row(f"{name}-{n:03d}-{k}", "", 0, 1, "", film=f"{name}-{n:03d}") for n in range(films) for k in range(3)
        ]

    rows = clips(200)
    kept, held = split(rows, 0.1)
    assert 30 <= len(held) <= 96 and len(kept) + len(held) == 600
    assert not {row.film for row in kept} & {row.film for row in held}, "no film is on both sides"
    _, more_held = split([*rows, *clips(50, "new")], 0.1)
    assert {row.id for row in held} <= {row.id for row in more_held}, "also when the manifest grows"
    assert len(split(rows[:6], 0.001)[1]) == 3 and len(split(rows[:6], 0.999)[0]) == 3
    for large in (rows[:3], rows[3:6]):  # whichever has the lower hash, the larger is trained on
        film = large[0].film
        more = [*rows[:6], *(dataclasses.replace(large[0], id=f"more-{k}") for k in range(4))]
        assert {row.film for row in split(more, 0.5)[0]} == {film}
    assert split(rows, 0.0) == (rows, [])
    with pytest.raises(ValueError, match="the clips are all of one film"):
        split(rows[:3], 0.1)


def test_losses_are_told_by_quarter_of_the_noise() -> None:
    assert strata([1.0, 3.0, 5.0], [0.0, 0.24, 0.999]) == {"loss_t1": 2.0, "loss_t4": 5.0}
    assert strata([2.0], [1.0]) == {"loss_t4": 2.0}


def test_a_jump_of_the_loss_is_warned_of(tmp_path: Path) -> None:
    alarm = Alarm()
    steady = [alarm.heard(1.0 + 0.01 * (step % 7)) for step in range(40)]
    assert steady == [None] * 40
    said = alarm.heard(1.5)
    assert said is not None and said.startswith("the loss jumped to 1.5; the last 40 had a median of 1.03")
    assert alarm.heard(1.02) is None
    how, model = dataclasses.replace(HOW, steps=40, lr=1e-9, ema=0.0, checkpoint_every=40), small()

    def jumping(x: Tensor, draws: Draws, step: int) -> Learnt:
        return Learnt(model(x).square().mean() * 0 + (100.0 if step == 35 else 1.0 + step % 3 / 100), 1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit("dit", model, jumping, FEED, how, Run(tmp_path, recipes.smoke(), ROWS, quiet))
    assert [str(w.message) for w in caught if "jumped" in str(w.message)] == [
        "dit, step 36: the loss jumped to 100; the last 35 had a median of 1.01."
    ]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "warning" in line] == [36]


@pytest.mark.parametrize("named", KINDS)
def test_utilisation_is_what_is_counted_over_what_the_device_could_do(named: Any) -> None:
    recipe = named()
    learnt = diffusion(made(recipe), 2)(batch_of(recipe, 2), Draws.of([0, 1], "x"), 0)
    assert (
        learnt.each is not None and learnt.times is not None and bool(((learnt.times >= 0) & (learnt.times <= 1)).all())
    )
    if recipe.name == "tiny_stiv":
        assert learnt.flops is None, "half of the tokens are masked"
        return
    text = tuple(tower.config.length for tower in recipe.system.build().towers)
    from generator.dit.costs import cost

    assert learnt.flops == 2 * cost(recipe.system.dit, recipe.latents, text).training


def test_speed_is_that_of_all_processes_together() -> None:
    from generator.telling import Told

    told = [Told(1.0, [], [], {"l1": float(k)}, 3, 30, 6e9, 0.1 * k, False) for k in (1, 2)]
    said = speed(told, 2.0, "cpu", 12e9, processes=2)
    assert (said["samples_per_s"], said["tokens_per_s"], said["mfu"], said["data_share"]) == (3.0, 30.0, 0.25, 0.1)
    assert speed(told, 2.0, "cpu", None)["mfu"] == "n/a" and float(said["memory_gb"]) > 0.1
    assert together(told).parts == {"l1": 1.5}


def test_too_little_memory_is_told_with_the_remedy(tmp_path: Path) -> None:
    model = small()

    def greedy(x: Tensor, draws: Draws, step: int) -> Learnt:
        if step == 4:
            torch.empty(10**15)
        return learn(model)(x, draws, step)

    run = Run(tmp_path, recipes.smoke(), ROWS, quiet)
    with pytest.raises(ValueError, match="dit step 5 does not fit into the memory of cpu; go on with --passes 2"):
        fit("dit", model, greedy, FEED, HOW, run)
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["dit-00000003.safetensors"]


def test_tensorboard_has_the_numbers(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    boards = Boards(tmp_path, tensorboard=True)
    boards.write({"step": 3, "model": "dit", "loss": 0.5, "mfu": "n/a"})
    boards.close()
    read = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert read.Tags()["scalars"] == ["dit/loss"]
    assert [(event.step, event.value) for event in read.Scalars("dit/loss")] == [(3, 0.5)]


def test_a_missing_board_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--wandb needs a library: pip install 'vidcurate\[wandb\]'"):
        Boards(tmp_path, wandb="project")


def test_a_world_alone_agrees_with_itself() -> None:
    assert ALONE.gather(3) == [3] and ALONE.agree("x") == "x" and ALONE.slots(3) == [[0, 1, 2]]
