"""Traces and metrics, for OpenTelemetry and Prometheus.

current     whether the program has an OpenTelemetry SDK, and the trace of the calling task
spans       the spans of runs, their steps, attempts and waits
meter       OpenTelemetry's side of ``measures``
prometheus  that of Prometheus

Nothing of OpenTelemetry is imported that the program has not imported itself.
"""
