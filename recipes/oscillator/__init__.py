"""A forecaster of a noisy oscillator, held against the best there can be."""
