"""The models the data is for: networks, what they learn from, how they learn, how good they are.

Everything here takes RGB images in 0..1 (or uint8 in storage); only a :class:`TaskNetwork`
normalises. Masks go by the nearest pixel when they change their size. All randomness follows from
a seed and a step, never from the global generator.
"""
