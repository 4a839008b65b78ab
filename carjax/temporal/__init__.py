"""Time: what the neighbouring frames of a walk around the car say about a frame.

`motion` says how the azimuth moves, `circular_filter` smooths a whole video with it, `viterbi`
finds the most probable path, `streaming` smooths a live video with a fixed lag; `grids` reads their
densities on a grid. `consensus` joins the frames' classes. `sequence_heads` learn from the features
of whole videos, of `mixers` and `votes`, on the simulated `walks`; `sequence_model` is a trained
one. Which photos are chosen by all this is for `selection.smoothing` and `selection.live` to say.
"""
