"""What goes on inside a recurrent network: gradients through time, gates, memory, spectra."""

from carousel.diagnostics.diagnosis import Diagnosis, LayerDiagnosis, diagnose
from carousel.diagnostics.gates import Gate, gates, memory_lengths, retention
from carousel.diagnostics.gauges import Gauges, gauging
from carousel.diagnostics.gradients import Flow, GradientFlow, gauged_flow, gradient_flow
from carousel.diagnostics.inspection import inspect, write_inspection
from carousel.diagnostics.observation import Layer, observing
from carousel.diagnostics.spectra import singular_values, spectrum, state_jacobians

__all__ = [
    "Diagnosis",
    "Flow",
    "Gate",
    "Gauges",
    "GradientFlow",
    "Layer",
    "LayerDiagnosis",
    "diagnose",
    "gates",
    "gauged_flow",
    "gauging",
    "gradient_flow",
    "inspect",
    "memory_lengths",
    "observing",
    "retention",
    "singular_values",
    "spectrum",
    "state_jacobians",
    "write_inspection",
]
