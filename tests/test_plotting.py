"""Figures that move."""

import io
import os
import subprocess
import sys

import matplotlib.pyplot as plt
from PIL import Image

from gptlib import plotting


def test_a_film_has_one_picture_per_frame_plays_once_and_closes_its_figure():
    fig, ax = plotting.figure(width=3, height=2)
    (line,) = ax.plot([], [], color="black", linewidth=4)
    ax.set(xlim=(0, 1), ylim=(0, 1))

    def draw(t):
        line.set_data([0, t / 2], [0.5, 0.5])

    film = Image.open(io.BytesIO(plotting.film(fig, draw, 3, milliseconds=50)))
    assert (film.format, film.n_frames, film.info["loop"]) == ("PNG", 3, 1)
    dark = []
    for t in range(3):
        film.seek(t)
        assert film.info["duration"] == 50
        dark.append(sum(film.convert("L").histogram()[:60]))
    assert dark[0] < dark[1] < dark[2]
    assert not plt.fignum_exists(fig.number)


def test_matplotlib_is_imported_by_the_first_figure_and_not_by_the_first_cell():
    program = """if True:
        import sys
        from gptlib import plotting
        assert "matplotlib" not in sys.modules
        plotting.figure()
        assert "matplotlib.pyplot" in sys.modules
    """
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                            env=os.environ | {"MPLBACKEND": "agg"})
    assert (result.returncode, result.stderr) == (0, "")
