"""What an administrator needs before the first start: secrets, samples, checks of settings."""
