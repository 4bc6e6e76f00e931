"""Loss spikes: a step whose loss is far above the run's own recent losses."""

from signllava_cli.training.train_state import TrainState

DECAY = 0.9  # the share of the past in the moving averages: about the last ten steps
SPIKE_DISTANCES = 6.0  # mean distances above the mean
SETTLING_STEPS = 20  # in which the averages are still settling


def is_spike(progress: TrainState, loss: float) -> bool:
    """Whether `loss`, that of the step just taken, is a spike; its averages take it up afterwards."""
    distance = loss - progress.loss_mean
    found = progress.step > SETTLING_STEPS and distance > SPIKE_DISTANCES * progress.loss_spread
    if progress.step <= 1:
        progress.loss_mean, progress.loss_spread = loss, 0.0
    else:
        progress.loss_mean += (1 - DECAY) * distance
        progress.loss_spread += (1 - DECAY) * (abs(distance) - progress.loss_spread)
    return found
