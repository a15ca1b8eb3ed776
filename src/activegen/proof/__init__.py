"""Did it help? Pure functions that say what the figures of arms show, and what they do not.

An arm is one way to make training images, run over several seeds; figures are shares, 0 to 1,
higher = better, of real test images. All intervals are of 95 %. Nothing here runs, reads or draws
anything, and all resampling follows from a fixed seed.
"""
