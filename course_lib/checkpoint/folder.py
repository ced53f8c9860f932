"""The checkpoints in a folder, without torch: which there are, and what each says of itself."""

import json
from pathlib import Path
from typing import Any

ABOUT = "about.json"
PARTIAL = ".partial"  # how the name of one ends that is being written, or was when its job ended


def folder_of(folder: str | Path, step: int) -> Path:
    """Where the checkpoint after `step` steps belongs."""
    return Path(folder, f"step-{step:08d}")


def found(folder: str | Path) -> list[Path]:
    """The complete checkpoints in a folder, the newest last."""
    return sorted(p for p in Path(folder).glob("step-*") if p.suffix != PARTIAL and (p / ABOUT).exists())


def about(path: str | Path) -> dict[str, Any]:
    """What a checkpoint says of itself: "step", and what it was saved with."""
    return json.loads(Path(path, ABOUT).read_text(encoding="utf-8"))
