"""What all tests share."""

from hypothesis import HealthCheck, settings

# Examples are the same everywhere, and none fails because the machine is busy: speed has benchmarks of its own.
settings.register_profile(
    "tlcli", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("tlcli")
