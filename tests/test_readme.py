"""The README tells the truth: its tour runs, its commands and files exist."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_the_tour_runs_and_learns():
    (tour,) = blocks("python")
    result = subprocess.run([sys.executable, "-W", "error", "-c", tour], cwd=ROOT,
                            capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    losses = [float(loss) for _, loss in re.findall(r"^(\d+) (\d+\.\d)$", result.stdout, re.M)]
    assert len(losses) == 4 and losses[-1] < losses[0]
    bits = float(re.search(r"bits per byte on unseen text: (\d\.\d)", result.stdout)[1])
    assert 2.0 < bits < 3.0, f"{bits} bits per byte"
    assert len(result.stdout.splitlines()[5:]) >= 1, "the model wrote nothing"


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    installation = (ROOT / "book" / "installation.md").read_text(encoding="utf-8")
    for target in re.findall(r"(?:`|^)make (\w+)", README + installation, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"make {target}"


def test_every_file_and_folder_that_is_named_exists():
    named = re.findall(r"`((?:[\w.-]+/)+[\w.-]*|LICENSE|\w+\.(?:txt|yml|toml))`", README)
    assert len(named) >= 8
    for name in named:
        example = "NN_M" in name
        assert example or (ROOT / name).exists(), name


def test_the_address_of_the_repository_stands_in_one_place_only():
    assert "github.com/" not in README, "take it from _config.yml"


def test_every_picture_has_a_text_and_exists():
    for alt, name in re.findall(r"!\[(.*?)\]\((.*?)\)", README):
        assert len(alt) >= 30 and (ROOT / name).exists(), name
