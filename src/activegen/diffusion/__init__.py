"""The sampling loop over diffusers schedulers, and one adapter per model family.

    model = StableDiffusion.load(folder)
    noise, rngs = seeded([0, 1], model.noise_shape)
    conditioning = model.condition(["a photo of a river"] * 2, ["river"] * 2)
    drawn = sample(Batch(model, Sampling(), noise, rngs, conditioning, target), guidance=[...])

``levels`` has noise levels and solvers, ``attention`` where the text looks, ``decoders`` the ways
from latents to pictures, ``model`` what a family's adapter must do, ``sampling`` the loop;
``pseudo_masks`` makes masks of the attention, ``mean_field`` mends them along edges, and
``reliability`` says what of them to trust.
"""
