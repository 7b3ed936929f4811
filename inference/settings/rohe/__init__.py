"""Configuration files of ROHE's inference service, translated to our settings."""
