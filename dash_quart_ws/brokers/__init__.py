"""What crosses processes, and survives a restart? Revocations and known sessions, behind one interface."""
