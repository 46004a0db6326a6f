"""What the process shows of itself: metrics for Prometheus, traces by OpenTelemetry."""
