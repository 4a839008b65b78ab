"""Dilated temporal convolutions, from all frames of a video to the azimuth of each.

    carjax train --config=configs/temporal_tcn.py --workdir=out/temporal_tcn --config.fold=0

Result on 62 simulated walks around the car models of that fold, which it never saw, with 20% of
the frames spoilt: median error 3.64°, mean 5.69°, flips 0.00%, within 30° 0.987, log-likelihood
0.734 nats per radian. Without --config.fold it trains on every model.
"""

from carjax.training import sequences


def get_config():
    return sequences.default_config("tcn")
