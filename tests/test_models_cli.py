"""`vidcurate models`: the figures of a model on one line, and what it does not know."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from curation.cli import app


def lines(*names: str) -> list[str]:
    done = CliRunner().invoke(app, ["models", *names], catch_exceptions=False)
    assert done.exit_code == 0
    return [" ".join(line.replace("│", " ").split()) for line in done.stdout.splitlines()]


def test_a_model_is_a_line_with_its_weights_tokens_and_operations() -> None:
    said = lines("moviegen_30b", "stiv_debug", "pixart")
    assert "moviegen_30b 768 x 768, 256 frames 29.3 G 73,728 256 + 256 + 100 10.21 PFLOP" in said
    assert "pixart_alpha 512 x 512, an image 610.9 M 1,024 120 1.236 TFLOP" in said
    assert any(line.startswith("stiv_debug 32 x 32, 8 frames 409.9 k 16 16") for line in said)
    assert any(line.startswith("stiv_debug 32 x 32, 8 frames 67.23 k 4 x 8 x 4 x 4") for line in said), "its VAE"
    assert not any("cogvideox" in line for line in said)


def test_a_name_that_there_is_not_is_answered_by_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no model is called like gpt; there are cogvideox_2b, .*stiv_m"):
        lines("gpt")
