"""What pages are drawn with: style sheet, scripts and icon, as files beside them or inside of them."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

STATIC = Path(__file__).with_name("static")
PLOTLY = Path(str(files("plotly"))) / "package_data" / "plotly.min.js"

STILL = "still.js"
"""The script of pages that no server answers."""

NOTHING_ELSE = "default-src 'none'; base-uri 'none'; form-action 'none'"
BESIDE = f"{NOTHING_ELSE}; script-src 'self'; style-src 'self'; img-src 'self' data:"
"""What a page may load whose assets are files beside it."""


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What a page carries inside of itself."""

    style: str
    script: str
    icon: str
    """An address that holds the icon itself."""

    @property
    def policy(self) -> str:
        """What the page may load: these alone."""
        script, style = _hash(self.script), _hash(self.style)
        return f"{NOTHING_ELSE}; script-src '{script}'; style-src '{style}'; img-src data:"


def inside() -> Inside:
    """Return what a page carries that has no file beside it."""
    icon = f"data:image/svg+xml,{quote(_text('icon.svg'))}"
    return Inside(style=_text("whitebench.css"), script=joined(STILL), icon=icon)


def content(name: str) -> bytes:
    """Return an asset as a file beside pages; of a script all that it imports with it."""
    if name == PLOTLY.name:
        return PLOTLY.read_bytes()
    return joined(name).encode() if name == STILL else (STATIC / name).read_bytes()


def joined(name: str) -> str:
    """Return a script and those that it imports as one that imports nothing: browsers load no modules from a disk."""
    text = _text(name)
    imported = [joined(one) for one in re.findall(r'^import .* from "\./([\w.]+)";$', text, re.MULTILINE)]
    own = re.sub(r"^export ", "", re.sub(r"^import .*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    whole = "\n".join((*imported, own))
    return f'(() => {{\n"use strict";\n{whole}}})();\n' if name == STILL else whole


def _text(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
