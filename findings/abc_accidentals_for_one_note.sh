#!/usr/bin/env bash
# music21 10.5.1 and verovio 6.4.1, reading a tune in ABC notation.
# Expected: as on paper and as in the ABC standard, a sharp written before a note holds to the
#   end of the bar: "^F F G F | F" sounds F sharp, F sharp, G, F sharp, and F after the bar line.
# Happens: both take the sharp for the one note only, so the later F of the bar are natural.
#   music21 does it right if the first line is "%abc-2.1", which tune books seldom have (none of
#   the 1,146 ABC files that come with music21); for verovio that line changes nothing.
# Matters: these are the two usual ways from ABC to MIDI or MusicXML. A set of notes made so
#   holds wrong pitches in every tune with accidentals, a model learns them, and a second reader
#   that errs alike confirms them. Judge by a third reader, or put the accidental before each
#   note.
# Documented: no; music21's side is known upstream (music21 issue 386).
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="$(command -v python3.11 || command -v python3)"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -qq --no-compile --disable-pip-version-check \
    music21==10.5.1 verovio==6.4.1
cd "$work"

"$work/venv/bin/python" - <<'PY'
import base64
import sys
from importlib.metadata import version

import verovio
from music21 import converter

TUNE = "X:1\nT:Five\nM:4/4\nL:1/4\nK:C\n^F F G F | F G A B |\n"
EXPECTED = [66, 66, 67, 66, 65, 67, 69, 71]  # MIDI numbers; 65 is F, 66 F sharp
ONE_NOTE = [66, 65, 67, 65, 65, 67, 69, 71]


def by_music21(tune: str) -> list[int]:
    """MIDI numbers of the notes as music21 reads the tune."""
    return [note.pitch.midi for note in converter.parseData(tune, format="abc").recurse().notes]


def by_verovio(tune: str) -> list[int]:
    """MIDI numbers of the notes in the MIDI file that verovio makes of the tune."""
    toolkit = verovio.toolkit()
    toolkit.setInputFrom("abc")
    toolkit.loadData(tune)
    midi = base64.b64decode(toolkit.renderToMIDI())
    return [note.pitch.midi for note in converter.parseData(midi, format="midi").recurse().notes]


print("version: ", "music21", version("music21"), "verovio", version("verovio"))
print("expected:", EXPECTED)
seen = {}
for name, read in (("music21", by_music21), ("verovio", by_verovio)):
    for header in ("", "%abc-2.1\n"):
        seen[name, header] = read(header + TUNE)
        print(f"seen:     {name} {header.strip() or 'no version line':16} {seen[name, header]}")
keeps = {key: notes == EXPECTED for key, notes in seen.items()}
wrong = [notes for key, notes in seen.items() if not keeps[key]]
if [*keeps.values()] != [False, True, False, False] or any(n != ONE_NOTE for n in wrong):
    sys.exit("CHANGED; so far a sharp held for one note, except in music21 after a version line")
print("unchanged")
PY
