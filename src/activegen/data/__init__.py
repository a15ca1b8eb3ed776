"""Real data in: one reader per layout, splits of it, prompts for it, fingerprints of it.

A reader is a function ``(path, split, **options) -> RealImages``; `readers.READERS` names them all.
"""
