"""Traces by OpenTelemetry.

`context` knows W3C Trace Context and imports nothing. `tracer` imports OpenTelemetry's packages, and is imported only if
`tracing.endpoint` is set: elsewhere a tracer is `Tracer | None`, and None costs one test.
"""
