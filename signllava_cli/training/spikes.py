"""Loss spikes: a step whose loss is far above the run's own recent losses."""

from signllava_cli.training.progress import Progress

MEMORY = 0.9  # the share of the past in the moving averages: about the last ten steps
FAR = 6.0  # mean distances above the mean
FIRST_STEPS = 20  # in which the averages are still settling


def is_spike(progress: Progress, loss: float) -> bool:
    """Whether `loss`, that of the step just taken, is a spike; its averages take it up afterwards."""
    distance = loss - progress.loss_mean
    found = progress.step > FIRST_STEPS and distance > FAR * progress.loss_spread
    if progress.step <= 1:
        progress.loss_mean, progress.loss_spread = loss, 0.0
    else:
        progress.loss_mean += (1 - MEMORY) * distance
        progress.loss_spread += (1 - MEMORY) * (abs(distance) - progress.loss_spread)
    return found
