"""Who may? What a session is, how it begins, how it ends, and who gets in."""
