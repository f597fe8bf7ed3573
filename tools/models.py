"""Train the models in models/ again: run the commands that each model card gives.

    python tools/models.py            # all of them; this takes hours
    python tools/models.py stories    # the ones named

The commands are the lines of the first bash block in models/<name>/README.md, so that what the
card tells the reader is what runs.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def commands(card: str) -> list[str]:
    """The command lines of the first bash block; lines that end in a backslash are joined."""
    block = re.search(r"^```bash\n(.*?)^```", card, flags=re.MULTILINE | re.DOTALL)
    if block is None:
        raise ValueError("the model card has no ```bash block with the commands that made it")
    lines = block[1].replace("\\\n", " ").split("\n")
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def main() -> int:
    """Run the commands of the cards that were asked for; stop at the first that fails."""
    cards = sorted((ROOT / "models").glob("*/README.md"))
    names = sys.argv[1:] or [card.parent.name for card in cards]
    here = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": here + os.pathsep + os.environ["PATH"]}
    for name in names:
        card = ROOT / "models" / name / "README.md"
        if card not in cards:
            known = ", ".join(path.parent.name for path in cards) or "none yet"
            print(f"there is no model card {name!r} in models/; there is: {known}")
            return 2
        for command in commands(card.read_text(encoding="utf-8")):
            print(f"=== {name}: {command}", flush=True)
            status = subprocess.run(command, shell=True, cwd=ROOT, env=environment).returncode
            if status != 0:
                return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
