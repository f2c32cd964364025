"""An oscillator kicked at random and seen through noise, and the Kalman filter that forecasts it best."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Oscillator:
    """`z_t = decay * R z_{t-1} + kicks`, with R a turn by a `period`-th of a circle; seen is `z_t[0] + noise`, in units
    of `unit` around `level`. `kick` and `noise` are standard deviations."""

    period: float = 12.0
    decay: float = 0.995
    kick: float = 0.05
    noise: float = 0.1
    unit: float = 20.0
    level: float = 300.0

    @property
    def transition(self) -> Numbers:
        angle = 2 * math.pi / self.period
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        return self.decay * turn

    def sample(self, steps: int, seed: int) -> Numbers:
        """What is seen of it (steps,)."""
        generator = np.random.default_rng(seed)
        kicks, noise = generator.normal(0, self.kick, (steps, 2)), generator.normal(0, self.noise, steps)
        z, seen = np.zeros(2), np.empty(steps)
        for t in range(steps):
            z = self.transition @ z + kicks[t]
            seen[t] = z[0] + noise[t]
        return self.level + self.unit * seen

    def best_forecasts(self, series: Numbers) -> Numbers:
        """The Kalman filter's forecast of each value (steps,) from those before it: no other errs less (Kalman, 1960,
        "A New Approach to Linear Filtering and Prediction Problems")."""
        mean, covariance, forecasts = np.zeros(2), np.zeros((2, 2)), np.empty(len(series))
        for t, value in enumerate((series - self.level) / self.unit):
            mean = self.transition @ mean
            covariance = self.transition @ covariance @ self.transition.T + self.kick**2 * np.eye(2)
            forecasts[t] = mean[0]
            gain = covariance[:, 0] / (covariance[0, 0] + self.noise**2)
            mean = mean + gain * (value - mean[0])
            covariance = covariance - np.outer(gain, covariance[0])
        return self.level + self.unit * forecasts
