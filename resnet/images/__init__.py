"""An image's bytes -> a uint8 array: decoding with its limits, crops, flips, colour."""
