"""Builds, trains and converts the networks that quantal runs; needs TensorFlow and Keras."""
