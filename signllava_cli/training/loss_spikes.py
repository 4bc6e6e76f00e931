"""Loss spikes: a step whose loss is far above the recent losses of the run."""

from signllava_cli.training.train_state import TrainState

DECAY = 0.9  # weight of the past in the moving averages, which so cover about the last ten steps
SPIKE_DISTANCES = 6.0  # a spike is more than this many mean distances above the mean
SETTLING_STEPS = 20  # the averages need this many steps before they are meaningful


def is_spike(state: TrainState, loss: float) -> bool:
    """Whether `loss`, of step `state.step`, is a spike; then update the moving averages of `state` with it."""
    distance = loss - state.loss_mean
    has_spike = state.step > SETTLING_STEPS and distance > SPIKE_DISTANCES * state.loss_spread
    if state.step <= 1:
        state.loss_mean, state.loss_spread = loss, 0.0
    else:
        state.loss_mean += (1 - DECAY) * distance
        state.loss_spread += (1 - DECAY) * (abs(distance) - state.loss_spread)
    return has_spike
