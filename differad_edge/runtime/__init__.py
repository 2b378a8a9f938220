"""From camera to result: what `differad-edge serve` runs."""
