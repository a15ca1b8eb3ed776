"""The models the data is for: networks, what they learn from, how they learn, how good they are.

Everything here takes RGB images in 0..1 (or uint8 in storage); only the :class:`Classifier`
normalises. All randomness follows from a seed and a step, never from the global generator.
"""
