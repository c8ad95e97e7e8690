"""The reading list reproduced: papers' experiments as commands, each paper one file."""

from .experiment import Condition, Experiment, Outcome
from .reproduction import EXPERIMENTS, PAPERS, Reproduction, reproduce

__all__ = ["EXPERIMENTS", "PAPERS", "Condition", "Experiment", "Outcome", "Reproduction", "reproduce"]
