"""Settings and forms of the ROHE platform."""
