"""Which adapter a model needs, by its folder."""

from pathlib import Path

from activegen.diffusion.stable_diffusion import StableDiffusion, folder_of
from activegen.diffusion.stable_diffusion_xl import StableDiffusionXL, index_of


def family(path: str | Path) -> type[StableDiffusion]:
    """The adapter of the model in a folder in diffusers' layout (or of a Hub id).

    SDXL is known by the pipeline's name in model_index.json, or by its second text encoder.

    Raises:
        UserError: there is no such model, or its model_index.json is damaged.
    """
    folder = folder_of(path)
    named = str(index_of(folder).get("_class_name", "")).startswith("StableDiffusionXL")
    return StableDiffusionXL if named or (folder / "text_encoder_2").is_dir() else StableDiffusion
