"""Which Chromium the browser tests drive. None is ever downloaded: it is the system's, or that of COURSE_CHROMIUM."""

import os
import shutil
from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "msedge")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "C:/Program Files/Google/Chrome/Application/chrome.exe",
    "C:/Program Files (x86)/Microsoft/Edge/Application/msedge.exe",
)


def find_chromium() -> str | None:
    """The program's path, or None. What COURSE_CHROMIUM names must exist: a wrong name is not passed over."""
    if named := os.environ.get("COURSE_CHROMIUM"):
        return shutil.which(named)
    found = (shutil.which(name) for name in PROGRAMS)
    return next((path for path in (*found, *filter(_exists, PLACES)) if path), None)


def _exists(place: str) -> bool:
    return Path(place).exists()
