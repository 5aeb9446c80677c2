"""The parts that every other package stands on: components, blocks of scores, precision, and random numbers."""
