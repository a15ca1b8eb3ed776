"""The embedded default: a procedural land-cover world and a small generator that knows it."""

from pathlib import Path

LAND_COVER = Path(__file__).parent / "land_cover"  # a diffusers folder; its card is README.md there
LAND_COVER_SCENES = Path(__file__).parent / "land_cover_scenes"  # for masks, with a ControlNet
