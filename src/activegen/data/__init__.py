"""Real data in: one reader per layout, splits of it, prompts for it, fingerprints of it.

A reader is a function ``(path, split, **options) -> RealImages``, or ``RealScenes`` where images
have masks; `readers.READERS` and `readers.SCENE_READERS` name them all.
"""
