"""Whether what is deployed is what the running configuration needs."""
