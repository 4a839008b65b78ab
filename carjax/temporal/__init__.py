"""Time: what the neighbouring frames of a walk around the car say about a frame.

`motion` says how the azimuth moves, `circular_filter` smooths a whole video with it, `viterbi`
finds the most probable path, `streaming` smooths a live video with a fixed lag. Which photos are
chosen by it is for `selection.smoothing` and `selection.live` to say.
"""
