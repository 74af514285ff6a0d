"""Who is here? The hub, and one socket's reader, writer and ordered teardown."""
