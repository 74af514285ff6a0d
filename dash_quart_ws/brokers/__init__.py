"""What crosses processes, and survives a restart? Revocations, behind one interface."""
