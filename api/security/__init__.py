"""Security checks of every request (host, origin, proxies), and headers of every answer."""
