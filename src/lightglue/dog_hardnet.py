"""Where the published package keeps `DoGHardNet`."""

from lightglue.extractors.dog_hardnet import DoGHardNet

__all__ = ["DoGHardNet"]
