"""What travels? Messages, their text, their order and their close codes. Nothing here awaits."""
